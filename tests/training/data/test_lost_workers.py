# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Errors of torch that are not about workers pass as they are; see `test_loader.py` for workers that are lost."""

from multiprocessing import get_context
from multiprocessing.connection import wait

import psutil
import pytest

from training.data.lost_workers import LostWorkerError, WorkerWatch, describe_workers, report_lost_worker


def test_other_errors_pass():
    for error in (RuntimeError("CUDA error"), ValueError("DataLoader worker (pid 1)")):
        with pytest.raises(type(error)) as raised, report_lost_worker():
            raise error
        assert raised.value is error and not isinstance(raised.value, LostWorkerError)


def test_too_many_open_files_are_no_traceback():
    """pytorch issues 973 and 41465, MONAI issue 701."""
    with pytest.raises(LostWorkerError, match="`ulimit -n 4096` before the same command.*lower --workers"):
        with report_lost_worker():
            raise RuntimeError("Too many open files. Communication with the workers is no longer possible. Please")


def test_other_errors_of_a_loader_are_not_waited_for():
    def fail():
        yield 1
        raise RuntimeError("the image is upside down")

    batches = fail()
    with WorkerWatch([], patience=0) as watch:
        assert watch.wait_for_batch(batches) == 1
        with pytest.raises(RuntimeError, match="upside down"):
            watch.wait_for_batch(batches)


def test_a_worker_that_is_about_to_end_has_ended(monkeypatch):
    """The system says for a moment after the sentinel that it is running."""
    monkeypatch.setattr(psutil.Process, "status", lambda process: "running")
    workers = get_context("fork")
    gate = workers.Event()
    worker = workers.Process(target=gate.wait)
    worker.start()
    assert f"worker {worker.pid} is running" in describe_workers([worker])
    gate.set()
    wait([worker.sentinel])
    assert f"worker {worker.pid} has ended" in describe_workers([worker])
    worker.join()


def test_the_free_memory_is_part_of_the_report(monkeypatch, tmp_path):
    monkeypatch.setattr("training.data.shared_memory.PLACE", tmp_path)
    assert describe_workers([]).endswith(" MB free")
