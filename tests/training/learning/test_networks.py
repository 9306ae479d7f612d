# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What `accelerate launch` and its configuration may decide, and what is refused."""

import pytest

from tests.helpers.commands import run_program
from tests.helpers.tiny_runs import tiny, write_images
from training.learning.networks import SHARDING, ShardingError, build_accelerator
from training.options.pretrain_options import parse_options


@pytest.mark.parametrize("variable", SHARDING)
def test_sharding_is_refused(variable, monkeypatch):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ShardingError, match=f"{SHARDING[variable]} .*{variable} is set.* use --gradient_checkpointing"):
        build_accelerator(parse_options(["--tracker", "none"]))


def test_what_is_switched_off_is_not(monkeypatch):
    for variable in SHARDING:
        monkeypatch.setenv(variable, "false")
    assert build_accelerator(parse_options(["--tracker", "none"])).num_processes == 1


def test_our_accumulation_wins_over_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "5")
    accelerator = build_accelerator(parse_options(["--tracker", "none", "--gradient_accumulation_steps", "2"]))
    assert accelerator.gradient_accumulation_steps == 2


@pytest.mark.slow
def test_a_launch_with_fsdp_ends_with_the_message(tmp_path):
    launch = ["accelerate", "launch", "--use_fsdp", "--fsdp_version", "2"]
    arguments = tiny(write_images(tmp_path / "images"), tmp_path / "run")
    done = run_program([*launch, "--num_processes", "2", "training/pretrain.py", *arguments], code=1)
    assert "error: Accelerate is configured for FSDP" in done.stderr
