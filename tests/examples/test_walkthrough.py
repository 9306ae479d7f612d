# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests the notebook as it is committed, and runs it from its first cell to its last."""

import os
import sys
from types import ModuleType

import nbformat
import pytest
import torch

from modeling_esvit import EsViTConfig, EsViTModel
from tests.helpers.paths import ROOT


NOTEBOOK = ROOT / "examples" / "walkthrough.ipynb"


def test_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)


GIT = """#!/bin/bash
[ ! -e esvit ] && mkdir -p esvit/examples && cp "$NOTEBOOK" esvit/examples
"""


def test_the_set_up_on_colab_holds_for_each_start_of_the_kernel(tmp_path, monkeypatch):
    """The first cell ends beside the notebook in the fetched project, which it fetches once."""
    for name, content in (("git", GIT), ("pip", "#!/bin/sh\n"), ("python", "#!/bin/sh\n")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("NOTEBOOK", str(NOTEBOOK))
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    setup = next(cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code")
    home = tmp_path / "content"
    home.mkdir()
    for _ in ("new", "started again"):
        monkeypatch.chdir(home)
        for _ in ("first", "run again"):
            exec(setup, {})
            assert os.getcwd() == str(home / "esvit" / "examples")
    assert str(home / "esvit") in sys.path


@pytest.mark.slow
def test_runs(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    torch.manual_seed(0)
    fields = {"image_size": 64, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2]}
    EsViTModel(EsViTConfig(**fields, window_size=4, patch_size=8)).save_pretrained(tmp_path)
    monkeypatch.setenv("MODEL", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in data for data in shown) == 6
    texts = " ".join(data.get("text/plain", "") for data in shown)
    assert "0.0 million weights, 64 px" in texts and "torch.Size([32, 32])" in texts
