# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the command `python -m modeling_esvit.convert_original`, also installed as `esvit-convert`."""

from modeling_esvit.convert_original import main


if __name__ == "__main__":
    main()
