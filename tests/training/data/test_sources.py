# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What each kind of data opens as, in which order it is read, and which error a mistake gets."""

import io
import itertools
import zipfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from modeling_esvit.embed.inputs import find_images
from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError, EmptySourceError
from modeling_esvit.images.decoding import UnreadableImageError, decode
from training.data.shard_stream import ShardStream
from training.data.sources import DatasetSource, FolderSource, is_image_folder, open_source, shuffle_epoch


FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})


def picture(index):
    """A 9 x 7 image whose red value is its index."""
    return Image.new("RGB", (9, 7), (index, 0, 0))


def png(index):
    buffer = io.BytesIO()
    picture(index).save(buffer, "PNG")
    return buffer.getvalue()


def rows(number):
    return {
        "image": [{"bytes": png(i), "path": f"{i}.png"} for i in range(number)],
        "label": [i % 2 for i in range(number)],
    }


def index_of(record):
    return decode(record).getpixel((0, 0))[0]


@pytest.fixture
def dataset():
    return datasets.Dataset.from_dict(rows(20), features=FEATURES)


@pytest.fixture
def shards(dataset, tmp_path, monkeypatch):
    """Two training shards and one test shard, and a cache of their own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "shards"
    folder.mkdir()
    for index in range(2):
        dataset.shard(2, index, contiguous=True).to_parquet(folder / f"train-{index:05d}-of-00002.parquet")
    dataset.select(range(4)).to_parquet(folder / "test-00000-of-00001.parquet")
    return folder


# -- folders -----------------------------------------------------------------------------------------------------------


def save(path, index=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(index).convert("L" if path.suffix == ".gif" else "RGB").save(path)


def test_a_folder_holds_its_images_sorted_and_labelled_by_first_subfolder(tmp_path):
    names = ["b/x.jpg", "a/deep/er/y.PNG", "b/c/z.webp", "a/w.tiff", "a/é ü.gif"]
    for name in names:
        save(tmp_path / name)
    for other in ["a/notes.txt", "a/.hidden.png", ".git/h.png", "b/video.mpg"]:
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_bytes(png(0))
    source = FolderSource(tmp_path)
    records = [source.read(i) for i in range(len(source))]
    assert [record.name for record in records] == sorted(names)
    assert source.class_names == ["a", "b"] and [record.label for record in records] == [0, 0, 0, 1, 1]
    assert all(decode(record).size == (9, 7) for record in records)


def test_images_outside_of_subfolders_mean_no_labels(tmp_path):
    save(tmp_path / "a" / "x.png")
    save(tmp_path / "y.png")
    source = FolderSource(tmp_path)
    assert not source.has_labels and source.read(0).label is None and len(source) == 2


def test_links_are_followed_but_not_in_circles(tmp_path):
    save(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "data" / "class").mkdir(parents=True)
    (tmp_path / "data" / "class" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    source = FolderSource(tmp_path / "data")
    assert [source.read(i).name for i in range(len(source))] == ["class/link/x.png"]


def test_split_is_a_subfolder_of_a_folder(tmp_path):
    save(tmp_path / "val" / "cat" / "x.png")
    save(tmp_path / "train" / "cat" / "y.png")
    assert len(open_source(str(tmp_path))) == 2
    assert open_source(tmp_path, split="val").read(0).name == "cat/x.png"
    with pytest.raises(DataNotFoundError, match="test"):
        open_source(tmp_path, split="test")


# -- data sets ---------------------------------------------------------------------------------------------------------


def test_map_style_data_set(dataset):
    source = open_source(dataset)
    assert isinstance(source, DatasetSource) and source.class_names == ["even", "odd"]
    record = source.read(7)
    assert (index_of(record), record.label, record.name) == (7, 1, "row 7 (7.png)")


def test_saved_to_disk(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "one")
    assert len(open_source(str(tmp_path / "one"))) == 20
    datasets.DatasetDict(train=dataset, test=dataset.select(range(3))).save_to_disk(tmp_path / "many")
    assert [len(open_source(tmp_path / "many", split=split)) for split in (None, "test")] == [20, 3]
    with pytest.raises(DataOptionError, match="train.*test"):
        open_source(tmp_path / "many", split="val")
    with pytest.raises(DataOptionError, match="streaming"):
        open_source(tmp_path / "many", streaming=True)


def test_parquet_files_in_place_and_streamed(shards):
    for data in (shards, f"{shards}/train-*.parquet"):
        source = open_source(data)
        assert [index_of(source.read(i)) for i in range(len(source))] == list(range(20))
        stream = open_source(f"{data}", streaming=True)
        assert isinstance(stream, ShardStream) and stream.class_names == ["even", "odd"] and len(stream) == 20
        records = list(itertools.islice(stream.rank_items(0, 0, rank=0, count=20, start=0), 20))
        assert sorted(index_of(record) for record in records) == list(range(20))
    assert len(open_source(shards, split="test", streaming=True)) == 4
    assert len(open_source(shards, split="test")) == 4


@pytest.mark.parametrize("streaming", [False, True])
def test_an_unknown_split_is_an_error_that_names_the_others(shards, streaming):
    with pytest.raises(DataOptionError, match="val.*train"):
        open_source(shards, split="val", streaming=streaming)


def test_members_of_archives_are_fetched(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("3.png", png(3))
    paths = datasets.Dataset.from_dict({"image": [f"zip://3.png::{tmp_path}/images.zip"]})
    assert index_of(open_source(paths.cast_column("image", datasets.Image())).read(0)) == 3


def test_columns(dataset):
    two = dataset.add_column("width", [9] * 20).rename_column("image", "left")
    two = two.add_column("right", [png(100 + i) for i in range(20)]).cast_column("right", datasets.Image())
    with pytest.raises(
        DataOptionError, match=r"image_column must be one of.* left \(Image\), label .*, width \(int64\), right"
    ):
        open_source(two)
    source = open_source(two, image_column="right", label_column="width")
    assert index_of(source.read(3)) == 103 and source.read(3).label == 9 and source.class_names is None
    with pytest.raises(DataOptionError, match="label_column 'class' does not exist.*left .Image."):
        open_source(two, image_column="left", label_column="class")
    with pytest.raises(DataOptionError, match="label_column 'left' holds Image"):
        open_source(two, image_column="right", label_column="left")
    assert open_source(dataset.rename_column("label", "parity")).read(3).label == 1
    bare = open_source(two.select_columns(["right"]))
    assert not bare.has_labels and bare.read(0).label is None
    as_bytes = datasets.Dataset.from_dict({"png": [png(5)]})
    assert index_of(open_source(as_bytes, image_column="png").read(0)) == 5


def test_a_row_without_an_image_is_unreadable(dataset):
    source = open_source(datasets.Dataset.from_dict({**rows(1), "image": [None]}, features=FEATURES))
    with pytest.raises(UnreadableImageError, match="row 0"):
        decode(source.read(0))


def test_a_format_of_the_data_set_does_not_matter(dataset):
    assert index_of(open_source(dataset.with_transform(lambda rows: {"nothing": []})).read(2)) == 2


# -- order -------------------------------------------------------------------------------------------------------------


def test_epoch_order_is_a_permutation_keyed_by_seed_and_epoch():
    orders = {(seed, epoch): shuffle_epoch(100, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)}
    assert all(sorted(order) == list(range(100)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4
    assert orders[1, 0] == shuffle_epoch(100, 1, 0).tolist()


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_data_that_is_not_there(tmp_path):
    for missing in (tmp_path / "nothing", "photographs", str(tmp_path / "*.parquet")):
        with pytest.raises(DataNotFoundError, match="photographs|nothing|parquet"):
            open_source(missing)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(EmptySourceError, match=str(tmp_path)):
        open_source(tmp_path)
    with pytest.raises(EmptySourceError):
        open_source(datasets.Dataset.from_dict({"image": []}, features=datasets.Features({"image": datasets.Image()})))


def test_options_that_do_not_fit(tmp_path):
    with pytest.raises(DataOptionError, match="ndarray"):
        open_source(np.zeros(3))
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(
        EmptySourceError, match="only 1 .jsonl: .* read from parquet files, which `datasets` and pandas"
    ):
        open_source(tmp_path, streaming=True)
    save(tmp_path / "x.png")
    with pytest.raises(DataOptionError, match="streaming"):
        open_source(tmp_path, streaming=True)
    with pytest.raises(DataOptionError, match="revision applies to data sets of the Hub"):
        open_source(tmp_path, revision="main")
    with pytest.raises(DataOptionError, match="IterableDataset; it must be a path, a name or a Dataset"):
        open_source(datasets.Dataset.from_dict(rows(1), features=FEATURES).to_iterable_dataset())


# -- folders of both ---------------------------------------------------------------------------------------------------


def test_metadata_beside_images_are_no_images(tmp_path):
    """Folders of `datasets` pull 4069, and those in which somebody keeps features: commands agree on what they hold."""
    for index in range(2):
        (tmp_path / f"{index}.png").write_bytes(png(index))
    pq.write_table(pa.table({"file_name": ["1.png"], "caption": ["x"]}), tmp_path / "metadata.parquet")
    source, images = open_source(tmp_path), find_images([str(tmp_path)])
    assert isinstance(source, FolderSource) and len(source) == len(images) == 2
    assert source.left_out.describe() == images.left_out.describe() == "1 .parquet"
    assert is_image_folder(str(tmp_path)) and not is_image_folder(str(tmp_path), "image")
    joined = open_source(tmp_path, image_column="image", label_column="caption")  # as `datasets` joins them
    assert index_of(joined.read(0)) == 1 and len(joined) == 1 and joined.class_names == ["x"]
    assert len(find_images([str(tmp_path)], "image")) == 1


def test_pictures_beside_parquet_files_are_counted(shards):
    """A clone of a data set of the Hub, whose card has a picture."""
    (shards / "assets").mkdir()
    (shards / "assets" / "card.png").write_bytes(png(0))
    opened = [open_source(shards), open_source(shards, streaming=True), find_images([str(shards)])]
    assert [len(each) for each in opened] == [20] * 3
    assert {each.left_out.describe() for each in opened} == {
        "1 image beside the parquet files (read where rows name it)"
    }
