# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The formats of the original, of transformers' own Swin and of timm, and what tells them apart."""
