# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the golden ViL."""

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from tests.helpers.golden import draw_weights, metadata, to_pretraining_keys


def golden_model(implementation: str, **overrides) -> EsViTForPreTraining:
    """Builds the golden ViL with its weights, in evaluation mode."""
    header = metadata("golden_vil")
    config = EsViTConfig.from_architecture(
        header["architecture"],
        drop_path_rate=0.0,
        num_prototypes=128,
        head_hidden_size=64,
        head_bottleneck_size=32,
        norm_last_layer=False,
        vil_mode=1,
        **overrides,
    )
    model = EsViTForPreTraining(config).eval()
    model.set_attn_implementation(implementation)
    weights = to_pretraining_keys(draw_weights(header["parameters"], header["seed"]))
    weights = {key: value for key, value in weights.items() if config.region_head or "region_head." not in key}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= {"view_center", "region_center"} and not unexpected
    return model
