# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which parts a process makes, and that parts of another call or damaged ones are refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from modeling_esvit.embed.files import Features, OutputError
from modeling_esvit.embed.parts import Parts, cut_rows, find_own_parts, make_parts
from modeling_esvit.storage.locks import InUseError, lock
from tests.helpers.full_disk import largest_file


def make_part(images, after_batch) -> Features:
    names = [str(image) for image in images]
    after_batch(len(names))
    return Features(names, np.ones((len(names), 2), np.float32), None, {})


def test_missing_parts_are_made_of_their_rows(tmp_path):
    parts, read = Parts(tmp_path / "x.npz", {"model": "m"}), []
    parts.begin()
    parts.write(1, Features(["there"], np.zeros((1, 2), np.float32), None, {}))
    rows = cut_rows(8, 3)
    assert rows == [range(3), range(3, 6), range(6, 8)]
    make_parts(parts, rows, lambda span: read.append(span) or iter(span), make_part, description="x")
    assert read == [range(3), range(6, 8)]
    assert [parts.read(number).names for number in range(3)] == [["0", "1", "2"], ["there"], ["6", "7"]]


def test_processes_share_the_missing_parts_as_neighbours(tmp_path):
    parts = SimpleNamespace(is_done=lambda number: number == 2)
    states = [SimpleNamespace(num_processes=3, process_index=rank) for rank in range(3)]
    assert [find_own_parts(parts, 7, state) for state in states] == [[0, 1], [3, 4, 5], [6]]


def test_a_call_that_was_killed_before_it_was_recorded_is_begun_anew(tmp_path, caplog):
    identity = SimpleNamespace(to_json=lambda: {"names": "x"})
    parts = Parts(tmp_path / "x.npz", {"model": "m"}, identity)
    parts.begin()
    (parts.folder / "settings.json").unlink()  # its record comes first
    parts.begin()
    assert not parts.find_damage()
    (parts.folder / ".manifest.settings.json.json").write_text("damaged")
    parts.begin()
    assert "begun anew, since it is damaged: settings.json has no record" in caplog.text
    assert not parts.find_damage()


def test_settings_of_somebody_else_are_not_removed(tmp_path):
    parts = Parts(tmp_path / "x.npz", {"model": "m"}, SimpleNamespace(to_json=lambda: {"names": "x"}))
    parts.folder.mkdir()
    for path in (parts.data_file, parts.settings_file):
        path.write_text("mine")
        with pytest.raises(OutputError, match="x.npz.parts holds data.json.*, which embed has no record of writing"):
            parts.begin()
        assert path.read_text() == parts.data_file.read_text() == "mine"


@pytest.mark.parametrize("damaged", ["part-00000001.safetensors", ".manifest.part-00000001.safetensors.json"])
def test_a_damaged_part_is_said_and_made_anew(tmp_path, caplog, damaged):
    parts, rows, read = Parts(tmp_path / "x.npz", {"model": "m"}), cut_rows(6, 2), []
    for _ in range(2):
        parts.begin()
        make_parts(parts, rows, lambda span: read.append(span) or iter(span), make_part, description="x")
        content = bytearray((parts.folder / damaged).read_bytes())
        content[len(content) // 2] ^= 1
        (parts.folder / damaged).write_bytes(content)
    assert read == [range(6), range(2, 4)]
    assert "x.npz.parts is made anew: part-00000001.safetensors " in caplog.text


def test_parts_that_another_call_makes_are_not_deleted(tmp_path):
    Parts(tmp_path / "x.npz", {"batch_size": 1}).begin()
    other = Parts(tmp_path / "x.npz", {"batch_size": 2})
    with lock(other.folder, tmp_path / "x.npz"), pytest.raises(InUseError, match="x.npz.parts at this moment"):
        other.begin(anew=True)
    assert "1" in other.settings_file.read_text()
    other.begin(anew=True)
    assert "2" in other.settings_file.read_text()


def test_parts_are_begun_anew_when_what_they_are_of_is_damaged(tmp_path, caplog):
    parts = Parts(tmp_path / "x.npz", {"model": "m"})
    parts.begin()
    parts.write(0, Features(["there"], np.zeros((1, 2), np.float32), None, {}))
    (parts.folder / "mine").touch()
    parts.settings_file.write_text('{"model": "n"}')
    parts.begin()
    assert "begun anew, since it is damaged: settings.json is not as it was written" in caplog.text
    assert not parts.is_done(0) and (parts.folder / "mine").exists()
    parts.delete()
    assert [path.name for path in parts.folder.iterdir()] == ["mine"]


def test_parts_that_cannot_be_continued(tmp_path):
    Parts(tmp_path / "x.npz", {"model": "m", "seed": 0}).begin()
    other = Parts(tmp_path / "x.npz", {"model": "m", "seed": 1})
    with pytest.raises(OutputError, match="holds features of another call: seed was 0 and is 1"):
        other.begin()
    other.path(4).write_bytes(b"damaged meanwhile")
    with pytest.raises(OutputError, match="part-00000004.safetensors is damaged"):
        other.read(4)


def test_a_part_that_cannot_be_written_is_said(tmp_path):
    """safetensors' own error was a traceback, and one process of several then waited for the other."""
    parts = Parts(tmp_path / "x.npz", {"model": "m"})
    parts.begin()
    message = "x.npz.parts cannot be written: .*File too large: .*the same call goes on"
    with pytest.raises(OutputError, match=message), largest_file(300):
        parts.write(0, Features(["a"] * 99, np.ones((99, 9), np.float32), None, {}))
    assert not parts.is_done(0) and not list(parts.folder.glob("*.partial"))
