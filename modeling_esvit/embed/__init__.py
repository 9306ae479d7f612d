# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the features of many images into one file: `python -m modeling_esvit.embed`, or [`embed`] in Python."""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from modeling_esvit.embed.embedder import (
        Embedder,
        FeatureError,
        Features,
        OutputError,
        embed,
        embed_to_file,
        load_features,
    )

__all__ = ["Embedder", "FeatureError", "Features", "OutputError", "embed", "embed_to_file", "load_features"]


def __getattr__(name: str) -> Any:
    """Imports the embedder when it is first asked for, so that the command can say in a line what is not installed."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from modeling_esvit.embed import embedder

    return getattr(embedder, name)
