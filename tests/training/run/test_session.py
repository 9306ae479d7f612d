# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that an evaluation that a stop cut off is made up for."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.tiny_runs import tiny, train, write_images
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
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("images_per_second", "data_wait", "memory_gb")} for r in records]


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
