# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines what a run is told: one dataclass, its command line and its recipes."""
