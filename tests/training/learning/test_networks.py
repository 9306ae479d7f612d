# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what Accelerate's configuration may decide and what is refused, and who has stochastic depth."""

import json

import pytest
import torch

from tests.helpers.commands import run_program, torchrun
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import HEADS, NETWORK, tiny, write_images
from training.learning.networks import (
    DYNAMO,
    SHARDING,
    DynamoError,
    ShardingError,
    build_accelerator,
    build_networks,
)
from training.options.pretrain_options import parse_options


@pytest.mark.parametrize("variable", SHARDING)
def test_sharding_is_refused(variable, monkeypatch):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ShardingError, match=f"{SHARDING[variable]} .*{variable} is set.* use --gradient_checkpointing"):
        build_accelerator(parse_options(["--tracker", "none", "--mixed_precision", "no"]))


def test_a_compiler_of_accelerate_is_refused(monkeypatch):
    monkeypatch.setenv(DYNAMO, "INDUCTOR")
    with pytest.raises(DynamoError, match=f"dynamo backend INDUCTOR .{DYNAMO} is set.*To compile, use --compile on"):
        build_accelerator(parse_options(["--tracker", "none", "--mixed_precision", "no"]))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["inductor", "no"])
def test_a_launch_with_a_compiler_ends_with_the_message(tmp_path, backend):
    launch = ["accelerate", "launch", "--dynamo_backend", backend, "--num_processes", "1", "--cpu"]
    arguments = tiny(write_images(tmp_path / "images"), tmp_path / "run", "--max_steps 1")
    done = run_program([*launch, "training/pretrain.py", *arguments], code=int(backend != "no"))
    assert ("error: Accelerate is configured to compile models" in done.stderr) == (backend != "no")


def test_what_is_switched_off_is_not(monkeypatch):
    monkeypatch.setenv(DYNAMO, "NO")
    for variable in SHARDING:
        monkeypatch.setenv(variable, "false")
    assert build_accelerator(parse_options(["--tracker", "none", "--mixed_precision", "no"])).num_processes == 1


def test_our_accumulation_wins_over_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "5")
    accelerator = build_accelerator(
        parse_options(["--tracker", "none", "--mixed_precision", "no", "--gradient_accumulation_steps", "2"])
    )
    assert accelerator.gradient_accumulation_steps == 2


@pytest.mark.slow
def test_a_launch_with_fsdp_ends_with_the_message(tmp_path):
    launch = ["accelerate", "launch", "--use_fsdp", "--fsdp_version", "2"]
    arguments = tiny(write_images(tmp_path / "images"), tmp_path / "run")
    done = run_program([*launch, "--num_processes", "2", "training/pretrain.py", *arguments], code=1)
    assert "error: Accelerate is configured for FSDP" in done.stderr


# -- stochastic depth --------------------------------------------------------------------------------------------------

NETWORKS = {
    "swin": NETWORK,
    "cvt": "--architecture cvt-tiny --embed_dim 8 --stage_dims 8 16 24 32 --depths 1 1 2 1 --num_heads 1 2 2 4",
    "vil": "--architecture vil-tiny --image_size 64 --embed_dim 8 --depths 1 1 2 1 --num_heads 1 1 2 2",
    "vit": "--architecture deit-tiny --image_size 64 --embed_dim 16 --depths 3 --num_heads 2",
}


@pytest.mark.parametrize("family", NETWORKS)
def test_only_the_student_has_stochastic_depth(family):
    arguments = f"{NETWORKS[family]} {HEADS} --drop_path_rate 0.5 --global_crop_size 64 --local_crop_sizes 32"
    student, teacher = build_networks(parse_options(arguments.split()), torch.device("cpu"))
    crops = [torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))]
    outputs = [[network(crops).view_embeddings for _ in range(2)] for network in (student, teacher)]
    assert student.training and teacher.training
    assert not torch.allclose(*outputs[0]) and torch.equal(*outputs[1])


DRAWS = """
import json, os, sys
from pathlib import Path
import torch
from modeling_esvit.tokens import EsViTDropPath
from training.options.pretrain_options import parse_options
from training.pretrain import Pretraining

seen, draw = {}, EsViTDropPath.draw

def watched(self, *arguments):
    factors = draw(self, *arguments)
    seen.setdefault("factors", factors.tolist())
    return factors

EsViTDropPath.draw = watched
run = Pretraining(parse_options(sys.argv[2:]))
student = run.student
seen["weights"] = [float(weight.double().sum()) for weight in student.parameters()]
run.run()
threads = Path("/proc/self/task").glob("*/comm")  # only Linux names them
seen["threads"] = sorted(name for thread in threads if "gloo" in (name := thread.read_text().strip()))
with open(sys.argv[1] + os.environ["RANK"], "w") as file:
    json.dump(seen, file)
"""


@pytest.mark.slow
def test_processes_begin_with_equal_weights_and_draw_their_own_stochastic_depth(images, tmp_path):
    (tmp_path / "draws.py").write_text(DRAWS)
    arguments = tiny(images, tmp_path / "run", "--batch_size 4 --max_steps 1 --drop_path_rate 0.5")
    run_program([*torchrun(2), tmp_path / "draws.py", tmp_path / "rank", *arguments], PYTHONPATH=str(ROOT))
    first, second = (json.loads((tmp_path / f"rank{rank}").read_text()) for rank in range(2))
    assert (
        first["threads"] == second["threads"] == []
    )  # one that lives until the interpreter ends may abort the process
    assert first["weights"] == second["weights"]
    assert len(first["factors"]) == len(second["factors"]) > 8 and len(set(first["factors"])) == 2
    assert first["factors"] != second["factors"]
