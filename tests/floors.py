# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Prints setup.cfg's requirements, each pinned to the oldest version that it allows: constraints for pip.

    python tests/floors.py > constraints.txt

`make test-floors` runs the fast tests in an environment made with them.
"""

import re
from configparser import ConfigParser
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
# `name>=1.2`, `name>=1.2,<3` or `name==1.2`.
HAS_FLOOR = re.compile(r"([\w-]+)[>=]=([\w.]+)(,|$)")


def read_requirements() -> list[str]:
    """Returns the requirements of the package and of all its extras, as setup.cfg writes them."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    blocks = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    return sorted({line for block in blocks for line in block.split()}, key=str.lower)


def pin_floor(requirement: str) -> str:
    """Turns a requirement into `name==1.2`, where 1.2 is the oldest version that it allows.

    Raises:
        ValueError: the requirement has no floor.
    """
    match = HAS_FLOOR.match(requirement)
    if match is None:
        raise ValueError(f"setup.cfg: {requirement!r} has no oldest version. Write it as `name>=version`.")
    return f"{match[1]}=={match[2]}"


if __name__ == "__main__":
    print("\n".join(pin_floor(requirement) for requirement in read_requirements()))
