# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Copies of shards on disk: made once, whole, by whoever needs them first, and never mistaken for another version."""

import multiprocessing
import resource

import pytest

from modeling_esvit.images.data_errors import DataOptionError
from tests.helpers.shard_server import picture, serve
from tests.helpers.streams import WRITE, list_labels, load_batches
from tests.helpers.waiting import no_thread_reads_ahead, wait_for
from training.data.shard_cache import CacheError
from training.data.shard_files import ShardError
from training.data.shard_stream import StreamOptions
from training.data.sources import open_source
from training.data.stream_opening import open_stream


@pytest.fixture(params=["parquet", "tar"])
def kind(request):
    return request.param


@pytest.fixture
def server(kind, tmp_path):
    (tmp_path / "shards").mkdir()
    WRITE[kind](tmp_path / "shards", [9, 8, 7], size=40)
    with serve(tmp_path / "shards") as server:
        yield server


def urls(server):
    return [server.url(path.name) for path in sorted(server.folder.iterdir())]


def copies(folder):
    return sorted(path for path in folder.iterdir() if path.suffix not in (".lock", ".json"))


def test_a_damaged_copy_is_fetched_anew(server, tmp_path, caplog):
    options = StreamOptions(shuffle_window=5, cache=tmp_path / "cache")
    whole = list_labels(load_batches(open_stream(urls(server), options)))
    damaged = copies(tmp_path / "cache")[0]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    server.sent.clear()
    source = open_stream(urls(server), options)
    server.sent.clear()
    assert list_labels(load_batches(source)) == whole and server.sent.total() == len(content)
    assert damaged.read_bytes() == content and f"anew: {damaged.name} is not as it was written" in caplog.text


def test_bytes_come_once_and_are_the_same(server, tmp_path):
    without = list_labels(load_batches(open_stream(urls(server), StreamOptions(shuffle_window=5)), num_epochs=2))
    source = open_stream(urls(server), StreamOptions(shuffle_window=5, cache=tmp_path / "cache"))
    server.sent.clear()
    assert list_labels(load_batches(source, num_epochs=2)) == without
    assert [server.sent[path.name] for path in sorted(server.folder.iterdir())] == [
        path.stat().st_size for path in sorted(server.folder.iterdir())
    ]
    stored = {path.name.partition("-")[2]: path.read_bytes() for path in copies(tmp_path / "cache")}
    assert stored == {path.name: path.read_bytes() for path in server.folder.iterdir()}
    again = open_stream(urls(server), StreamOptions(shuffle_window=5, cache=tmp_path / "cache"))
    server.sent.clear()
    assert list_labels(load_batches(again, num_epochs=2, num_workers=2)) == without and not server.sent


def test_processes_share_it(server, tmp_path):
    """Both need parts of the same shards, at the same time; each shard is sent once."""
    source = open_stream(urls(server), StreamOptions(cache=tmp_path / "cache"))
    server.sent.clear()
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def read(rank):
        results.put(list_labels(load_batches(source, batch_size=2, rank=rank, world_size=2)))

    processes = [context.Process(target=read, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    assert sorted(results.get() + results.get()) == list(range(24))
    for process in processes:
        process.join()
    assert sum(server.sent.values()) == sum(path.stat().st_size for path in server.folder.iterdir())


def test_another_version_is_another_file(server, kind, tmp_path):
    load_batches(open_stream(urls(server), StreamOptions(cache=tmp_path / "cache")))
    WRITE[kind](server.folder, [7, 8, 9], size=40)
    source = open_stream(urls(server), StreamOptions(cache=tmp_path / "cache"))
    assert set(list_labels(load_batches(source))) == set(range(24)) and len(copies(tmp_path / "cache")) == 6
    record = next(record for record in source.rank_items(0, 0, 0, 24, 0) if record.label == 8)
    assert record.image == picture(8, 40)


def test_what_is_not_whole_is_fetched_again(server, tmp_path):
    source = open_stream(urls(server), StreamOptions(cache=tmp_path / "cache"))
    whole = list_labels(load_batches(source))
    first, *_ = copies(tmp_path / "cache")
    first.write_bytes(first.read_bytes()[:1000])
    (tmp_path / "cache" / f"{first.name}.partial").write_bytes(b"of a run that was killed")
    assert list_labels(load_batches(source)) == whole and first.stat().st_size > 1000
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_a_full_disk_is_said(server, tmp_path):
    """A limit on the size of files stands for it: writing fails in the same way."""
    source = open_stream(urls(server), StreamOptions(cache=tmp_path / "cache"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(CacheError, match=r"train-0000.*MB\) cannot be stored in the cache .*File too large.*free"):
            load_batches(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(load_batches(source)) == 6 and not list((tmp_path / "cache").glob("*.partial"))


def test_a_folder_that_cannot_be_written_to_is_said(server, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CacheError, match="File exists"):
        load_batches(open_stream(urls(server), StreamOptions(cache=tmp_path / "cache")))


def test_a_fault_while_fetching_leaves_no_copy(server, tmp_path):
    source = open_stream(urls(server), StreamOptions(cache=tmp_path / "cache", retry_seconds=0.1))
    server.faults = ["503"] * 100
    with pytest.raises(ShardError, match="tried for 0.1 s"):
        load_batches(source)
    # Other threads, of which each is about to fetch, or does, or has ceased to, meet the same.
    wait_for(no_thread_reads_ahead, seconds=300)
    assert copies(tmp_path / "cache") == []


def test_local_shards_are_not_copied(server, tmp_path):
    source = open_stream(sorted(map(str, server.folder.iterdir())), StreamOptions(cache=tmp_path / "cache"))
    assert len(load_batches(source)) == 6 and not (tmp_path / "cache").exists()


def test_what_is_read_in_place_has_no_cache(tmp_path):
    (tmp_path / "x.png").write_bytes(picture(0))
    with pytest.raises(DataOptionError, match="cache applies to streams"):
        open_source(tmp_path, stream=StreamOptions(cache=tmp_path / "cache"))
