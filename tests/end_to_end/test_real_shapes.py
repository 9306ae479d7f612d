# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Adapts public backbones in their real shapes, with random weights: three steps, stopped, resumed, published."""

from pathlib import Path

import pytest
import torch
from transformers import AutoBackbone, AutoModel

from tests.helpers.commands import run_program
from tests.helpers.tiny_models import auto_config
from tests.helpers.tiny_runs import HEADS, MEANS, assert_equal_weights, read_losses, train, write_images


SMALL_VIT = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
SHAPES = {
    "dinov2-small": {"model_type": "dinov2", **SMALL_VIT, "image_size": 518, "patch_size": 14},
    "dinov3-vits16": {
        **{"model_type": "dinov3_vit", **SMALL_VIT, "intermediate_size": 1536},
        **{"image_size": 224, "patch_size": 16, "num_register_tokens": 4},
    },
    "dinov3-convnext-tiny": {
        "model_type": "dinov3_convnext",
        **{"hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3]},
    },
    "swinv2-tiny-w8-256": {
        "model_type": "swinv2",
        **{"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 8, "image_size": 256},
    },
    "hiera-tiny-224": {
        "model_type": "hiera",
        **{"embed_dim": 96, "depths": [1, 2, 7, 2], "num_heads": [1, 2, 4, 8], "image_size": [224, 224]},
    },
}
MILLIONS = {
    **{"dinov2-small": 22.1, "dinov3-vits16": 21.6, "dinov3-convnext-tiny": 27.8},
    **{"swinv2-tiny-w8-256": 27.6, "hiera-tiny-224": 27.1},
}
LOCAL_SIZES = {"dinov2-small": 98, "hiera-tiny-224": 224}  # patches of 14; one size alone


def save_backbone(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    backbone = AutoBackbone.from_config(auto_config(SHAPES[name]).backbone_config)
    assert sum(p.numel() for p in backbone.parameters()) / 1e6 == pytest.approx(MILLIONS[name], abs=0.5)
    backbone.save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_adapted_resumed_published_and_loaded(name, tmp_path):
    """The backbone is frozen for two steps and moves in the third."""
    save_backbone(name, tmp_path / "backbone")
    images = write_images(tmp_path / "images", number=4, side=256)
    crops = f"--global_crop_size 224 --local_crop_sizes {LOCAL_SIZES.get(name, 96)} --local_crops_numbers 1"
    steps = "--batch_size 2 --gradient_accumulation_steps 1 --warmup_epochs 0 --momentum_teacher 0.9"
    given = ["--recipe", "adapt", "--data", str(images), "--backbone", str(tmp_path / "backbone")]
    given += f"{HEADS} {crops} {steps} {MEANS}".split()
    whole = train([*given, "--output", str(tmp_path / "whole"), "--max_steps", "3"])
    for stop in ("2", "3"):
        train([*given, "--output", str(tmp_path / "stopped"), "--max_steps", stop])
    assert (
        read_losses(tmp_path / "stopped") == read_losses(tmp_path / "whole")
        and len(read_losses(tmp_path / "whole")) == 3
    )
    assert_equal_weights(tmp_path / "stopped" / "teacher", tmp_path / "whole" / "teacher")
    published = ["--repo_id", "ada/adapted", "--output", tmp_path / "published", "--dry_run"]
    run_program(["python", "training/publish.py", tmp_path / "whole", *published])
    loaded, pixels = AutoModel.from_pretrained(tmp_path / "published").eval(), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).pooler_output, whole.teacher.esvit.eval()(pixels).pooler_output)
