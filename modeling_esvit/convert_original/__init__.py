# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Converts original checkpoints: `python -m modeling_esvit.convert_original`, and [`convert`] in Python."""

from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.original_architecture import infer_config
from modeling_esvit.conversion.original_checkpoint import load_original_state_dict
from modeling_esvit.convert_original.converter import ConversionReport, convert, main


__all__ = ["ConversionError", "ConversionReport", "convert", "infer_config", "load_original_state_dict", "main"]
