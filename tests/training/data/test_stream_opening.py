# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens streams: columns of parquet files, members of tar files, and what is refused at once."""

import io
import itertools
import json
import tarfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_esvit.images.data_errors import DataOptionError, EmptySourceError
from modeling_esvit.images.decoding import UnreadableImageError, decode
from tests.helpers.shard_server import picture, serve, write_parquet, write_tar
from training.data.shard_files import ShardError
from training.data.shard_stream import StreamOptions
from training.data.sources import FolderSource, open_source
from training.data.stream_opening import open_stream


def test_tar_files_stream_without_being_told(tmp_path):
    write_tar(tmp_path, [4])
    assert [len(open_source(data)) for data in (tmp_path, f"{tmp_path}/*.tar")] == [4, 4]


def test_an_archive_beside_images_is_left_alone(tmp_path):
    write_tar(tmp_path, [4])
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "x.png").write_bytes(picture(0))
    assert isinstance(open_source(tmp_path), FolderSource)
    with pytest.raises(DataOptionError, match="streaming does not apply"):
        open_source(tmp_path, streaming=True)


def write_members(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return [str(path)]


def test_members_of_a_tar_sample(tmp_path):
    stem = "a" * 150  # longer than a plain tar header holds
    two = {f"d.x/{stem}.left.png": picture(0), f"d.x/{stem}.right.png": picture(1), f"d.x/{stem}.json": b"{}"}
    both = open_stream(write_members(tmp_path / "a.tar", two))
    assert [record.image for record in both.rows(0, 2)] == [picture(0), picture(1)]
    source = open_stream([str(tmp_path / "a.tar")], image_column="right.png")
    assert not source.has_labels
    record = next(source.rank_items(0, 0, 0, 1, 0))
    assert record.image == picture(1) and record.label is None and f"{stem}.right.png" in record.name
    with pytest.raises(DataOptionError, match="no sample has a label 'cls'"):
        open_stream(write_members(tmp_path / "b.tar", {"a.jpg": b"x"}), label_column="cls")
    with pytest.raises(EmptySourceError, match="b.tar"):
        open_stream(write_members(tmp_path / "b.tar", {}))


def test_odd_members_of_a_tar(tmp_path):
    """Upper case, a mask beside the image, what macOS adds, a path with dots, an empty image."""
    members = {
        "./v1.0/a.JPG": picture(0),
        "./v1.0/._a.JPG": b"macOS",
        "./v1.0/a.CLS": b"3\n",
        "./v1.0/a.seg.png": picture(9),
        ".DS_Store": b"",
        "./v1.0/b.jpg": b"",
        "./v1.0/b.cls": b"4",
    }
    source = open_stream(write_members(tmp_path / "a.tar", members))
    records = list(itertools.islice(source.rank_items(0, 0, 0, 2, 0), 2))
    assert {record.label: record.image for record in records} == {3: picture(0), 4: b""}
    with pytest.raises(UnreadableImageError, match="b.jpg"):
        decode(next(record for record in records if record.label == 4))
    assert len(open_stream([str(tmp_path / "a.tar")], image_column="JPG", label_column="CLS")) == 2
    assert not open_stream(write_members(tmp_path / "b.tar", {"c.jpg": b"x", "c.cls": b""})).has_labels


def test_compressed_tars_are_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(DataOptionError, match="compressed tar file cannot be read in parts.*Decompress"):
        open_source(f"{tmp_path}/*.tar.gz")
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(ShardError, match="a.tar is not a whole, uncompressed tar file"):
        open_stream([str(tmp_path / "a.tar")])


def test_columns_without_the_features_of_datasets(tmp_path):
    images = pa.array([{"bytes": picture(0), "path": "0.png"}])
    pq.write_table(pa.table({"image": images, "label": [7], "many": [[b"a", b"b"]]}), tmp_path / "a.parquet")
    source = open_stream([str(tmp_path / "a.parquet")])
    record = next(source.rank_items(0, 0, 0, 1, 0))
    assert record.image == picture(0) and record.label == 7 and "0.png" in record.name
    with pytest.raises(DataOptionError, match="image_column 'many' holds .*each row must hold one Image"):
        open_stream([str(tmp_path / "a.parquet")], image_column="many")
    (tmp_path / "0.png").write_bytes(picture(0))
    pq.write_table(pa.table({"file": [str(tmp_path / "0.png")]}), tmp_path / "b.parquet")
    record = next(open_stream([str(tmp_path / "b.parquet")], image_column="file").rank_items(0, 0, 0, 1, 0))
    assert decode(record).size == (12, 12)


def test_a_column_of_plain_bytes_is_taken_by_its_name(tmp_path):
    datasets.Dataset.from_dict({"jpg": [picture(i) for i in range(3)], "n": [4, 5, 6]}).to_parquet(
        tmp_path / "a.parquet"
    )
    source = open_stream([str(tmp_path / "a.parquet")], image_column="jpg", label_column="n")
    records = list(itertools.islice(source.rank_items(0, 0, 0, 3, 0), 3))
    assert {record.label: record.image for record in records} == {4 + i: picture(i) for i in range(3)}
    with pytest.raises(DataOptionError, match="image_column must be one of"):
        open_stream([str(tmp_path / "a.parquet")])
    [other] = write_parquet(tmp_path, [2])
    with pytest.raises(ShardError, match="train-00000.parquet has no column 'jpg', as other shards have"):
        open_stream([str(tmp_path / "a.parquet"), other], image_column="jpg")


def test_the_index_of_tars_is_kept_where_asked(tmp_path):
    paths = write_tar(tmp_path, [3, 2])
    with serve(tmp_path) as server:
        urls = [server.url(path.rsplit("/")[-1]) for path in paths]
        open_stream(urls, StreamOptions(index_dir=tmp_path / "index"))
        first = sum(server.sent.values())
        source = open_stream(urls, StreamOptions(index_dir=tmp_path / "index"))
        assert first > 0 and sum(server.sent.values()) == first + 2  # a byte of each, to find its size
    files = sorted((tmp_path / "index").glob("train*"))
    assert [len(json.loads(file.read_text())["samples"]) for file in files] == [3, 2] and len(source) == 5


def test_what_will_not_pass_is_raised_at_once(tmp_path):
    with serve(tmp_path) as server, pytest.raises(ShardError, match=r"missing.parquet.*404|missing.parquet: FileNot"):
        open_stream([server.url("missing.parquet")], StreamOptions(retry_seconds=100))
    with pytest.raises(ShardError, match="missing.tar"):
        open_stream([str(tmp_path / "missing.tar")])


def test_a_tar_that_was_cut_off_is_refused_wherever(tmp_path):
    [path] = write_tar(tmp_path, [4])
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    content = open(path, "rb").read()
    cuts = {0, 100, 512, 700}
    for member in members[1:]:
        cuts |= {member.offset, member.offset + 100, member.offset_data, member.offset_data + 1}
    for size in sorted(cuts):
        (tmp_path / "cut.tar").write_bytes(content[:size])
        with pytest.raises(ShardError, match="cut.tar .*(not a whole|no end mark)"):
            open_stream([str(tmp_path / "cut.tar")])
    (tmp_path / "cut.tar").write_bytes(content[: members[6].offset])  # where a reader takes it for whole
    with serve(tmp_path) as server, pytest.raises(ShardError, match="cut.tar has no end mark after 6 members"):
        open_stream([server.url("cut.tar")])
    damaged = bytearray(content)
    damaged[members[6].offset + 20] ^= 255  # the header of a member in the middle: its sum is wrong
    (tmp_path / "cut.tar").write_bytes(damaged)
    with pytest.raises(ShardError, match="no end mark after 6 members"):
        open_stream([str(tmp_path / "cut.tar")])
