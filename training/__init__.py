# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes and measures models. A file here is a program; a folder is a library, which imports only those before it."""
