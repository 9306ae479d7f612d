# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds student, teacher and optimizer, starts them from other weights, and schedules their steps."""
