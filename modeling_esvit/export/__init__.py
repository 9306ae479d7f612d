# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Exports models for other programs: `python -m modeling_esvit.export`, and [`export`] in Python."""

from modeling_esvit.conversion import ConversionError
from modeling_esvit.export.exporter import export, main
from modeling_esvit.export.report import ExportReport


__all__ = ["ConversionError", "ExportReport", "export", "main"]
