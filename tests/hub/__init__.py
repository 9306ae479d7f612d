# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a small Hub on the loopback interface, for the unmodified clients."""
