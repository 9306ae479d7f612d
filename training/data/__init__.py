# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns a path, URL or name into batches of views, in an order known beforehand."""
