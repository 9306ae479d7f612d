# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Decodes images, reads them ahead, and loads the models that take them."""
