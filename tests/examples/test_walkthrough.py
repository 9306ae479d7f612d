# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests the notebook as it is committed, and runs it from its first cell to its last."""

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
