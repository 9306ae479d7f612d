# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks files of features."""

import os
from pathlib import Path

import numpy as np
import pytest

from modeling_esvit.embed.files import (
    FORMATS,
    Features,
    OutputError,
    check_output,
    format_unreadable,
    load_features,
    make_unreadable_error,
    write_arrays,
    write_parquet,
)


def write_features(path: Path) -> Features:
    """Writes features of two parts."""
    view = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    origin = {"model": "abc", "images": {"images": 6}}
    features = Features([f"{number} \u00e4.png" for number in range(6)], view, view[:, :, None] + [1, 2], origin=origin)
    if path.suffix == ".parquet":
        parts = (Features(features.names[i : i + 3], view[i : i + 3], features.regions[i : i + 3]) for i in (0, 3))
        write_parquet(parts, path, origin)
    else:
        write_arrays(features, path, path.suffix)
    return features


def is_same(found: Features, written: Features) -> bool:
    arrays, others = found.arrays(), written.arrays()
    same = arrays.keys() == others.keys() and all(np.array_equal(arrays[name], others[name]) for name in arrays)
    return same and (found.names, found.origin) == (written.names, written.origin)


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_flipped_bit_gives_other_features(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    written = write_features(path)
    assert is_same(load_features(path), written)
    content, refused = path.read_bytes(), 0
    bits = np.random.default_rng(1).permutation(len(content) * 8)[:600]
    for bit in bits.tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert is_same(load_features(path), written), bit
        except OutputError:
            refused += 1
    assert refused > 200


def test_the_list_of_unreadable_images_of_others_is_not_overwritten(tmp_path):
    (tmp_path / "f.npz.unreadable.txt").write_text("mine")
    with pytest.raises(OutputError, match="f.npz.unreadable.txt exists already: name another file"):
        check_output(tmp_path / "f.npz", overwrite=False)
    check_output(tmp_path / "f.npz", overwrite=True)


def test_a_file_in_place_of_the_folder_is_said_before_anything_is_computed(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file' is a file where a folder has to be"):
        check_output(tmp_path / "file" / "new" / "f.npz", overwrite=True)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_other_content_is_no_features(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    for content in (b"", b"something else, longer than a header"):
        path.write_bytes(content)
        with pytest.raises(OutputError, match="holds no features that embed wrote"):
            load_features(path)
    with pytest.raises(FileNotFoundError):
        load_features(tmp_path / f"none{suffix}")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_features_that_somebody_made_up_are_none(suffix, tmp_path):
    """Their checksum is right."""
    path, view = tmp_path / f"x{suffix}", np.ones((2, 3), np.float32)
    for made_up in (
        Features(["a"], view),
        Features([1, 2], view),  # type: ignore[list-item]
        Features(["a", "b"], view[:, :, None]),
        Features(["a", "b"], view.astype(np.int64)),
        Features(["a", "b"], view, view),
        Features(["a", "b"], view, origin=["no entries"]),  # type: ignore[arg-type]
    ):
        write_arrays(made_up, path, suffix)
        with pytest.raises(OutputError, match="holds no features that embed wrote"):
            load_features(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_cannot_be_opened_is_not_said_to_hold_nothing(suffix, tmp_path):
    (tmp_path / f"folder{suffix}").mkdir()
    os.mkfifo(tmp_path / f"pipe{suffix}")  # which a library would wait for
    for name, reason in (("folder", "Is a directory"), ("pipe", "it is no regular file")):
        with pytest.raises(OutputError, match=f"{name}{suffix} cannot be read: {reason}"):
            load_features(tmp_path / f"{name}{suffix}")


def test_names_and_reasons_are_listed_in_their_order():
    assert format_unreadable({"b.jpg": "b.jpg: empty", "a.jpg": "no: file"}) == "b.jpg\tempty\na.jpg\tno: file\n"


def test_each_reason_is_said_where_nothing_can_be_read():
    unreadable = {f"{i}.jpg": f"{i}.jpg: cut off after {i} bytes" for i in range(9)} | {"z.jpg": "z.jpg: is HEIC"}
    error = make_unreadable_error(unreadable)
    assert str(error) == "0 of 10 images can be read: 0.jpg: cut off after 0 bytes; z.jpg: is HEIC"
