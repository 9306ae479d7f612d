# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the help of every program: it needs no package of a single program, and says defaults in one form."""

import itertools
import re
import runpy
import sys

import pytest

from modeling_esvit.programs.parser import HelpOfOneScreen
from tests.helpers.commands import type_arguments
from tests.helpers.paths import ROOT


FILES = [*ROOT.glob("training/*.py"), *ROOT.glob("examples/*.py"), ROOT / "examples" / "app" / "app.py"]
PROGRAMS = sorted(str(path.relative_to(ROOT)) for path in FILES if '__name__ == "__main__"' in path.read_text())
MODULES = ["modeling_esvit.convert_original", "modeling_esvit.embed", "modeling_esvit.export"]
# What some programs or formats alone need.
OPTIONAL = ["gradio", "onnx", "onnxruntime", "openvino", "ray", "timm", "torchao", "umap"]
IN_BRACKETS = r"\(default: (?:[^()]|\([^()]*\))+\)"


@pytest.fixture
def show_help(monkeypatch, capsys):
    """Returns the function that runs a program with `--help_all`, without optional packages, and returns its lines."""

    def show(program: str) -> list[str]:
        for name in ("page", "limits"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        for name in OPTIONAL:
            monkeypatch.setitem(sys.modules, name, None)
        type_arguments(monkeypatch, program, "--help_all")
        with pytest.raises(SystemExit) as ended:
            if program in MODULES:
                runpy.run_module(program, run_name="__main__")
            else:
                runpy.run_path(str(ROOT / program), run_name="__main__")
        assert not ended.value.code
        return capsys.readouterr().out.splitlines()

    return show


def list_options(lines: list[str]) -> list[str]:
    """Returns the text of each argument and option in the lines of a help, as one line."""
    starts = [number for number, line in enumerate(lines) if re.match(r"  (--\w|[A-Z_]+\b)", line)]
    texts = [" ".join(lines[start:end]) for start, end in itertools.pairwise([*starts, len(lines)])]
    return [" ".join(text.split()) for text in texts]


@pytest.mark.parametrize("program", [*PROGRAMS, *MODULES])
def test_help_needs_no_optional_package_and_says_defaults_in_one_form(program, show_help):
    lines = show_help(program)
    assert lines[0].startswith("usage: ")
    for option in list_options(lines):
        said = [*re.finditer("default", option, re.IGNORECASE)]
        assert len(said) <= 1 and bool(said) == bool(re.search(f"{IN_BRACKETS}$", option)), option


@pytest.mark.parametrize("program", [*PROGRAMS, *MODULES])
def test_what_stands_without_an_option_is_read_as_a_path_or_a_name(program, show_help, monkeypatch):
    """Without a type, `~` would stay as it is."""
    parsers, describe = [], HelpOfOneScreen.describe
    monkeypatch.setattr(HelpOfOneScreen, "describe", lambda self, shown: parsers.append(self) or describe(self, shown))
    show_help(program)
    assert not [action.dest for action in parsers[0]._actions if not action.option_strings and action.type is None]


def test_other_forms_of_defaults_are_seen():
    lines = ["usage: x", "", "  --a A   many; default: all", "  --b B   (default: 3) or so", "          (1)"]
    assert list_options(lines) == ["--a A many; default: all", "--b B (default: 3) or so (1)"]
    assert not any(re.search(f"{IN_BRACKETS}$", option) for option in list_options(lines))
    assert re.search(f"{IN_BRACKETS}$", "--c C (default: 2 (of 3), else 4)")
