# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests the collages: scenes as labels, pixels of their own photographs, the same bytes each time, and a picture."""

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

import examples.collages as collages
from examples.photographs import OutputExistsError, load_photographs


LOOKS = collages.CollageOptions(size=48, scenes=3, leaves=20, smallest=6, largest=16)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "collages"
    collages.write_collages(out, train=8, test=4, options=LOOKS)
    return out, load_dataset(str(out), cache_dir=str(tmp_path_factory.mktemp("cache")))


def test_splits_labels_and_picture(written):
    out, data = written
    assert len(list(out.glob("*.parquet"))) == 4 and [*out.parent.glob("*.png")] == [out.with_name("collages.png")]
    known = {name for name, _ in load_photographs()}
    for split, count in (("train", 8), ("test", 4)):
        assert data[split]["label"] == [number % 3 for number in range(count)]
        assert {image.size for image in data[split]["image"]} == {(48, 48)}
    for name in data["train"].features["label"].names:
        scene = name.split(" ", 1)[1].split("+")
        assert len(set(scene)) == 3 and set(scene) <= known
    with Image.open(out.with_name("collages.png")) as picture:
        assert min(picture.size) > 300


def test_a_scene_has_the_colours_of_its_photographs_alone():
    """Photographs of one colour each: a collage shows no others, and all leaves of it are seen."""
    plain = [np.full((100, 120, 3), level, np.uint8) for level in ((200, 0, 0), (0, 200, 0))]
    collage = collages.make_collage(plain, LOOKS, np.random.default_rng(0))
    red, green, blue = (collage[..., channel].astype(int) for channel in range(3))
    assert (blue <= 20).all() and (np.abs(red - green) >= 100).all()
    assert 0.1 < (red > green).mean() < 0.9


def test_the_same_seed_gives_the_same_collages(written):
    def pixels(seed: int) -> list[np.ndarray]:
        return [np.asarray(image) for image in collages.make_split("test", 4, LOOKS, seed)["image"]]

    first, again, other = pixels(0), pixels(0), pixels(1)
    assert all(map(np.array_equal, first, again)) and not any(map(np.array_equal, first, other))
    assert all(map(np.array_equal, first, (np.asarray(image) for image in written[1]["test"]["image"])))


def test_splits_have_leaves_of_different_parts():
    for training, test, (_, photograph) in zip(
        collages.cut_areas("train"), collages.cut_areas("test"), load_photographs(), strict=True
    ):
        axis = int(photograph.width >= photograph.height)
        assert training.shape[axis] + test.shape[axis] + collages.GAP == max(photograph.size)


@pytest.mark.parametrize(
    "words, message",
    [
        ("--smallest 30", "leaves from 30 to 22 pixels: give two sizes between 2 and the side of a collage, 80"),
        ("--photographs 99", "a scene of 99 photographs: there are 19 in all"),
    ],
)
def test_collages_that_cannot_be(tmp_path, words, message):
    with pytest.raises(collages.CollageError, match=message):
        collages.main([str(tmp_path / "out"), "--train", "1", "--test", "1", *words.split()])
    assert not (tmp_path / "out").exists()
    with pytest.raises(OutputExistsError):
        collages.main([str(tmp_path), "--train", "1", "--test", "1"])
