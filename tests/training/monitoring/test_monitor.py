# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the log, the curves and the result of a run take whatever losses there are, by their names."""

import sys
from dataclasses import replace

import pytest
from matplotlib.axes import Axes

from modeling_esvit import losses
from modeling_esvit.losses import EsViTLoss
from modeling_esvit.storage.atomic import append_text
from tests.helpers.tiny_runs import read_log, tiny, train, write_images
from training.monitoring import monitor


TOY_WEIGHT = 0.5


def add_toy_loss(esvit_loss):
    """Returns `esvit_loss` with one more term: the mean square of the student's view embeddings."""

    def with_toy_loss(student, *arguments, **options) -> EsViTLoss:
        loss = esvit_loss(student, *arguments, **options)
        toy = student.view_embeddings.square().mean()
        return replace(loss, loss=loss.loss + TOY_WEIGHT * toy, parts={**loss.parts, "toy_loss": toy.detach()})

    return with_toy_loss


@pytest.fixture
def curves(monkeypatch) -> list[str]:
    """Collects the labels of all curves that are drawn."""
    drawn, plot = [], Axes.plot

    def note_label(axes, *arguments, **options):
        drawn.append(options["label"])
        return plot(axes, *arguments, **options)

    monkeypatch.setattr(Axes, "plot", note_label)
    return drawn


@pytest.mark.parametrize("task", ["view", "view+region"])
def test_a_new_loss_term_is_logged_and_drawn_by_its_name(tmp_path, monkeypatch, curves, task):
    monkeypatch.setattr(losses, "esvit_loss", add_toy_loss(losses.esvit_loss))
    run = train(tiny(write_images(tmp_path / "images"), tmp_path / "run", f"--task {task} --max_steps 2"))
    log = read_log(tmp_path / "run")
    assert len(log) == 2
    weight = run.options.loss_weights()["region_weight"]
    for record in log:
        assert list(record)[1:6] == ["loss", "view_loss", "region_loss", "toy_loss", "teacher_entropy"]
        known = (1 - weight) * record["view_loss"] + weight * record["region_loss"]
        assert record["toy_loss"] > 0 and record["loss"] == pytest.approx(known + TOY_WEIGHT * record["toy_loss"])
    drawn = [label for label in curves if label.endswith("loss")]
    assert drawn == ["toy loss", "view loss", "region loss", "loss"]
    assert (tmp_path / "run" / "curves.png").stat().st_size > 0


def test_a_log_that_cannot_be_written_once_loses_no_line(tmp_path, monkeypatch, capsys):
    """A disk in a network fails now and then; its error named no file, and was a traceback of one process."""
    errors = iter([OSError(5, "Input/output error")])

    def append(path, text) -> None:
        for error in errors:
            raise error
        append_text(path, text)

    monkeypatch.setattr(monitor, "append_text", append)
    train(tiny(write_images(tmp_path / "images"), tmp_path / "run", "--max_steps 2"))
    assert "log.jsonl is not written ([Errno 5] Input/output error); its lines come with" in capsys.readouterr().out
    assert [record["step"] for record in read_log(tmp_path / "run")] == [1, 2]


def test_without_matplotlib_a_run_has_no_curves_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    train(tiny(write_images(tmp_path / "images"), tmp_path / "run", "--max_steps 1"))
    assert "Warning: curves.png is not written: import of matplotlib.figure" in capsys.readouterr().out
    assert len(read_log(tmp_path / "run")) == 1


@pytest.mark.slow
def test_a_line_each_window_outside_a_terminal(images, tmp_path, capsys):
    """It begins with kl, which falls; there is no bar."""
    train(tiny(images, tmp_path / "run", "--log_every 2"))
    shown = capsys.readouterr()
    lines = [line for line in shown.out.splitlines() if line.startswith("step ")]
    log = read_log(tmp_path / "run")
    assert [line.split(":")[0] for line in lines] == [
        "step 2/6, epoch 1/2",
        "step 3/6, epoch 1/2",
        "step 4/6, epoch 2/2",
        "step 6/6, epoch 2/2",
    ]
    for line, record in zip(lines, log, strict=True):
        assert f": kl {record['kl']:.3f}, loss {record['loss']:.3f}, " in line and "data wait" in line
    assert "pretrain" not in shown.err and "%|" not in shown.err
