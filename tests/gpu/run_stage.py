# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs one stage of `check_gpu.py`: `python -m tests.gpu.run_stage MODULE:FUNCTION FOLDER DEVICE [--tiny]`."""

import argparse
import importlib
import sys
from pathlib import Path

import torch

from tests.gpu.findings import Findings, Setting


def open_device(name: str) -> torch.device:
    """Returns the device, whose products are those of float32 from here on: no TF32 unless a stage asks for it."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("error: torch finds no CUDA GPU here. Try the script with --device cpu --tiny.")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    return device


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("function")
    parser.add_argument("folder", type=Path)
    parser.add_argument("device")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args(words)
    module, function = arguments.function.split(":")
    setting = Setting(open_device(arguments.device), arguments.tiny, arguments.folder)
    findings = Findings(arguments.folder / "result.json")
    getattr(importlib.import_module(f"tests.gpu.{module}"), function)(setting, findings)
    sys.exit(0 if findings.hold else 1)


if __name__ == "__main__":
    main()
