# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a run on a folder of images needs none of the libraries that only other data and evaluations need."""

import ast
import sys

import pytest

from tests.helpers.commands import run_program
from tests.helpers.tiny_runs import read_losses, tiny
from tests.rooms import ROOT, find_module, list_names


UNNEEDED = ["datasets", "evaluate", "requests", "urllib3", "matplotlib", "pyarrow"]
# What comes with torch, transformers and accelerate, and what reads images.
NEEDED = {
    *("torch", "transformers", "accelerate", "numpy", "safetensors", "huggingface_hub", "tqdm", "psutil", "filelock"),
    *("fsspec", "yaml", "PIL", "cv2"),
}
GPU_CHECK = [f"tests.gpu.{name}" for name in ("run_stage", "numerics", "kernels", "programs", "speed", "suite")]
WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({UNNEEDED}))  # importing one is an ImportError
from training.pretrain import main
main()
"""


def list_first_imports(module: str) -> set[str]:
    """Returns what is imported together with a module: not by its functions, and not for types alone."""
    path = ROOT.joinpath(*module.split("."))
    path = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names, nodes = set(), [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not for_types and not isinstance(node, ast.FunctionDef):
            names |= set(list_names(node, package))
            nodes += ast.iter_child_nodes(node)
    return names


@pytest.mark.parametrize("programs", [["training.pretrain"], GPU_CHECK], ids=["pretrain", "check_gpu"])
def test_no_module_that_a_run_begins_with_imports_others(programs):
    """What the next test sees in a run, here read in the code, which takes no time."""
    ours, seen, found = {"modeling_esvit", "training", "tests"}, set(), set()
    waiting = list(programs)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            names = list_first_imports(module)
            found |= {name.partition(".")[0] for name in names}
            waiting += filter(None, [module.rpartition(".")[0], *map(find_module, names)])
    assert len(seen) > 50 and not found - ours - NEEDED - sys.stdlib_module_names


@pytest.mark.slow
def test_a_run_without_them(images, tmp_path):
    arguments = tiny(images, tmp_path / "run", "--max_steps 1")
    shown = run_program(["python", "-c", WITHOUT, *arguments]).stdout
    assert len(read_losses(tmp_path / "run")) == 1
    assert "Warning: curves.png is not written: " in shown and "matplotlib" in shown


@pytest.mark.slow
@pytest.mark.parametrize("place, end", [("", "ModuleNotFoundError: "), ("training/knn.py", "error: ")])
def test_what_a_program_needs_is_told_in_its_last_line(place, end):
    """Importing it, as in a notebook, raises; a program says nothing else."""
    lines = ["import sys", "sys.modules['accelerate'] = None", f"sys.argv[0] = {place!r}", "import training.knn"]
    shown = run_program(["python", "-c", "\n".join(lines)], code=1).stderr.splitlines()
    assert shown[-1] == f"{end}this needs the package accelerate: pip install -e '.[training]'"
    assert len(shown) == 1 or not place
