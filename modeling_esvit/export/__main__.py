# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the command `python -m modeling_esvit.export`, also installed as `esvit-export`."""

from modeling_esvit.export import main


if __name__ == "__main__":
    main()
