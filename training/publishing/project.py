# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says where this project is found, for the cards that lead back to it.

The address stands in `setup.cfg`. README.md, CITATION.cff and the notebook repeat it, and
`make address ADDRESS=https://...` changes it in all of them. Until somebody has set it, it has the placeholder OWNER,
and cards give the project's name alone.
"""

from configparser import ConfigParser
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
NAME = "EsViT for the Hugging Face ecosystem"
PLACEHOLDER = "OWNER"


def read_address(root: Path = ROOT) -> str | None:
    """Returns the address of the project; None if it was not set."""
    setup = ConfigParser()
    setup.read(root / "setup.cfg")
    address = setup["metadata"]["url"]
    return None if PLACEHOLDER in address else address


def describe_project(root: Path = ROOT) -> str:
    """Returns the name of the project in Markdown, linked if its address is known."""
    address = read_address(root)
    return NAME if address is None else f"[{NAME}]({address})"
