# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the files beside a result are replaced where it names them as its own, and nowhere else."""

import json
from argparse import ArgumentParser

import pytest

from modeling_esvit.storage.manifest import ForeignFilesError
from training.evaluation.arguments import check_output
from training.evaluation.result_files import check_beside, list_beside, read_result_file, write_result_file
from training.evaluation.results import write_result


@pytest.mark.parametrize("name", ["x.png", "x.md"])
def test_a_file_of_somebody_else_is_not_replaced(name, tmp_path, capsys):
    (tmp_path / name).write_text("mine")
    with pytest.raises(SystemExit):
        check_output(ArgumentParser(), tmp_path / "x.json")
    assert f"{name} lies where a table or picture is written, and x.json does not name it" in capsys.readouterr().err


def test_the_files_of_a_result_are_replaced(tmp_path):
    output = tmp_path / "x.json"
    for _ in range(2):
        check_beside(output)
        write_result({"model": "a"}, "title", "table", output, pictures=["-curves.png"])
        (tmp_path / "x-curves.png").touch()
    assert list_beside(output) == {"x.md", "x-curves.png"} and read_result_file(output) == {"model": "a"}
    check_beside(output, ["-curves.png"])
    write_result_file(output, {"model": "b"})  # as an unfinished call does
    check_beside(output)


@pytest.mark.parametrize("result", [{"model": "a", "checksum": "0"}, {"models": {}}])
def test_the_files_of_an_earlier_version_are_replaced(result, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(result))
    (tmp_path / "x.md").touch()
    check_output(ArgumentParser(), tmp_path / "x.json")


def test_a_result_without_files_beside_it_has_none(tmp_path):
    write_result_file(tmp_path / "x.json", {"model": "a"})
    (tmp_path / "x.md").write_text("mine")
    with pytest.raises(ForeignFilesError, match="x.md lies where"):
        check_beside(tmp_path / "x.json")


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"beside": "x.md"}), json.dumps({"beside": [["x.md"]]})])
def test_a_damaged_result_names_nothing(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    (tmp_path / "x.md").write_text("mine")
    with pytest.raises(ForeignFilesError, match="x.md lies where"):
        check_beside(tmp_path / "x.json")
