# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the crops of an image with a keyed generator, cuts them out, changes their colours and mixes them."""
