# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs `pretrain.py` from inside `training/` on ImageNet, streamed from a loopback Hub.

The Hub serves it in miniature under its real names and shapes: by default, and as the data set of tar files. Only the
endpoint and a small model are given.
"""

import subprocess
from pathlib import Path

import pytest

from tests.helpers.commands import run_program, torchrun
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import read_losses
from tests.hub.client import GRANTED, TOKENS, small_hub
from tests.hub.loopback_hub import LoopbackHub
from tests.hub.repositories import imagenet_1k, imagenet_1k_wds, shard_lengths


ACCELERATE = ["accelerate", "launch", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no"]
SMALL = {
    **{"embed_dim": "8", "image_size": "32", "window_size": "4", "num_prototypes": "32"},
    **{"head_hidden_size": "16", "head_bottleneck_size": "8", "global_crop_size": "32", "local_crop_sizes": "16"},
    **{"local_crops_numbers": "2", "batch_size": "2", "workers": "1", "max_steps": "3", "log_every": "1"},
}
MODEL = [
    "--depths",
    "1",
    "1",
    "--num_heads",
    "1",
    "2",
    *(word for name in SMALL for word in (f"--{name}", SMALL[name])),
]


def launcher(processes: int) -> list[str]:
    return ACCELERATE if processes == 1 else torchrun(processes)


def pretrain(
    hub: LoopbackHub, folder: Path, launcher: list[str], token: str | None, options: str = "", code: int = 0
) -> subprocess.CompletedProcess:
    command = [*launcher, "pretrain.py", *MODEL, "--output", folder / "run", *options.split()]
    base = hub.environment(folder, token, ACCELERATE_USE_CPU="true")
    return run_program(command, ROOT / "training", code, base=base)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
def test_imagenet_by_its_real_shape(processes, tmp_path):
    """294 and 14 parquet files. Of their images only those of the ranks' first blocks are read, and none is stored."""
    with LoopbackHub([imagenet_1k()], TOKENS) as hub:
        done = pretrain(hub, tmp_path, launcher(processes), GRANTED)
        assert GRANTED not in done.stdout + done.stderr
        assert all(request.authenticated for request in hub.requests("*imagenet-1k/resolve*"))
    assert len(read_losses(tmp_path / "run")) == 3 and all(read_losses(tmp_path / "run"))
    assert not list((tmp_path / "hf_home").rglob("*.parquet")) and not list(tmp_path.rglob("*.arrow"))
    assert all(GRANTED not in path.read_text(errors="ignore") for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
def test_imagenet_as_tar_files(processes, tmp_path):
    """1024 tar files. They are walked through once, their images read by ranges, and none is stored."""
    options = "--recipe swin_tiny_w7 --data timm/imagenet-1k-wds --streaming --mixed_precision no"
    with LoopbackHub([imagenet_1k_wds()]) as hub:
        done = pretrain(hub, tmp_path, launcher(processes), None, options)
    assert f"{sum(shard_lengths(1024))} images in 1024 shards" in done.stdout
    assert len(read_losses(tmp_path / "run")) == 3 and all(read_losses(tmp_path / "run"))
    assert len(list((tmp_path / "run" / "tar_index").glob("[!.]*.json"))) == 1024
    assert not list(tmp_path.rglob("*.tar")) and not list(tmp_path.rglob("*.arrow"))


@pytest.mark.slow
def test_without_a_token_it_says_what_is_missing(tmp_path):
    with small_hub() as hub:
        done = pretrain(hub, tmp_path, ["python"], token=None, code=1)
    assert "Traceback" not in done.stderr
    message = done.stderr.splitlines()[-1]
    assert message.startswith("error:") and "ILSVRC/imagenet-1k" in message and "authenticated" in message
    assert not (tmp_path / "run").exists()
