# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes and measures models. A file here is a program; a folder is a library, which imports only those before it."""

import sys
from importlib.util import find_spec
from pathlib import Path


# What every program needs; of the rest, each imports its own where it needs it.
REQUIRED = ("accelerate", "cv2", "psutil", "yaml")

if missing := [name for name in REQUIRED if find_spec(name) is None]:
    message = f"this needs the package {missing[0]}: pip install -e '.[training]'"
    if Path(sys.argv[0]).resolve().parent.name in ("training", "examples"):  # a program ends in one line
        sys.exit(f"error: {message}")
    raise ModuleNotFoundError(message, name=missing[0])
