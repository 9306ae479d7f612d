# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that unreadable images are counted once, named, and limited."""

import os

import pytest
import torch
from accelerate import PartialState

from training.data.unreadable import SkipLog, TooManyUnreadableImagesError


def test_skip_log_counts_each_image_once_and_names_it():
    log = SkipLog(num_images=2000, max_unreadable=0.01)
    assert log.summary() == ""
    log.add({f"{i}.jpg": f"{i}.jpg: truncated" for i in range(20)})
    log.add({"3.jpg": "3.jpg: truncated"})
    assert "Skipped 20 unreadable images:" in log.summary() and "3.jpg: truncated" in log.summary()
    assert log.summary(max_names=5).endswith("... and 15 more")
    with pytest.raises(TooManyUnreadableImagesError, match="more than 20 of 2000 images cannot be read"):
        log.add({"x.jpg": "x.jpg: empty"})


def test_a_reason_of_few_images_is_named_beside_those_of_many():
    log = SkipLog(num_images=40, max_unreadable=1)
    log.add({f"{i}.jpg": f"{i}.jpg: cut off after {i} bytes" for i in range(30)} | {"z.jpg": "z.jpg: is HEIC"})
    shown = log.summary()
    assert "z.jpg: is HEIC" in shown and "10.jpg: cut off after 10 bytes" in shown and shown.endswith("... and 11 more")


def test_skip_log_limits():
    SkipLog(num_images=12).add({str(i): "" for i in range(10)})  # few bad files never stop a run
    with pytest.raises(TooManyUnreadableImagesError):
        SkipLog(num_images=12).add({str(i): "" for i in range(11)})
    with pytest.raises(TooManyUnreadableImagesError):
        SkipLog(num_images=12, max_unreadable=0).add({"x.jpg": ""})


def share_on_rank(rank: int, store: str) -> None:
    """Plays one of two processes: both know of one image, and each of one more."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {
        **numbers,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }  # for accelerate; the group exists already
    PartialState(cpu=True)
    log = SkipLog(num_images=300, max_unreadable=0.04)
    log.add({"both.jpg": "both.jpg: empty", f"{rank}.jpg": f"{rank}.jpg: truncated"})
    log.share()
    assert sorted(log.skipped) == ["0.jpg", "1.jpg", "both.jpg"] and not log.unshared
    log.add({f"{rank}-{i}.jpg": "" for i in range(6)})
    with pytest.raises(TooManyUnreadableImagesError, match="more than 12 of 300"):
        log.share()  # 9 are known here, 15 together
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_count_each_image_once(tmp_path):
    torch.multiprocessing.spawn(share_on_rank, args=(str(tmp_path / "store"),), nprocs=2)
