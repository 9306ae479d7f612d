# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the address of the project has one place, and that cards lead there once it is set."""

import shutil
import subprocess
from pathlib import Path

from tests.helpers.paths import ROOT
from training.publishing.project import NAME, describe_project, read_address


FILES = ("setup.cfg", "README.md", "CITATION.cff", "examples/walkthrough.ipynb")


def test_all_files_follow_the_address(tmp_path):
    (tmp_path / "examples").mkdir()
    for name in (*FILES, "Makefile"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert describe_project(tmp_path) == (f"[{NAME}]({read_address()})" if read_address() else NAME)
    address = "https://git.example.org/lab/esvit"
    subprocess.run(["make", "address", f"ADDRESS={address}"], cwd=tmp_path, check=True, capture_output=True)
    assert read_address(tmp_path) == address and describe_project(tmp_path) == f"[{NAME}]({address})"
    assert all(address in (tmp_path / name).read_text() for name in FILES)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {*FILES, "Makefile"}


def test_the_address_is_nowhere_else():
    """No other page spells it out. Cards are written anew, by `training/published_cards.py`."""
    lines = (ROOT / "setup.cfg").read_text().splitlines()
    address = next(line.removeprefix("url = ") for line in lines if line.startswith("url = "))
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("*.cff"),
        ROOT / "training" / "README.md",
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "examples").rglob("*.ipynb"),
    ]
    assert {path.name for path in pages if address in path.read_text()} == {Path(name).name for name in FILES[1:]}
    assert f"git clone {address} && cd esvit\n" in (ROOT / "README.md").read_text()
