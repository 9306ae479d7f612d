# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows a run: log, curves, trackers, warnings, and what to do next."""
