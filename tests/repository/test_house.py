# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the rules of the house: who may import whom, and which names a room must not have."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.rooms import MODELING_ROOMS, TRAINING_ROOMS, find_module, list_files, read_imports, room_of


SOURCES = [file for package in ("modeling_esvit", "training", "examples", "tests") for file in list_files(package)]


def rooms_before(room: str) -> set[str]:
    return {f"training/{name}" for name in TRAINING_ROOMS[: TRAINING_ROOMS.index(room) + 1]}


def find_forbidden(files: list[Path], allowed: set[str], root: Path = ROOT) -> list[str]:
    """Returns the imports in `files` of rooms that are not `allowed`, each with its file and line."""
    return [str(found) for file in files for found in read_imports(file, root) if room_of(found.module) not in allowed]


def modeling_rooms() -> set[str]:
    return {f"modeling_esvit/{room}" for room in ("(flat)", *MODELING_ROOMS)}


@pytest.mark.parametrize("room", TRAINING_ROOMS)
def test_a_room_imports_only_rooms_before_it(room):
    assert find_forbidden(list_files(f"training/{room}"), rooms_before(room) | modeling_rooms()) == []


def test_every_folder_of_training_has_its_place_in_the_order():
    folders = {path.parent.name for path in (ROOT / "training").glob("*/__init__.py")}
    assert folders == set(TRAINING_ROOMS)


def test_no_program_is_imported():
    files = [file for package in ("training", "examples", "modeling_esvit") for file in list_files(package)]
    imports = [
        found for file in files for found in read_imports(file) if file.parent != Path("training/evaluation/metrics")
    ]
    assert [
        str(found) for found in imports if room_of(found.module) == "training/(programs)" and found.module != "training"
    ] == []


def test_a_file_at_the_root_of_training_is_a_program():
    programs = [path for path in (ROOT / "training").glob("*.py") if path.name != "__init__.py"]
    assert (
        programs and [path.name for path in programs if '\nif __name__ == "__main__":\n' not in path.read_text()] == []
    )


@pytest.mark.parametrize("room, others", MODELING_ROOMS.items())
def test_a_folder_of_the_package_imports_only_what_is_below_it(room, others):
    allowed = {"modeling_esvit/(flat)", *(f"modeling_esvit/{name}" for name in (room, *others))}
    assert find_forbidden(list_files(f"modeling_esvit/{room}"), allowed) == []


def test_what_travels_with_a_model_imports_no_folder_and_is_flat():
    flat = [file for file in list_files("modeling_esvit") if len(file.parts) == 2]
    assert flat and find_forbidden(flat, {"modeling_esvit/(flat)"}) == []
    folders = {path.parent.name for path in (ROOT / "modeling_esvit").glob("*/__init__.py")}
    assert folders == set(MODELING_ROOMS)


def test_a_forbidden_import_is_named_with_its_line(tmp_path):
    """Lines in functions and of every form count."""
    for name in ("training", "training/data", "training/run", "modeling_esvit"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "training" / "run" / "session.py").touch()
    text = "import torch\n\n\ndef use():\n    from training.run import session\n    from ..run.session import x\n"
    (tmp_path / "training" / "data" / "loader.py").write_text(text)
    file = Path("training/data/loader.py")
    assert [str(found) for found in read_imports(file, tmp_path)] == [
        "training/data/loader.py:5 imports training.run.session",
        "training/data/loader.py:6 imports training.run.session",
    ]


@pytest.mark.parametrize("name", TRAINING_ROOMS)
def test_a_room_has_the_name_of_no_library(name):
    """`python training/x.py` puts `training/` first on the path, where a room would hide a library of its name."""
    assert name not in sys.stdlib_module_names
    ours = {"esvit"}
    assert set(packages_distributions().get(name, [])) <= ours


def test_no_room_and_no_program_is_imported_by_its_bare_name():
    bare = {*TRAINING_ROOMS, *(path.stem for path in (ROOT / "training").glob("*.py"))} - {"__init__"}
    pattern = re.compile(rf"^\s*(?:from|import) ({'|'.join(sorted(bare))})\b", re.MULTILINE)
    found = {file.as_posix(): pattern.findall((ROOT / file).read_text()) for file in SOURCES}
    assert {file: names for file, names in found.items() if names} == {}


def test_nothing_patches_the_path():
    pattern = re.compile(r"sys\.path(\.(insert|append|extend)|\[.*\] *=|\s*\+?= )")
    own = {"tests/repository/test_house.py", "tests/helpers/forked_commands.py"}  # the latter plays an interpreter
    found = [file.as_posix() for file in SOURCES if pattern.search((ROOT / file).read_text())]
    assert set(found) - own == set()


def test_no_test_file_imports_another():
    files = [file for file in list_files("tests") if file.name.startswith("test_")]
    imports = [found for file in files for found in read_imports(file)]
    assert [str(found) for found in imports if found.module.split(".")[-1].startswith("test_")] == []


def test_modules_are_found_by_the_longest_name():
    assert find_module("training.data.loader.Batch") == "training.data.loader"
    assert find_module("torch.nn") == ""


def reads_text(call: ast.Call) -> bool:
    """Returns whether a call reads or writes a file as text: by a method of paths, or by `open` with such a mode."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    values = [value.value for value in call.args if isinstance(value, ast.Constant)]
    modes = [value for value in values if isinstance(value, str) and re.fullmatch(r"[rwax][t+]*", value)]
    if name == "open":
        return bool(modes) or (isinstance(call.func, ast.Name) and len(call.args) == 1 and not call.keywords)
    return name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute)


def find_texts_without_encoding(source: str) -> list[str]:
    """Returns the calls that read or write text in whatever encoding the system has."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and reads_text(node)]
    return [ast.unparse(call) for call in calls if "encoding" not in [keyword.arg for keyword in call.keywords]]


def test_texts_have_an_encoding_that_every_system_shares():
    """Windows would write others in an encoding of its own (huggingface_hub pull 2627)."""
    files = [file for package in ("modeling_esvit", "training", "examples") for file in list_files(package)]
    found = {file.as_posix(): find_texts_without_encoding((ROOT / file).read_text()) for file in files}
    assert {file: calls for file, calls in found.items() if calls} == {}
    source = "path.write_text(x)\nopen(x)\nwrite_text(path, x)\npath.open('rb')\npath.open('a')"
    assert find_texts_without_encoding(source) == ["path.write_text(x)", "open(x)", "path.open('a')"]
