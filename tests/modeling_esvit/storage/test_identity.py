# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Data are told from other data by names, sizes and content; a change is named, and other times alone are none."""

import json
import os
import re
from pathlib import Path

import datasets
import pytest

from modeling_esvit.storage.identity import (
    SAMPLED,
    Identity,
    identify_contents,
    identify_dataset,
    identify_files,
    join_identities,
    pick_samples,
)


NAMES = ["a.bmp", "b/c.bmp", "d.bmp"]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "b").mkdir()
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(bytes([number]) * 100)
    return tmp_path


def through_json(identity: Identity) -> Identity:
    return Identity.from_json(json.loads(json.dumps(identity.to_json())))


def swap(folder: Path) -> list[str]:
    (folder / "a.bmp").rename(folder / "e.bmp")
    return ["b/c.bmp", "d.bmp", "e.bmp"]


def overwrite(folder: Path) -> list[str]:
    (folder / "d.bmp").write_bytes(bytes(100))
    os.utime(folder / "d.bmp", ns=(5, 5))
    return NAMES


def enlarge(folder: Path) -> list[str]:
    (folder / "d.bmp").write_bytes(bytes(101))
    return NAMES


def test_the_folder_is_left_out(folder, monkeypatch):
    """Windows has a separator of its own, and names of images in memory or of rows may have none."""
    monkeypatch.chdir(folder)
    here, there = (
        identify_files([f"./{name}" for name in NAMES]),
        identify_files([f"{folder}/{name}" for name in NAMES]),
    )
    assert (here.find_folder(), there.find_folder()) == ("./", f"{folder}/")
    assert here.describe_change(there) is not None
    assert through_json(here.leave_out_folder()).describe_change(there.leave_out_folder()) is None
    assert identify_files([f"{folder}/b/c.bmp"]).find_folder() == f"{folder}/b/"
    for names in (["a.bmp", "http://host/a.bmp"], ["image 0", "image 1"], []):
        assert identify_files(names).find_folder() == "" and identify_files(names).leave_out_folder().images == len(
            names
        )


CHANGES = {
    "another name": (swap, "a.bmp is missing; e.bmp is new"),
    "another content of the same size": (overwrite, "d.bmp has another content"),
    "another size": (enlarge, "d.bmp had 100 bytes and has 101"),
    "one less": (lambda folder: NAMES[:2], "d.bmp is missing"),
    "another order": (lambda folder: NAMES[::-1], "the order was .* and is .*"),
    "one twice": (lambda folder: [*NAMES, "d.bmp"], "3 images are 4"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named(folder, change):
    before = through_json(identify_files(NAMES, folder))
    assert before == identify_files(NAMES, folder) and before.describe_change(identify_files(NAMES, folder)) is None
    make, message = CHANGES[change]
    now = identify_files(make(folder), folder)
    assert now.compute_key() != before.compute_key()
    found = before.describe_change(now)
    assert found is not None and re.fullmatch(message, found)


def test_a_copy_by_a_mac_is_named(folder):
    """gocryptfs pull 992, PFERD pull 141: names that look the same are missing and new."""
    composed, decomposed = "caf\N{LATIN SMALL LETTER E WITH ACUTE}.bmp", "cafe\N{COMBINING ACUTE ACCENT}.bmp"
    for name in (composed, decomposed):
        (folder / name).write_bytes(b"x")
    before, now = identify_files([*NAMES, composed], folder), identify_files([*NAMES, decomposed], folder)
    assert before.describe_change(now) == f"{composed} is written in other code points, as after a copy by a Mac"
    both = identify_files([*NAMES, decomposed, composed], folder)
    assert before.describe_change(both) == f"{decomposed} is new"


def test_only_the_first_changes_are_named(folder):
    before = identify_files(NAMES, folder)
    assert (
        before.describe_change(identify_files([], folder)) == "a.bmp is missing; b/c.bmp is missing; d.bmp is missing"
    )
    others = [f"{number}.bmp" for number in range(5)]
    assert "0.bmp is new" not in str(before.describe_change(identify_files(others, folder)))
    assert str(before.describe_change(identify_files(others, folder))).endswith(" and 5 more changes")


def test_other_times_are_no_change(folder):
    before = identify_files(NAMES, folder)
    os.utime(folder / "d.bmp", ns=(5, 5))
    now = identify_files(NAMES, folder)
    assert before.describe_change(now) is None
    assert before.describe_times(now) == "1 of 3 files, d.bmp to begin with"
    assert before.describe_times(before) is None
    assert now.compute_key() != before.compute_key()


def test_names_of_any_bytes_urls_and_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    names = [*sorted(os.listdir(tmp_path)), "https://example.org/a.png"]
    found = identify_files(names, tmp_path)
    assert through_json(found) == found and found.images == 4
    assert set(found.samples) == set(names[:3]) and found.samples["pipe.png"] is found.samples["gone.png"] is None


def test_samples_are_spread_over_all():
    assert pick_samples(range(5)) == [0, 1, 2, 3, 4]
    picked = pick_samples(range(10**6))
    assert len(set(picked)) == SAMPLED and picked[0] == 0 and picked[-1] > 0.99 * 10**6


def identify(rows: datasets.Dataset) -> Identity:
    return identify_dataset(rows, "row {}".format, lambda row: (rows[row]["image"], rows[row]["label"]), {})


def test_rows_are_told_apart_by_content_wherever_they_lie(tmp_path):
    content = {"image": [b"one", b"two"], "label": [0, 1]}
    memory = datasets.Dataset.from_dict(content)
    assert identify(memory).describe_change(identify(datasets.Dataset.from_dict(content))) is None
    other = datasets.Dataset.from_dict({**content, "image": [b"one", b"owt"]})
    assert identify(memory).describe_change(identify(other)) == "row 1 has another content"
    relabelled = datasets.Dataset.from_dict({**content, "label": [1, 1]})
    assert identify(memory).describe_change(identify(relabelled)) == "row 0 has another content"
    memory.to_parquet(tmp_path / "x.parquet")

    def load() -> Identity:
        files = str(tmp_path / "x.parquet")
        return identify(
            datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "c"))
        )

    before = load()
    os.utime(tmp_path / "x.parquet", ns=(5, 5))
    assert before.describe_change(load()) is None and before.describe_times(load()) is not None
    other.to_parquet(tmp_path / "x.parquet")
    assert before.describe_change(load()) == "row 1 has another content"


def test_inputs_that_follow_each_other_are_one(folder):
    first, second = identify_files(NAMES[:1], folder), identify_files(NAMES[1:], folder)
    both = join_identities([first, second])
    assert both.images == 3 and set(both.files) == set(NAMES) == set(both.samples)
    assert both.describe_change(join_identities([second, first])) is not None


@pytest.mark.parametrize("damaged", [{}, {"files": "x", "samples": "x"}, {"files": "eJwDAAAAAAE=", "samples": ""}])
def test_a_damaged_record_is_an_error(folder, damaged):
    with pytest.raises((ValueError, KeyError, TypeError)):
        Identity.from_json(damaged)


def test_contents_in_memory():
    before = identify_contents(["a", "b"], [b"1", b"2"].__getitem__)
    assert before.describe_change(identify_contents(["a", "b"], [b"1", b"2"].__getitem__)) is None
    assert before.describe_change(identify_contents(["a", "b"], [b"1", b"3"].__getitem__)) == "b has another content"
    assert before.describe_change(identify_contents(["a"], [b"1"].__getitem__)) == "2 images are 1"
