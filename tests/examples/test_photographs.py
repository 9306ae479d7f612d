# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests the demo's photographs: disjoint areas, true labels, the same bytes each time, readable by `datasets`."""

import re

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from PIL import Image

import examples.photographs as photographs
from modeling_esvit.storage.manifest import list_names


PATCHES = {"train_per_photograph": 4, "test_per_photograph": 3, "patch_size": 64}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "photographs"
    photographs.write_photographs(out, shards=2, **PATCHES)
    data = load_dataset(str(out), cache_dir=str(tmp_path_factory.mktemp("cache")))
    return out, data


def corner(path: str) -> tuple[str, int, int]:
    name, x, y = re.fullmatch(r"(\w+)-x(\d+)-y(\d+)\.png", path).groups()
    return name, int(x), int(y)


def test_patches_are_what_their_labels_and_names_say(splits):
    out, data = splits
    assert list_names(out) == [f"{split}-{i:05d}-of-00002.parquet" for split in ("test", "train") for i in range(2)]
    originals = {name: np.asarray(image) for name, image in photographs.load_photographs()}
    for split, count in (("train", 4), ("test", 3)):
        names = data[split].features["label"].names
        assert np.bincount(data[split]["label"]).tolist() == [count] * len(originals) == [count] * len(names)
        encoded = data[split].cast_column("image", photographs.Image(decode=False))
        for row, stored in zip(data[split], encoded, strict=True):
            name, x, y = corner(stored["image"]["path"])
            assert name == names[row["label"]]
            assert np.array_equal(np.asarray(row["image"]), originals[name][y : y + 64, x : x + 64])


def test_neighbouring_rows_are_of_different_photographs(splits):
    labels = np.array(splits[1]["train"]["label"])
    assert (labels[1:] == labels[:-1]).mean() < 0.2


@pytest.mark.parametrize("size", [(400, 191), (300, 512), (256, 256)])
def test_training_and_test_areas_are_apart(size):
    areas = photographs.divide(size, gap=16, train_share=0.6)
    seen = {}
    for split, area in areas.items():
        used = np.zeros(size, dtype=bool)
        squares = photographs.draw_patches(area, 64, 300, np.random.default_rng(0))
        assert len(set(squares)) == 300
        for left, upper, right, lower in squares:
            assert (right - left, lower - upper) == (64, 64) and left >= 0 and upper >= 0
            assert right <= size[0] and lower <= size[1]
            used[left:right, upper:lower] = True
        seen[split] = used
    train, test = (np.argwhere(seen[split])[:, int(size[0] < size[1])] for split in ("train", "test"))
    assert test.min() - train.max() - 1 >= 16
    assert test.min() - train.max() - 1 < 32  # and little more is given away


def test_same_arguments_give_the_same_bytes(splits, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    photographs.write_photographs(again, shards=2, **PATCHES)
    photographs.write_photographs(other, shards=2, seed=1, **PATCHES)
    for file in splits[0].iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes()
        assert (other / file.name).read_bytes() != file.read_bytes()


def test_nothing_is_left_behind_by_a_refusal(tmp_path):
    with pytest.raises(photographs.PhotographTooSmallError, match="train patches of the photograph 'text'"):
        photographs.write_photographs(tmp_path / "out", shards=1, **PATCHES | {"patch_size": 180})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(photographs.DivisionError, match="-1"):
        photographs.write_photographs(tmp_path / "out", shards=1, gap=-1, **PATCHES)
    (tmp_path / "out").mkdir()
    with pytest.raises(photographs.OutputExistsError):
        photographs.write_photographs(tmp_path / "out", shards=1, **PATCHES)


def test_measure_baselines_see_what_they_are_named_after():
    """Compares two classes of one mean colour and different patterns, and a third of another colour."""
    rng = np.random.default_rng(0)
    stripes = np.repeat(np.tile([0, 200], 16)[None], 32, axis=0)
    patterns = [stripes, stripes.T, np.full((32, 32), 180)]

    def patches(count: int) -> Dataset:
        noisy = [p[..., None] + rng.integers(0, 20, (32, 32, 3)) for p in patterns for _ in range(count)]
        columns = {"image": [Image.fromarray(p.astype(np.uint8)) for p in noisy], "label": np.repeat(range(3), count)}
        return Dataset.from_dict(columns, features=photographs.FEATURES)

    accuracy = photographs.measure_baselines(patches(10), patches(10), k=5)
    assert accuracy["raw_pixels"] == 1.0
    assert 1 / 3 < accuracy["mean_colour"] < 0.95


def test_mean_colour_tells_greys_apart():
    grey = torch.tensor([0.2, 0.5, 0.8]).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    similarity = torch.nn.functional.normalize(photographs.mean_colour(grey), dim=1)
    similarity = similarity @ similarity.T
    assert similarity[0, 2] < similarity[0, 1] < 0.95
