# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes the networks of recipes shallow, so that a recipe starts within a second."""

HEADS = "--num_prototypes 64 --head_hidden_size 16"
SHALLOW = f"{HEADS} --depths 1 1 1 1 --embed_dim 8 --num_heads 1 1 2 2"  # of the four stages of a Swin
SHALLOWED = {
    "demo": "",
    "adapt": HEADS,
    "resnet50": HEADS,
    "deit": f"{HEADS} --depths 1 --embed_dim 8 --num_heads 1",
    "cvt": f"{SHALLOW} --stage_dims 8 16 24 32",
}


def shallow(name: str) -> list[str]:
    """Returns the options that make the network of the recipe `name` shallow."""
    return next((small for start, small in SHALLOWED.items() if name.startswith(start)), SHALLOW).split()
