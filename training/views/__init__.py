# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""A crop of an image: drawn by a keyed generator, cut, coloured, mixed."""
