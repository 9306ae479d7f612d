# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Converts models from and to the formats of the original, of transformers' own Swin and of timm."""

from modeling_esvit.errors import EsViTError


class ConversionError(EsViTError, ValueError):
    """Raised when a checkpoint or model cannot be converted, or an output folder must not be overwritten."""


__all__ = ["ConversionError"]
