# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the trackers with their real packages, if these are installed, without a network."""

import errno
import json
import os
import sqlite3
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

import training.run.session as session
from tests.helpers.commands import run_program
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import read_log, tiny, train, write_images
from training.monitoring.trackers import end_trackers, hide_writer_traceback, make_hyperparameters, start_trackers
from training.options.pretrain_options import PretrainOptions
from training.state.provenance_record import write_provenances


TOKENS = {"HF_TOKEN": "hf_" + "ThisIsNoToken" * 3, "WANDB_API_KEY": "0123456789abcdef" * 2 + "76543210"}


def test_hyperparameters_are_numbers_where_they_can_be():
    values = make_hyperparameters(PretrainOptions())
    assert values["lr"] == 5e-4 and values["streaming"] is True
    assert values["local_crop_sizes"] == "[96]" and values["embed_dim"] == "None"


def test_hyperparameters_are_public_options(tmp_path):
    options = PretrainOptions(data="org/photos", init_from="patients/ada", output=str(tmp_path), split="mine")
    values = make_hyperparameters(options)
    assert values["data"] == "a folder of images" and not {"output", "split", "tracker"} & set(values)
    write_provenances(tmp_path, {"data": "org/photos", "init_from": str(tmp_path)})
    values = make_hyperparameters(options)
    assert (values["data"], values["split"], values["init_from"]) == ("org/photos", "mine", "a local model")


@pytest.mark.slow
def test_a_tracker_that_cannot_write_ends_no_run(tmp_path, monkeypatch, capsys):
    """TensorBoard's thread ends with the error of its file, and each value from then on raises it again."""

    def fail(*_) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def start_and_fill_disk(*given) -> None:
        start_trackers(*given)
        monkeypatch.setattr(RecordWriter, "write", fail)

    monkeypatch.setattr(session, "start_trackers", start_and_fill_disk)
    train(tiny(write_images(tmp_path / "images"), tmp_path / "run", "--max_steps 2 --tracker tensorboard"))
    shown = capsys.readouterr()
    assert "Warning: a tracker has lost values, which the log has: [Errno 28] No space left on device" in shown.out
    assert "Traceback" not in shown.err
    assert [record["step"] for record in read_log(tmp_path / "run")] == [1, 2]


def test_a_tracker_that_cannot_be_closed_ends_no_run(capsys):
    class Tracker:
        def finish(self) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    accelerator = SimpleNamespace(trackers=[Tracker(), Tracker()], end_training=lambda: print("ended"))
    end_trackers(accelerator, print)
    assert capsys.readouterr().out.count("Read-only file system") == 2 and accelerator.trackers == []


def test_other_threads_keep_their_traceback(capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    with hide_writer_traceback():
        thread = threading.Thread(target=open, args=("/no/such/file",))
        thread.start()
        thread.join()
    assert "FileNotFoundError" in capsys.readouterr().err and threading.excepthook is threading.__excepthook__


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_all_at_once_write_into_the_run_and_write_no_token(tmp_path):
    """Stops a run after two steps and continues it: each tracker sees one run."""
    for package in ("wandb", "trackio"):
        pytest.importorskip(package)
    images, output = write_images(tmp_path / "images"), tmp_path / "run"
    for folder in ("home", "current"):
        (tmp_path / folder).mkdir()
    outside = {"HOME": str(tmp_path / "home"), "MPLCONFIGDIR": str(tmp_path / "home")}
    offline = {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
    for changes in ("--max_steps 2", ""):
        arguments = tiny(images, output, f"--tracker tensorboard wandb trackio {changes}")
        command = ["python", ROOT / "training" / "pretrain.py", *arguments]
        run_program(command, tmp_path / "current", **TOKENS, **outside, **offline)

    log = read_log(output)
    with sqlite3.connect(output / "trackio" / "esvit.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
    assert {name for name, *_ in rows} == {(output / "tracked_as").read_text().strip()}
    assert [(step, json.loads(metrics)["loss"]) for _, step, metrics in rows] == [
        (record["step"], record["loss"]) for record in log
    ]
    runs = list((output / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 2 and len({path.name for path in runs}) == 1
    assert len(list((output / "esvit").glob("events.out.tfevents.*"))) == 2

    assert files_below(tmp_path / "current") == []
    strangers = [path for path in files_below(tmp_path / "home") if "wandb/logs" not in path.as_posix()]
    assert [path for path in strangers if "fontlist" not in path.name] == []
    for path in files_below(tmp_path):
        assert not [name for name, token in TOKENS.items() if token.encode() in path.read_bytes()], path
