# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which files of a folder are its images, and how the others are counted."""

import glob
import os
import runpy

from modeling_esvit.images import folders
from modeling_esvit.images.folders import (
    MATCHED_FOLDERS,
    LeftOut,
    expand_pattern,
    find_in_folder,
    find_matching,
    has_images,
)
from modeling_esvit.images.wording import show_number


def write(root, *names):
    for name in names:
        path = os.path.join(os.fsencode(root), name if isinstance(name, bytes) else os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass


def test_images_are_found_and_others_are_counted(tmp_path):
    write(tmp_path, "b.jpg", "a/c.PNG", b"a/caf\xe9.jpg", "1.heic", "2.HEIC", "notes.txt", "README")
    write(
        tmp_path, ".hidden.jpg", "a/._c.png", ".ipynb_checkpoints/b-checkpoint.jpg", "a/@eaDir/x.jpg", "__MACOSX/b.jpg"
    )
    found = find_in_folder(tmp_path)
    assert found.paths == ["a/c.PNG", os.fsdecode(b"a/caf\xe9.jpg"), "b.jpg"]
    assert found.left_out == {
        **{".heic": 2, ".txt": 1, "files without an extension": 1},
        **{"hidden files": 2, "hidden folders": 3},
    }
    assert found.left_out.describe().startswith("3 hidden folders; ")
    assert "2 .heic: pip install pillow-heif" in found.left_out.describe()
    assert LeftOut({".zip": 2}).describe() == "2 .zip: unpack them"
    assert "3 .tar: unpack them, or name them by a glob, as FOLDER/*.tar" in LeftOut({".tar": 3}).describe()


def test_the_project_s_own_record_of_a_folder_is_not_missed(tmp_path):
    """`make demo` said "Not read: 1 hidden files." of it."""
    write(tmp_path, "a.jpg", ".manifest.json", "sub/.manifest.knn.json", ".mine.json")
    assert find_in_folder(tmp_path).left_out.describe() == find_matching(f"{tmp_path}/**/.*").left_out.describe()
    assert find_in_folder(tmp_path).left_out.describe() == "1 hidden file"


def test_links_are_followed_and_loops_end(tmp_path):
    write(tmp_path, "elsewhere/a.jpg", "data/b.jpg")
    (tmp_path / "data" / "dogs").symlink_to("../elsewhere")
    (tmp_path / "data" / "dogs_again").symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to("../data")
    found = find_in_folder(tmp_path / "data")
    assert found.paths == ["b.jpg", "dogs/a.jpg"] and found.left_out == {"folders linked to again": 2}
    for pattern in ("data/**/*", "data/**", "d*a/**/*.jpg", "**/data/**/*.jpg"):
        assert find_matching(f"{tmp_path}/{pattern}").paths == [f"{tmp_path}/data/b.jpg", f"{tmp_path}/data/dogs/a.jpg"]


def test_a_folder_has_its_own_name_and_not_that_of_a_link(tmp_path):
    write(tmp_path, "g/zebra/a.jpg", "g/yak/b.jpg")
    (tmp_path / "g" / "alias").symlink_to("zebra")
    (tmp_path / "g" / "yak" / "deep").symlink_to("../zebra")
    found = find_in_folder(tmp_path / "g")
    assert found.paths == ["yak/b.jpg", "zebra/a.jpg"] and found.left_out == {"folders linked to again": 2}
    for pattern in ("*/*.jpg", "**/*.jpg"):
        paths = find_matching(f"{tmp_path}/g/{pattern}").paths
        assert paths == [f"{tmp_path}/g/yak/b.jpg", f"{tmp_path}/g/zebra/a.jpg"]


def test_patterns_match_what_those_of_glob_do(tmp_path, monkeypatch):
    write(tmp_path, "a.jpg", "b/c.jpg", "b/c/d.jpg", "b/c/e/f.png", ".hidden/g.jpg", "x[1]/h.jpg", "x[1]/y/h.jpg")
    monkeypatch.chdir(tmp_path)
    for pattern in ("*", "**", "**/*", "**/*.jpg", "b/**/c/*", "b/**/c/**/*.png", "*/**/h.jpg", "no/**/h.jpg"):
        for start in ("", f"{tmp_path}/"):
            files = [path for path in glob.glob(f"{start}{pattern}", recursive=True) if os.path.isfile(path)]
            assert [path for path in expand_pattern(f"{start}{pattern}") if os.path.isfile(path)] == sorted(set(files))


def test_wildcards_match_no_folders_of_systems(tmp_path):
    write(tmp_path, "g/a/x.jpg", "g/__MACOSX/x.jpg", "g/@eaDir/x.jpg", "g/@eaDir/deep/y.jpg", "g/a/@eaDir/x.jpg")
    for pattern, hidden in {"*/*.jpg": 2, "*/x.jpg": 2, "*/*/*.jpg": 2, "**/*/x.jpg": 3, "*/**/x.jpg": 3}.items():
        found = find_matching(f"{tmp_path}/g/{pattern}")
        assert found.paths == ([] if pattern == "*/*/*.jpg" else [f"{tmp_path}/g/a/x.jpg"])
        assert found.left_out["hidden folders"] == hidden
    assert find_matching(f"{tmp_path}/g/@eaDir/*.jpg").paths == [f"{tmp_path}/g/@eaDir/x.jpg"]


def test_a_folder_without_images(tmp_path):
    write(tmp_path, "a/notes.txt", ".git/a.jpg")
    assert not has_images(tmp_path)
    write(tmp_path, "a/b/c.webp")
    assert has_images(tmp_path)


def test_what_only_needs_another_name_or_pattern(tmp_path):
    for name in ("a.jpg", "b.jpg?width=200", "c.jpg_large"):
        (tmp_path / name).touch()
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "d.jpg").touch()
    kinds = find_in_folder(tmp_path).left_out.describe()
    assert sorted(kinds.split("; ")) == [f"1 .jpg{end}: rename it to .jpg" for end in ("?width=200", "_large")]
    found = find_matching(str(tmp_path / "*"))
    assert len(found.paths) == 1 and f"; {show_number(1, MATCHED_FOLDERS)}" in found.left_out.describe()
    deep = find_matching(str(tmp_path / "**" / "*"))
    assert len(deep.paths) == 2 and MATCHED_FOLDERS not in deep.left_out


def test_many_kinds_are_summed_up():
    left_out = LeftOut({f".x{number}": 20 - number for number in range(12)})
    assert left_out.describe().endswith("; 42 of 4 more kinds") and left_out.describe().startswith("20 .x0; 19 .x1; ")


def test_windows_separates_the_parts_of_a_pattern_in_two_ways(monkeypatch):
    monkeypatch.setattr(os, "sep", "\\")
    found = runpy.run_path(folders.__file__)["ANY_DEPTH"]
    patterns = ("C:\\a\\**\\*.jpg", "C:/a/**/*.jpg", "**\\*.jpg", "C:\\a\\**", "C:\\a**\\b.jpg")
    split = [["C:\\a", "*.jpg"], ["C:/a", "*.jpg"], ["", "*.jpg"], ["C:\\a", ""], ["C:\\a**\\b.jpg"]]
    assert [found.split(pattern, maxsplit=1) for pattern in patterns] == split
