# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows how the code hangs together: a table of the rooms, and the imports between them.

    python tests/rooms.py

A room is a folder of `training/` or `modeling_esvit/`; `(programs)` and `(flat)` are the files at their roots.
`tests/repository/test_house.py` checks the rules that the imports follow, and reads them with the functions below.
"""

import ast
from collections import Counter
from pathlib import Path
from typing import NamedTuple


ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("modeling_esvit", "training", "examples")
# Lowest first: each imports only rooms before it.
TRAINING_ROOMS = (
    *("options", "views", "data", "state", "features", "matching", "figures", "evaluation", "monitoring", "learning"),
    *("publishing", "run"),
)
# The folders of `modeling_esvit`, and those that each may import beside the flat files.
MODELING_ROOMS = {
    **{"storage": (), "programs": ("storage",), "images": ("storage",), "embed": ("programs", "storage", "images")},
    **{"analysis": (), "conversion": ("storage", "images")},
    "convert_original": ("programs", "storage", "conversion"),
    "export": ("programs", "storage", "conversion", "convert_original"),
}


class Import(NamedTuple):
    """Holds an import of a module of this project: file, line, and the module's dotted name."""

    file: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file.as_posix()}:{self.line} imports {self.module}"


def list_files(package: str, root: Path = ROOT) -> list[Path]:
    """Returns the Python files of a package, relative to `root`."""
    return sorted(path.relative_to(root) for path in (root / package).rglob("*.py"))


def list_names(node: ast.stmt, package: str) -> list[str]:
    """Returns the dotted names of the modules or objects that an import statement in `package` imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*above, *filter(None, [node.module])])
        return [f"{module}.{alias.name}" for alias in node.names]
    return []


def find_module(name: str, root: Path = ROOT) -> str:
    """Returns the longest leading part of a dotted name that is a module or a package below `root`, or ""."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = root.joinpath(*parts[:length])
        if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
            return ".".join(parts[:length])
    return ""


def read_imports(file: Path, root: Path = ROOT) -> list[Import]:
    """Returns every import of this project's modules in a file, wherever in the file it stands."""
    package = ".".join(file.parent.parts)
    return [
        Import(file, node.lineno, module)
        for node in ast.walk(ast.parse((root / file).read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for module in dict.fromkeys(find_module(name, root) for name in list_names(node, package))
        if module
    ]


def room_of(module: str) -> str:
    """Returns the room of a module by its dotted name, such as `training/data`, or its package's `(flat)` files."""
    package, *rest = module.split(".")
    folder = (ROOT / package / rest[0]).is_dir() if rest else False
    outside = "(programs)" if package == "training" else "(flat)"
    return f"{package}/{rest[0] if folder else outside}"


def module_of(file: Path) -> str:
    """Returns the dotted name of a file."""
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def main() -> None:
    files = [file for package in PACKAGES for file in list_files(package)]
    lines = Counter({room_of(module_of(file)): 0 for file in files})
    counts = Counter(room_of(module_of(file)) for file in files)
    for file in files:
        lines[room_of(module_of(file))] += len((ROOT / file).read_text().splitlines())
    arrows = Counter(
        (room_of(module_of(file)), room_of(found.module)) for file in files for found in read_imports(file)
    )
    order = [*(f"modeling_esvit/{room}" for room in ("(flat)", *MODELING_ROOMS))]
    order += [*(f"training/{room}" for room in TRAINING_ROOMS), "training/(programs)", "examples/(flat)"]
    print(f"{'room':32} {'files':>5} {'lines':>6}  imports (how often)")
    for room in [*order, *sorted(set(lines) - set(order))]:
        to = ", ".join(f"{other} ({arrows[room, other]})" for other in order if other != room and arrows[room, other])
        print(f"{room:32} {counts[room]:5} {lines[room]:6}  {to}")


if __name__ == "__main__":
    main()
