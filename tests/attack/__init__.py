# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Attacks every place where this project reads what a stranger may have written; see `run.py`."""
