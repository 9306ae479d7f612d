# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the command `python -m modeling_esvit.embed`, also installed as `esvit-embed`."""

import sys


try:
    from modeling_esvit.embed.command import main
except ImportError as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
