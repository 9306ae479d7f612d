# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds small CvTs for tests: the golden one, and one for runs of seconds."""

import torch

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from tests.helpers.golden import draw_weights, metadata, to_pretraining_keys


TINY = {"embed_dim": 8, "stage_dims": [8, 16, 24, 32], "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4]}
HEADS = {"num_prototypes": 16, "head_hidden_size": 12, "head_bottleneck_size": 8}
TINY |= {**HEADS, "drop_path_rate": 0.0}


def tiny_config(**fields) -> EsViTConfig:
    return EsViTConfig.from_architecture("cvt-tiny", **{**TINY, **fields})


def golden_network() -> dict[str, torch.Tensor]:
    """Draws the golden weights and running statistics, by their original names."""
    header = metadata("golden_cvt")
    network = draw_weights(header["parameters"], header["seed"], header["statistics"])
    return network | {name: torch.tensor(count) for name, count in header["counts"].items()}


def golden_model(attention: str) -> EsViTForPreTraining:
    config = metadata("golden_cvt")["config"]
    model = EsViTForPreTraining(
        EsViTConfig.from_architecture(
            "cvt-tiny",
            embed_dim=config["dim_embed"][0],
            stage_dims=config["dim_embed"],
            depths=config["depth"],
            num_heads=config["num_heads"],
            drop_path_rate=0.0,
            num_prototypes=128,
            head_hidden_size=64,
            head_bottleneck_size=32,
        )
    )
    model.set_attn_implementation(attention)
    missing, unexpected = model.load_state_dict(to_pretraining_keys(golden_network()), strict=False)
    assert not unexpected and set(missing) == {"view_center", "region_center"}
    return model.eval()
