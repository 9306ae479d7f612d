# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What lasts: whole files, checkpoints, the identity of the data, signals."""
