# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a training from its first check to its last word, around the steps of `pretrain.py`."""
