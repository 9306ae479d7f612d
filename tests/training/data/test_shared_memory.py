# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Too little shared memory is said with numbers, also by the command in a container with 64 MB of it."""

import os
import subprocess
import sys

import pytest

from tests.helpers.commands import make_environment
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import tiny, write_images
from training.data import shared_memory
from training.data.shared_memory import check_shared_memory, count_shared_memory
from training.options.errors import OptionError
from training.views.draw import ViewOptions


VIEWS = ViewOptions(global_crop_size=16, local_crop_sizes=(8,), local_crops_numbers=(2,))
BATCH = 4 * 4 * 3 * (2 * 16**2 + 2 * 8**2)  # 4 images of float32


def test_batches_of_all_workers_and_processes_are_counted(monkeypatch):
    memory = count_shared_memory(VIEWS, 4, 3, held=2, bytes_per_value=4)
    assert memory.batch == BATCH and memory.needed == BATCH * (2 * 3 + 2)
    assert count_shared_memory(VIEWS, 4, 0, held=2, bytes_per_value=4).needed == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    memory = count_shared_memory(VIEWS, 4, 3, held=2, bytes_per_value=1)
    assert memory.needed == 5 * BATCH // 4 * 8
    assert memory.count_workers(memory.needed) == 3 and memory.count_workers(memory.needed - 1) == 2
    assert memory.count_workers(0) == 0


def test_too_little_is_refused_with_the_option(monkeypatch):
    memory = count_shared_memory(VIEWS, 4, 3, held=1, bytes_per_value=4)
    for free in (None, memory.needed):
        monkeypatch.setattr(shared_memory, "find_free_memory", lambda free=free: free)
        check_shared_memory(memory)
    monkeypatch.setattr(shared_memory, "find_free_memory", lambda: 5 * BATCH)
    with pytest.raises(OptionError, match=r"has 0 MB free, .* x \(2 for each of 3 workers .*Use --workers 2, or"):
        check_shared_memory(memory)


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root mounts a file system of its own")
@pytest.mark.slow
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_container_of_64_mb_is_told_so(tmp_path, dry_run):
    images = write_images(tmp_path / "images")
    crops = "--global_crop_size 512 --batch_size 26 --workers 2" + " --dry_run" * dry_run
    arguments = tiny(images, tmp_path / "run", crops)
    mount = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "-m", "bash", "-c", mount, "-", "python", "training/pretrain.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=make_environment(), capture_output=True, text=True, timeout=240)
    if "permission" in done.stderr.lower():
        pytest.skip("no mounts here")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: /dev/shm, through which workers send their batches, has 67 MB free" in done.stderr
    assert "Use --workers 0, or give the container more: docker run --shm-size=1g, or --ipc=host" in done.stderr
