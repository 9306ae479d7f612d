# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the evaluations of a run: one that a stop cut off is made up for; workers, precision and time."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_runs import read_log, tiny, train, write_images
from training.features import extraction
from training.options.pretrain_options import parse_options
from training.pretrain import Pretraining
from training.run.session import Session
from training.state.interruption import InterruptedRunError


EVALUATE = Session.evaluate


@pytest.fixture(scope="module")
def test_images(labelled_images, tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "test", 40, classes="ab")


class Stopped(Exception):
    pass


def stop_before(session: Session, after_batch: Callable[[], None]) -> dict[str, float]:
    """Stops when the checkpoint is written and its evaluation not begun."""
    raise Stopped


def stop_after(session: Session, after_batch: Callable[[], None]) -> dict[str, float]:
    """Stops when the scores are beside the checkpoint and not yet in the log."""
    scores = EVALUATE(session, after_batch)
    session.checkpoints._add_scores((session.checkpoints.root / "last").resolve(), scores)
    raise Stopped


def signal_within(session: Session, after_batch: Callable[[], None]) -> dict[str, float]:
    """Sends a signal while the evaluation is under way."""
    os.kill(os.getpid(), signal.SIGUSR1)
    return EVALUATE(session, after_batch)


def story(output: Path) -> list[dict]:
    """Returns the log without times."""
    times = ("images_per_second", "data_wait", "memory_gb")
    return [{k: v for k, v in record.items() if k not in times} for record in read_log(output)]


def test_the_watch_awaits_the_epoch_in_which_regions_are_matched_by_feature(images, tmp_path):
    """Half of three epochs are a step within the second, which is by location to its end."""
    run = Pretraining(parse_options(tiny(images, tmp_path, "--epochs 3 --region_matching location_then_feature")))
    assert [run.matches_by_location(epoch) for epoch in range(3)] == [True, True, False]
    assert run.session.make_watch().feature_step == 2 * run.plan.steps_per_epoch


@pytest.fixture(scope="module")
def evaluated(labelled_images, test_images, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("evaluated")
    train(tiny(labelled_images, output, f"--knn_every 1 --knn_test {test_images} --knn_k 3"))
    return output


@pytest.mark.parametrize("evaluate", [stop_before, stop_after, signal_within])
def test_a_lost_evaluation_is_made_up_for(labelled_images, test_images, evaluated, tmp_path, monkeypatch, evaluate):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    changes = f"--knn_every 1 --knn_test {test_images} --knn_k 3"
    monkeypatch.setattr(Session, "evaluate", evaluate)
    with pytest.raises(InterruptedRunError if evaluate is signal_within else Stopped):
        train(tiny(labelled_images, tmp_path, changes))
    monkeypatch.undo()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert not any("knn_k3_top1" in record for record in story(tmp_path))
    train(tiny(labelled_images, tmp_path, changes))
    assert story(tmp_path) == story(evaluated)
    assert [record["step"] for record in story(tmp_path) if "knn_k3_top1" in record] == [3, 6]
    for name in ("best.json", "step-00000003/evaluation.json"):
        a, b = (folder / "checkpoints" / name for folder in (tmp_path, evaluated))
        assert a.read_text() == b.read_text()
    assert (tmp_path / "checkpoints" / "best").resolve().name == (evaluated / "checkpoints" / "best").resolve().name


def test_an_evaluation_takes_the_workers_and_the_precision_of_the_run(
    labelled_images, test_images, tmp_path, monkeypatch
):
    threads, is_autocast = [], []
    load_ahead = extraction.load_ahead

    def load_and_note(*arguments, **options):
        threads.append(options["threads"])
        return load_ahead(*arguments, **options)

    monkeypatch.setattr(extraction, "load_ahead", load_and_note)
    changes = "--max_steps 1 --knn_every 1 --knn_k 3 --workers 2 --mixed_precision bf16"
    run = Pretraining(parse_options([*tiny(labelled_images, tmp_path, changes), "--knn_test", str(test_images)]))

    def note(module, inputs, output):
        if not module.training:
            is_autocast.append(torch.is_autocast_enabled("cpu"))

    run.teacher.esvit.register_forward_hook(note)
    run.run()
    assert threads == [2, 2] and is_autocast and all(is_autocast)


def test_the_time_of_an_evaluation_is_shown_and_is_none_of_the_steps(
    labelled_images, test_images, tmp_path, monkeypatch, capsys
):
    """Plays evaluations of 1000 s by setting the clock forward."""
    clock, lost = time.perf_counter, [0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + lost[0])

    def evaluate_slowly(*arguments, **options):
        lost[0] += 1000
        return {"k3_top1": 0.5, "test_images": 40, "chance": 0.5}

    monkeypatch.setattr("training.run.session.evaluate_knn", evaluate_slowly)
    train(tiny(labelled_images, tmp_path, f"--knn_every 1 --knn_test {test_images} --knn_k 3"))
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("k-NN of 40 images: k3_top1 50.0% in 100") == 2
    assert all(record["images_per_second"] > 0.1 for record in read_log(tmp_path) if "loss" in record)


@pytest.mark.slow
def test_a_finished_run_stands_beside_its_start_and_chance(labelled_images, test_images, tmp_path, capsys):
    """Its start is what a run of a learning rate of 0 still is at its end."""
    changes = f"--knn_every 2 --knn_test {test_images} --knn_k 3"
    still = "--lr 0 --min_lr 0 --weight_decay 0 --weight_decay_end 0"
    train(tiny(labelled_images, tmp_path / "still", f"{changes} {still}"))
    before = {n: v for r in read_log(tmp_path / "still") for n, v in r.items() if n in ("knn_k3_top1", "start_k3_top1")}
    assert before["knn_k3_top1"] == before["start_k3_top1"]
    train(tiny(labelled_images, tmp_path / "run", f"{changes} --max_steps 3"))
    assert capsys.readouterr().out.count("| before training |") == 1  # a part of a run is not compared
    train(tiny(labelled_images, tmp_path / "run", changes))
    last = read_log(tmp_path / "run")[-1]
    assert last == {"step": 6, "start_k3_top1": before["start_k3_top1"]}
    shown = capsys.readouterr().out
    assert f"| before training | {before['start_k3_top1']:.2%} |" in shown and "| chance | 50.00% |" in shown
    assert "By k-NN top-1, k = 3, " in shown


@pytest.mark.slow
def test_a_start_that_is_gone_is_told(labelled_images, test_images, tmp_path, capsys):
    train(tiny(labelled_images, tmp_path / "first", "--max_steps 1"))
    changes = f"--knn_every 2 --knn_test {test_images} --knn_k 3 --init_from {tmp_path / 'first'}"
    train(tiny(labelled_images, tmp_path / "run", f"{changes} --max_steps 3"))
    shutil.move(tmp_path / "first", tmp_path / "gone")
    train(tiny(labelled_images, tmp_path / "run", changes))
    assert f"Not compared with its start: init_from '{tmp_path / 'first'}' does not exist" in capsys.readouterr().out
