# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that folders are known by their record: what is ours is replaced, what is not stays, what changed is found."""

import json
import shutil
from pathlib import Path

import pytest

import modeling_esvit
from modeling_esvit.storage.atomic import record_file, replace_folder, rewrite_recorded
from modeling_esvit.storage.manifest import (
    MANIFEST,
    ForeignFilesError,
    check_own,
    describe_change,
    find_damage,
    list_names,
    mark_unfinished,
    name_record,
    read_own_record,
    remove_folder,
    remove_own_files,
)


replace_path = Path.replace
CONTENT = {"config.json": b"{}", "sub/weights.bin": bytes(range(256)) * 10, "empty": b""}


def stop(path: Path, new: Path) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def written(tmp_path):
    folder = tmp_path / "written"
    with replace_folder(folder, later=["scores.json"]) as new:
        for name, content in CONTENT.items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_bytes(content)
    return folder


def test_what_was_written_is_whole_and_ours(written):
    assert find_damage(written) == [] and list_names(written) == sorted(CONTENT)
    check_own(written)
    with replace_folder(written) as new:
        (new / "other").touch()
    assert list_names(written) == ["other"]
    remove_folder(written)
    assert not written.exists()


@pytest.mark.parametrize("name", CONTENT)
def test_every_flipped_bit_is_found(written, name):
    for position in range(0, len(CONTENT[name]), 97):
        changed = bytearray(CONTENT[name])
        changed[position] ^= 1 << position % 8
        (written / name).write_bytes(changed)
        assert find_damage(written) == [f"{name} is not as it was written"]
        assert find_damage(written, [name]) and not find_damage(written, set(CONTENT) - {name})
    (written / name).write_bytes(CONTENT[name] + b"\0")
    assert find_damage(written) == [f"{name} is not as it was written"]
    (written / name).unlink()
    assert find_damage(written) == [f"{name} is missing"]
    (written / name).symlink_to(MANIFEST)
    assert find_damage(written) == [f"{name} is missing"]


@pytest.mark.slow
def test_every_flipped_bit_of_the_record_is_found_or_changes_nothing(written):
    record = (written / MANIFEST).read_bytes()
    before = json.loads(record)["files"]
    for bit in range(8 * len(record)):
        changed = bytearray(record)
        changed[bit // 8] ^= 1 << bit % 8
        (written / MANIFEST).write_bytes(changed)
        assert find_damage(written) or json.loads(changed)["files"] == before


@pytest.mark.parametrize(
    "record",
    [
        '{"files": {"config.json": {}}, "later": [[1]], "unfinished": false}',
        '{"files": [[1, {}]], "later": [], "unfinished": false}',
        '{"files": {}, "later": [], "unfinished": "no"}',
        '{"files": {"config.json": {}, "../other/config.json": {}}, "later": [], "unfinished": false}',
        '{"files": {"config.json": {}}, "later": ["/proc/kmsg"], "unfinished": false}',
        "[]",
        "[" * 200_000,
    ],
)
def test_a_record_of_another_form_is_a_damaged_one(written, record):
    (written / MANIFEST).write_text(record)
    assert "no record of its files, or a damaged one" in find_damage(written)[0]
    with pytest.raises(ForeignFilesError, match=r"config\.json"):
        check_own(written)
    (written / ".manifest.config.json.json").write_text(record)
    assert find_damage(written, ["config.json"])


@pytest.mark.parametrize(
    "foreign",
    ["notes.txt", "sub/notes.txt", ".git/config", "link", "folder link", ".manifest.mine.json", ".manifest.a/b.json"],
)
def test_what_is_not_ours_stays(written, tmp_path, foreign):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "precious").write_text("photographs")
    path = written / foreign.replace("folder ", "")
    path.parent.mkdir(exist_ok=True)
    if "link" in foreign:
        path.symlink_to(kept if "folder" in foreign else kept / "precious")
    else:
        path.write_text("mine")
    before = list_names(written)
    for attempt in (remove_folder, lambda folder: replace_folder(folder).__enter__()):
        with pytest.raises(ForeignFilesError, match=f"no record of writing: {path.relative_to(written)}. Nothing"):
            attempt(written)
    assert list_names(written) == before and (kept / "precious").read_text() == "photographs"


def test_empty_folders_that_are_not_ours_stay(written):
    (written / "sub" / "weights.bin").unlink()
    check_own(written)  # a kill may have left the folder of a file of ours
    (written / ".git" / "objects").mkdir(parents=True)
    (written / "sub" / "mine").mkdir()
    for attempt in (remove_folder, lambda folder: replace_folder(folder).__enter__()):
        with pytest.raises(ForeignFilesError, match="no record of writing: .git/objects/, sub/mine/. Nothing"):
            attempt(written)
    assert (written / ".git" / "objects").is_dir()


def test_a_record_without_its_file_is_ours_but_not_what_is_only_called_so(written):
    (written / "part-0").touch()
    record_file(written, "part-0", shared=True)
    (written / "part-0").unlink()  # where a kill ended a removal
    check_own(written)
    (written / ".manifest.mine.json").write_text("precious")
    remove_own_files(written)
    assert [path.name for path in written.iterdir() if path.is_file()] == [".manifest.mine.json"]


def test_what_another_program_calls_a_record_makes_no_file_ours(written):
    (written / "mine").write_text("precious")
    (written / ".manifest.mine.json").write_text('{"files": ["mine"]}')
    with pytest.raises(ForeignFilesError, match="mine, .manifest.mine.json"):
        remove_folder(written)
    remove_own_files(written)
    assert {path.name for path in written.iterdir() if path.is_file()} == {"mine", ".manifest.mine.json"}


def test_files_that_come_while_a_folder_is_written_stay(written):
    with pytest.raises(ForeignFilesError, match="mine.txt"), replace_folder(written) as new:
        (new / "config.json").touch()
        (written / "mine.txt").touch()
    assert list_names(written) == sorted([*CONTENT, "mine.txt"])
    assert [path.name for path in written.parent.iterdir()] == ["written"]


def test_a_folder_without_a_record_is_not_ours(written, tmp_path):
    """As a clone of a repository of the Hub, which looks like a folder to publish."""
    clone = tmp_path / "clone"
    shutil.copytree(written, clone)
    (clone / MANIFEST).unlink()
    with pytest.raises(ForeignFilesError, match="config.json, empty, sub/weights.bin. Nothing was removed"):
        remove_folder(clone)
    (clone / "more").touch()
    with pytest.raises(ForeignFilesError, match="and 1 more. Nothing"):
        check_own(clone)
    for name in (MANIFEST, *CONTENT, "more"):
        (clone / name).unlink(missing_ok=True)
    (clone / "sub").rmdir()
    remove_folder(clone)  # an empty folder is nobody's loss
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ForeignFilesError, match="is a file"):
        remove_folder(file)
    (tmp_path / "link").symlink_to(written)
    with pytest.raises(ForeignFilesError, match="is a link"):
        remove_folder(tmp_path / "link")


def test_a_later_file_is_ours_and_verified_once_it_is_recorded(written):
    (written / "scores.json").write_text("1")
    check_own(written)
    assert find_damage(written, ["scores.json"]) == ["scores.json is not as it was written"]
    record_file(written, "scores.json")
    assert find_damage(written) == [] == find_damage(written, ["scores.json"])
    (written / "mine.txt").touch()
    with pytest.raises(ForeignFilesError, match="mine.txt"):
        check_own(written)
    (written / "mine.txt").unlink()
    (written / "scores.json").write_text("2")
    assert find_damage(written) == ["scores.json is not as it was written"]


def test_a_damaged_record_does_not_become_a_whole_one_of_one_file(written):
    (written / MANIFEST).write_bytes((written / MANIFEST).read_bytes()[:-9])
    (written / "scores.json").write_text("1")
    record_file(written, "scores.json")
    assert "no record of its files, or a damaged one" in find_damage(written)[0]
    assert find_damage(written, ["scores.json"]) == []


def test_each_of_several_processes_records_what_it_adds(written):
    for name in ("part-0", "part-1"):
        (written / name).write_text(name)
        with pytest.raises(ForeignFilesError, match=name):
            check_own(written)
        record_file(written, name, shared=True)
    check_own(written)
    assert find_damage(written, ["part-0", "part-1"]) == [] and list_names(written) == sorted(
        [*CONTENT, "part-0", "part-1"]
    )
    record = written / ".manifest.part-1.json"
    before = read_own_record(written, "part-1")
    for bit in range(0, 8 * len(whole := record.read_bytes()), 5):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        record.write_bytes(changed)
        assert find_damage(written, ["part-1"]) or read_own_record(written, "part-1") == before
    (written / "mine").touch()
    remove_own_files(written)
    assert [path.name for path in written.iterdir() if path.is_file()] == ["mine"]


def test_a_record_names_the_version_that_wrote_it_and_need_not(written):
    record_file(written, "empty", shared=True)
    for record in (MANIFEST, name_record("empty")):
        content = json.loads((written / record).read_text())
        assert content.pop("version") == modeling_esvit.__version__
        (written / record).write_text(json.dumps(content))
    check_own(written)
    assert find_damage(written) == []


def test_a_file_with_a_record_of_its_own_is_compared(tmp_path):
    """A copy, or a file of an earlier version, has none; a kill at any instant leaves none that is another's."""
    file, record = tmp_path / "options.yaml", tmp_path / name_record("options.yaml")
    for text in ("lr: 0.0005", "lr: 0.0003"):
        rewrite_recorded(file, text)
        assert describe_change(file) is None
    file.write_text("lr: 0.0004")
    assert describe_change(file) == (
        f"options.yaml is not as it was written. If you changed it yourself, delete {record.name} beside it"
    )
    record.write_text("{")
    assert "options.yaml has no record, or a damaged one. If" in str(describe_change(file))
    record.unlink()
    assert describe_change(file) is None


def test_a_kill_while_a_file_is_rewritten_leaves_one_that_can_be_read(tmp_path, monkeypatch):
    file = tmp_path / "options.yaml"
    rewrite_recorded(file, "old")
    for step in range(2):
        calls = iter([*[replace_path] * step, stop])
        monkeypatch.setattr(Path, "replace", lambda path, new: next(calls)(path, new))  # noqa: B023
        with pytest.raises(KeyboardInterrupt):
            rewrite_recorded(file, f"new {step}")
        assert describe_change(file) is None and file.read_text() in ("old", f"new {step}")


def test_what_a_kill_left_is_ours(tmp_path):
    left = tmp_path / "folder.partial"
    left.mkdir()
    mark_unfinished(left)
    (left / "half").touch()
    with replace_folder(tmp_path / "folder") as new:
        (new / "whole").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    left.mkdir()
    mark_unfinished(left)
    (left / "half").touch()
    left.rename(tmp_path / "saved")  # by somebody who goes on there
    with pytest.raises(ForeignFilesError, match="saved holds what .*: half. Nothing"):
        remove_folder(tmp_path / "saved")
    (tmp_path / "folder.partial").mkdir()
    (tmp_path / "folder.partial" / "mine").touch()
    with pytest.raises(ForeignFilesError, match="folder.partial holds what"), replace_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "folder.partial" / "mine").exists() and list_names(tmp_path / "folder") == ["whole"]
