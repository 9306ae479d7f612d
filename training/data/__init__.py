# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""From a path, URL or name to batches of views, in an order known beforehand."""
