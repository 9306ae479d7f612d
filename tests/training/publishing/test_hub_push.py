# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the best teachers arrive, and that training neither waits for the Hub nor stops with it."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from modeling_esvit.storage.manifest import list_names
from tests.helpers.commands import run_program
from tests.helpers.tiny_runs import flip_bit, read_losses, tiny, train, write_labelled_images
from tests.hub.loopback_hub import Fault, LoopbackHub
from training.options.errors import OptionError
from training.options.pretrain_options import parse_options
from training.pretrain import Pretraining
from training.publishing.hub_push import HubPush
from training.publishing.source import find_source


TOKENS = {"hf_ada_secret": "ada", "hf_bob_secret": "bob"}
ADA, BOB = TOKENS


@pytest.fixture
def hub():
    with LoopbackHub([], TOKENS) as running:
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, str]:
    """Images, and the options of a run on them that is evaluated after each epoch."""
    folder = tmp_path_factory.mktemp("data")
    return folder / "train", write_labelled_images(folder)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """Returns a run of the same options that pushed nothing."""
    output = tmp_path_factory.mktemp("quiet") / "run"
    train(tiny(data[0], output, data[1]))
    return output


def pretrain(hub: LoopbackHub, data: tuple[Path, str], folder: Path, token: str | None, changes: str = ""):
    """Runs the command in a process of its own, whose clients have this Hub only."""
    arguments = tiny(data[0], folder / "run", f"{data[1]} --push_to_hub ada/tiny {changes}")
    return run_program(["python", "training/pretrain.py", *arguments], timeout=500, base=hub.environment(folder, token))


def is_alive(process: subprocess.Popen) -> bool:
    return Path(f"/proc/{process.pid}").exists() and process.poll() is None


def test_names_are_checked_before_anything_is_done(data, tmp_path):
    for name in ("tiny", "ada/wrong name"):
        options = parse_options([*tiny(data[0], tmp_path / "run"), "--push_to_hub", name])
        with pytest.raises(OptionError, match=f"{name!r} is no "):
            Pretraining(options)
    assert not (tmp_path / "run").exists()


def test_a_copy_is_what_is_published(run, tmp_path):
    """Copies a run of its own, with the options, the log and the steps of the checkpoint, which may be deleted."""
    best = json.loads((run / "checkpoints" / "best.json").read_text())["checkpoint"]
    push = HubPush("ada/tiny", run)
    push.copy(best)
    found, expected = find_source(run / "hub" / "next"), find_source(run, "best")
    assert (found.step, found.options, found.processes) == (expected.step, expected.options, 1)
    assert found.scores() == expected.scores() != {}
    assert (found.model / "model.safetensors").read_bytes() == (expected.model / "model.safetensors").read_bytes()
    push.copy("final")
    found, expected = find_source(run / "hub" / "next"), find_source(run)
    assert (found.model / "model.safetensors").read_bytes() == (expected.model / "model.safetensors").read_bytes()
    assert found.model == run / "hub" / "next" / "teacher" and found.step == expected.step == 6


def test_a_damaged_teacher_is_not_pushed(run, tmp_path):
    """The copy that is pushed would have a record of the damaged file."""
    shutil.copytree(run, tmp_path / "run", symlinks=True, ignore=shutil.ignore_patterns("hub"))
    flip_bit(tmp_path / "run" / "checkpoints" / "last" / "teacher" / "model.safetensors")
    said: list[str] = []
    HubPush("ada/tiny", tmp_path / "run", say=said.append).offer("final")
    assert "the teacher was not pushed: The model in " in said[0] and "is damaged or was changed" in said[0]
    assert not (tmp_path / "run" / "hub" / "next").exists()


def test_a_damaged_record_of_the_last_push_is_none(tmp_path):
    (tmp_path / "hub").mkdir()
    for content in ("{", "5", "[]", '{"repo_id": "ada/tiny"}', '{"checkpoint": "final"}'):
        (tmp_path / "hub" / "pushed.json").write_text(content)
        assert HubPush("ada/tiny", tmp_path).last_pushed() is None


def test_a_run_that_fails_ends_its_push(run, hub, monkeypatch):
    """Ends the push, which waits for a Hub that does not answer."""
    hub.inject(Fault("*", cut="stall", pause=60, after=None, method="POST", times=None))
    for name, value in hub.environment(run.parent, ADA).items():
        monkeypatch.setenv(name, value)
    push = HubPush("ada/tiny", run)
    with pytest.raises(KeyError):
        with push:
            process = push.process
            assert process is not None and is_alive(process)
            assert os.getpriority(os.PRIO_PROCESS, process.pid) > os.getpriority(os.PRIO_PROCESS, os.getpid())
            raise KeyError
    assert not is_alive(process) and push.last_pushed() is None


def test_the_last_push_is_waited_for_with_a_limit(run, hub, monkeypatch):
    hub.inject(Fault("*", cut="stall", pause=1000, after=None, method="POST", times=None))
    for name, value in hub.environment(run.parent, ADA).items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    push = HubPush("ada/tiny", run, say=said.append, last_push_seconds=1)
    started = time.monotonic()
    with push:
        process = push.process
    push.finish()
    assert process is not None and not is_alive(process) and time.monotonic() - started < 300  # and not 1000
    assert "took more than 1 seconds" in said[0]
    assert "To push it: python training/publish.py" in said[1] and said[1].endswith("--checkpoint best")


@pytest.mark.slow
def test_the_best_teacher_arrives(data, run, hub, tmp_path):
    """Pushes it with its card; training is the same as without, and the token is in no file and no output."""
    done = pretrain(hub, data, tmp_path, ADA)
    assert read_losses(tmp_path / "run") == read_losses(run)
    best = json.loads((tmp_path / "run" / "checkpoints" / "best.json").read_text())
    assert f"Pushed: {hub.url}/ada/tiny" in done.stdout + done.stderr and f"({best['checkpoint']})" in done.stdout
    files = hub.hub.repositories["model", "ada/tiny"].at("main")[1]
    folder = tmp_path / "run" / "hub" / "published"
    published = {name: (folder / name).read_bytes() for name in list_names(folder)}
    assert {name: file.content for name, file in files.items()} == published
    assert f"{100 * best['score']:.2f}".rstrip("0").rstrip(".") in files["README.md"].content.decode()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert ADA not in done.stdout + done.stderr and not [p for p in written if ADA.encode() in p.read_bytes()]
    assert not any(ADA.encode() in file.content for file in files.values())
    again = pretrain(hub, data, tmp_path, ADA)
    assert "Pushed: " not in again.stdout  # it is there already


@pytest.mark.slow
def test_without_knn_the_final_teacher_is_pushed(data, hub, tmp_path):
    done = pretrain(hub, (data[0], ""), tmp_path, ADA)
    assert "(final)" in done.stdout
    assert "model.safetensors" in hub.hub.repositories["model", "ada/tiny"].at("main")[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("token", "reason"),
    [(BOB, "may not write to ada/tiny"), ("hf_wrong_secret", "does not accept the token"), (None, "There is no token")],
)
def test_what_fails_is_said_once_and_training_goes_on(data, run, hub, tmp_path, token, reason):
    done = pretrain(hub, data, tmp_path, token)
    assert read_losses(tmp_path / "run") == read_losses(run)
    printed = done.stdout + done.stderr
    assert printed.count("the teacher was not pushed") == 1 and reason in printed and "secret" not in printed
    assert printed.count("there is no token to push to ada/tiny with") == (token is None)
    assert "The run's model is not on the Hub. To push it: python training/publish.py" in printed
    assert (tmp_path / "run" / "teacher" / "model.safetensors").is_file() and not hub.hub.repositories
