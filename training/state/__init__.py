# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps what lasts: the folder of a run, checkpoints, the record of the data, signals."""
