# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the tests of a module are in a file of its name, at its place."""

import ast
from pathlib import Path

from tests.helpers.paths import ROOT
from tests.rooms import list_files


# Modules whose one class only makes sense in a whole program, and the file that runs it there.
ELSEWHERE = {
    "training/evaluation/transfer_run.py": "tests/programs/test_transfer.py",
}


def find_place(module: Path) -> Path:
    """Returns where the tests of a module belong: those of a program in `tests/programs`, of a metric beside others."""
    if module.parent == Path("training"):
        return Path("tests/programs", f"test_{module.name}")
    folder = module.parent.parent if module.parent.parent.name == "metrics" else module.parent
    return Path("tests", folder, f"test_{module.name}")


def has_functions(module: Path) -> bool:
    """Returns whether there is something to test: not in a module of plain classes or options."""
    nodes = ast.walk(ast.parse((ROOT / module).read_text()))
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes)


def test_a_module_has_a_test_file_of_its_name():
    modules = [*list_files("modeling_esvit"), *list_files("training")]
    modules = [each for each in modules if each.stem not in ("__init__", "__main__") and has_functions(each)]
    missing = {each.as_posix() for each in modules if not (ROOT / find_place(each)).is_file()}
    assert missing == set(ELSEWHERE)
    assert all((ROOT / file).is_file() for file in ELSEWHERE.values())
