# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""A stream of shards: every sample once an epoch, on any number of processes, after any stop, through any fault."""

import gc
import itertools
import multiprocessing
import os
import threading

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from modeling_esvit.images.data_errors import DataOptionError
from tests.helpers.shard_server import picture, serve, write_parquet
from tests.helpers.streams import OPTIONS, WRITE, list_labels, load_batches
from tests.helpers.waiting import no_thread_reads_ahead, wait_for
from training.data.batch_order import BatchOrder
from training.data.loader import make_loader
from training.data.shard_files import ShardError
from training.data.shard_stream import RowSpan, StreamOptions, cut, find_block_bounds, order_shards
from training.data.sources import open_source
from training.data.stream_opening import open_stream


SOURCES = ("folder", "parquet", "tar")
LENGTHS = {"divisible": [12] * 6, "uneven": [7, 31, 1, 13, 18]}


@pytest.fixture(params=["parquet", "tar"])
def kind(request):
    return request.param


def write_folder(folder, lengths):
    """One image a class, so that its label is its number."""
    for number in range(sum(lengths)):
        (folder / f"{number:04d}").mkdir()
        (folder / f"{number:04d}" / "x.png").write_bytes(picture(number))


# -- samples -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("data", SOURCES)
def test_each_sample_comes_once_but_for_the_rest(data, lengths, world_size, num_workers, tmp_path):
    total, steps = sum(LENGTHS[lengths]), sum(LENGTHS[lengths]) // (4 * world_size)
    {**WRITE, "folder": write_folder}[data](tmp_path, LENGTHS[lengths])
    source = open_source(tmp_path, streaming=data != "folder", stream=StreamOptions(shuffle_window=10))
    ranks = [{"rank": rank, "world_size": world_size, "num_workers": num_workers} for rank in range(world_size)]
    rests, orders = [], []
    for epoch in (0, 1):
        whole = [load_batches(source, epoch=epoch, **rank) for rank in ranks]
        seen = [label for part in whole for label in list_labels(part)]
        assert len(seen) == len(set(seen)) == steps * 4 * world_size and set(seen) <= set(range(total))
        assert total - len(seen) < 4 * world_size
        rests.append(set(range(total)) - set(seen))
        orders.append(seen)
        positions = [int(position) for part in whole for batch in part for position in batch.positions]
        assert sorted(positions) == list(range(len(seen)))
        resumed = [load_batches(source, epoch=epoch, start_batch=2, **rank) for rank in ranks]
        assert [list_labels(part) for part in resumed] == [list_labels(part)[8:] for part in whole]
    assert orders[0] != orders[1] and (rests[0] != rests[1] or rests == [set(), set()])


def test_workers_and_stops_change_no_byte(kind, tmp_path):
    source = open_stream(WRITE[kind](tmp_path, LENGTHS["uneven"]), StreamOptions(shuffle_window=10))
    alone = load_batches(source, num_epochs=2, rank=1, world_size=2)
    for number, start in ((1, 0), (4, 0), (2, 5), (0, 7)):
        loaded = load_batches(source, num_epochs=2, rank=1, world_size=2, num_workers=number, start_batch=start)
        assert len(loaded) == len(alone) - start
        for a, b in zip(loaded, alone[start:], strict=True):
            assert torch.equal(a.positions, b.positions) and torch.equal(a.labels, b.labels)
            assert all(torch.equal(x, y) for x, y in zip(a.groups, b.groups, strict=True))


def test_the_next_epoch_is_read_while_this_one_ends(kind, tmp_path):
    """With one epoch to come, more is read; and where an epoch ends or begins changes no item."""
    paths = WRITE[kind](tmp_path, [8, 8, 8], size=60)
    with serve(tmp_path) as server:
        source = open_stream([server.url(path.rsplit("/")[-1]) for path in paths], StreamOptions(shuffle_window=8))

        def read(epochs):
            server.sent.clear()
            return list(itertools.islice(next(epochs), 24))

        alone = read(source.rank_epochs(0, range(1), 0, 24, 0))
        wait_for(no_thread_reads_ahead, seconds=300)  # nothing more would come
        more_than_alone = sum(server.sent.values()) + 6 * len(alone[0].image)
        items = read(epochs := source.rank_epochs(0, range(2), 0, 24, 0))
        assert items == alone
        wait_for(lambda: sum(server.sent.values()) > more_than_alone, seconds=300)
        following = list(itertools.islice(next(epochs), 24))
        assert following == list(itertools.islice(source.rank_items(0, 1, 0, 24, 0), 24))


def test_an_epoch_that_is_not_read_to_its_end_shifts_no_other(kind, tmp_path):
    source = open_stream(WRITE[kind](tmp_path, [9, 8, 7]), StreamOptions(shuffle_window=5))
    epochs = source.rank_epochs(3, range(2), 0, 24, 24)
    next(next(epochs))
    assert list(itertools.islice(next(epochs), 24)) == list(itertools.islice(source.rank_items(3, 1, 0, 24, 0), 24))


def test_the_order_inside_a_block_changes_with_the_epoch(tmp_path):
    """Beside the order of the shards and the row that an epoch begins with, which is taken out here."""
    source = open_stream(write_parquet(tmp_path, [24]), StreamOptions(shuffle_window=12))
    orders = []
    for epoch in range(4):
        rows = [row for run in order_shards([24], 3, epoch) for row in range(run.start, run.stop)]
        shown = [record.label for record in itertools.islice(source.rank_items(3, epoch, 0, 24, 0), 24)]
        orders.append([rows.index(label) for label in shown])
    assert all(sorted(order[:12]) == list(range(12)) and sorted(order) == list(range(24)) for order in orders)
    firsts, seconds = [order[:12] for order in orders], [order[12:] for order in orders]
    for blocks in (firsts, seconds):
        assert len(set(map(tuple, blocks))) == 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_epochs_leave_no_thread_process_or_file_behind(kind, num_workers, tmp_path):
    source = open_stream(WRITE[kind](tmp_path, [9, 8, 7]), StreamOptions(shuffle_window=5))

    def open_things():
        gc.collect()
        return threading.active_count(), len(multiprocessing.active_children()), len(os.listdir("/proc/self/fd"))

    load_batches(source, num_epochs=2, num_workers=num_workers)
    before = open_things()
    for _ in range(3):
        load_batches(source, num_epochs=2, num_workers=num_workers)
        next(source.rank_items(0, 0, 0, 24, 0))  # and no more of it

    # Fewer than before are possible: threads of the first time that were about to end.
    def none_more():
        return all(now <= then for now, then in zip(open_things(), before, strict=True))

    wait_for(none_more, seconds=300)


def test_a_record_is_the_row_that_its_label_says(kind, tmp_path):
    source = open_stream(WRITE[kind](tmp_path, [7, 5]), StreamOptions(shuffle_window=4))
    records = list(itertools.islice(source.rank_items(0, 0, rank=0, count=12, start=0), 12))
    assert {record.label: record.image for record in records} == {number: picture(number) for number in range(12)}
    assert len({record.identity() for record in records}) == 12
    assert all(record.name.startswith("train-0000") and f"{record.label}.png" in record.name for record in records)


def test_samples_per_epoch_shows_all_in_the_long_run(tmp_path):
    paths = write_parquet(tmp_path, [10, 10])
    source = open_stream(paths, StreamOptions(samples_per_epoch=9, shuffle_window=4))
    epochs = [list_labels(load_batches(source, epoch=epoch)) for epoch in range(20)]
    assert all(len(set(epoch)) == 8 for epoch in epochs) and set().union(*epochs) == set(range(20))
    for number in (21, 0, -3):
        with pytest.raises(DataOptionError, match=f"samples_per_epoch is {number}, but the shards have 20"):
            open_stream(paths, StreamOptions(samples_per_epoch=number))


def test_unreadable_images_are_replaced_from_the_same_block(tmp_path):
    """The last image of all, and half of the others, are cut off: every slot has an image, also after a stop."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    images = [{"bytes": picture(i)[: 40 if i % 2 else None], "path": f"{i}.png"} for i in range(24)]
    data = datasets.Dataset.from_dict({"image": images, "label": list(range(24))}, features=features)
    data.to_parquet(tmp_path / "a.parquet")
    source = open_stream([str(tmp_path / "a.parquet")], StreamOptions(shuffle_window=8))
    whole = load_batches(source)
    assert len(whole) == 6 and all(label % 2 == 0 for label in list_labels(whole))
    assert len(set().union(*[batch.skipped for batch in whole])) == 12
    assert list_labels(load_batches(source, start_batch=4)) == list_labels(whole)[16:]


# -- order -------------------------------------------------------------------------------------------------------------


def test_the_order_of_an_epoch_is_a_circle_of_all_rows():
    lengths = [5, 1, 9]
    for epoch in range(20):
        runs = order_shards(lengths, seed=3, epoch=epoch)
        rows = [(run.shard, row) for run in runs for row in range(run.start, run.stop)]
        assert sorted(rows) == [(shard, row) for shard in range(3) for row in range(lengths[shard])]
        assert runs == order_shards(lengths, seed=3, epoch=epoch)
    assert len({tuple(order_shards(lengths, 3, epoch)) for epoch in range(20)}) > 10


def test_cut():
    runs = [RowSpan(2, 0, 5), RowSpan(0, 3, 4), RowSpan(1, 0, 9)]
    assert cut(runs, 3, 4) == [RowSpan(2, 3, 5), RowSpan(0, 3, 4), RowSpan(1, 0, 1)]
    assert cut(runs, 5, 1) == [RowSpan(0, 3, 4)] and cut(runs, 0, 15) == runs and cut(runs, 4, 0) == []


@pytest.mark.parametrize("count, window, bounds", [(10, 4, [0, 3, 6, 10]), (8, 4, [0, 4, 8]), (3, 9, [0, 3])])
def test_blocks_are_equal_and_no_larger_than_the_window(count, window, bounds):
    assert find_block_bounds(count, window) == bounds


def test_a_block_is_shuffled_within_itself(tmp_path):
    source = open_stream(write_parquet(tmp_path, [40]), StreamOptions(shuffle_window=10))
    seen = [record.label for record in itertools.islice(source.rank_items(0, 0, 0, 40, 0), 40)]
    for block in np.split(np.array(seen), 4):
        circle = np.sort((block - block.min()) if block.max() - block.min() < 20 else (block + 20) % 40)
        assert circle.max() - circle.min() == 9 and list(block) != sorted(block)


def test_the_arithmetic_is_told(tmp_path):
    source = open_stream(write_parquet(tmp_path, [7, 31]), StreamOptions(shuffle_window=10))
    groups = [pq.read_metadata(shard.file.url).row_group(0) for shard in source.shards]
    largest = round(max(group.total_byte_size for group in groups) / 1e6, 1)
    assert source.describe(per_process=16, processes=2).splitlines() == [
        "stream           = 38 images in 2 shards, 14 row groups; an epoch has 38",
        "images a process = 16: process r has rows r x 16 .. of the shards in the epoch's order, 10 at most (2 blocks) "
        "shuffled at a time",
        "left out         = 38 - 2 processes x 16 = 6 images, others each epoch",
        f"held             = up to 4 row groups of {largest} MB that are read, and up to 2 x 10 images a process",
    ]


# -- what is read ------------------------------------------------------------------------------------------------------


def test_a_process_reads_its_part_alone(kind, tmp_path):
    """Of 8 shards of 8 large images, each of 4 processes reads a quarter, up to the row groups at both ends."""
    paths = WRITE[kind](tmp_path, [8] * 8, size=60)
    image = len(picture(0, 60))
    with serve(tmp_path) as server:
        source = open_stream([server.url(path.rsplit("/")[-1]) for path in paths], StreamOptions(shuffle_window=8))
        touched = []
        for rank in range(4):
            server.sent.clear()
            load_batches(source, batch_size=4, rank=rank, world_size=4)
            spare = 3 * 3 if kind == "parquet" else 1  # in thirds of row groups of 3; the turn adds one end
            assert 16 * image < sum(server.sent.values()) < (16 + spare) * image + 16 * 4096
            touched.append(set(server.sent))
        assert all(2 <= len(names) <= 4 for names in touched)


def test_resuming_reads_no_more_than_a_block_again(tmp_path):
    paths = write_parquet(tmp_path, [16] * 4, size=60)
    with serve(tmp_path) as server:
        source = open_stream([server.url(path.rsplit("/")[-1]) for path in paths], StreamOptions(shuffle_window=16))
        server.sent.clear()
        load_batches(source, start_batch=14)  # of 16
        assert sum(server.sent.values()) < (16 + 4) * (len(picture(0, 60)) + 1000)


def test_a_column_that_is_not_needed_is_not_read(tmp_path):
    images = [{"bytes": picture(i), "path": None} for i in range(8)]
    data = datasets.Dataset.from_dict({"other": [bytes(100_000)] * 8, "image": images}).cast_column(
        "image", datasets.Image()
    )
    data = data.map(lambda row, i: {"other": np.random.default_rng(i).bytes(100_000)}, with_indices=True)
    data.to_parquet(tmp_path / "a.parquet")
    with serve(tmp_path) as server:
        source = open_stream([server.url("a.parquet")])
        server.sent.clear()
        records = list(itertools.islice(source.rank_items(0, 0, 0, 8, 0), 8))
        assert {record.image for record in records} == {picture(i) for i in range(8)}
        assert sum(server.sent.values()) < 50_000


def test_more_processes_than_row_groups_are_refused(tmp_path):
    source = open_stream(write_parquet(tmp_path, [40], group=20))
    with pytest.raises(DataOptionError, match="1 shards have 2 row groups in all, for 3 processes.*smaller row groups"):
        make_loader(source, OPTIONS, BatchOrder(seed=0, batch_size=1, world_size=3))


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("training.data.shard_files.FIRST_DELAY", 0.02)
    monkeypatch.setattr("training.data.shard_files.LAST_DELAY", 0.2)  # one request may meet all the faults


@pytest.fixture
def impatient(monkeypatch):
    """Ends a request that stalls soon; on a busy machine also others, which must then be tried again."""
    monkeypatch.setattr("training.data.http_ranges.STALL_SECONDS", 0.3)


FAULTS = ["drop", "reset", "stall", "short", "broken", "503"]


def test_faults_neither_lose_nor_repeat_a_sample(kind, tmp_path, quick, impatient, caplog):
    paths = WRITE[kind](tmp_path, [9, 8, 7])
    without = list_labels(load_batches(open_stream(paths, StreamOptions(shuffle_window=5)), num_epochs=2))
    with serve(tmp_path) as server:
        urls = [server.url(path.rsplit("/")[-1]) for path in paths]
        server.faults = [*FAULTS, *FAULTS]
        source = open_stream(urls, StreamOptions(shuffle_window=5, retry_seconds=300))
        server.faults += ["429", *FAULTS, "", *FAULTS]
        loaded = list_labels(load_batches(source, num_epochs=2))
        assert not server.faults
    assert len(loaded) == 48 and {*loaded[:24]} == {*loaded[24:]} == set(range(24))
    assert loaded == without
    assert any("train-00001" in message and "trying again in" in message for message in caplog.messages)
    assert any("Timeout" in message for message in caplog.messages)
    assert any("429" in message and "in 1.0 s" in message for message in caplog.messages)


@pytest.mark.parametrize("fault", ["503", "reset", "short"])
def test_a_fault_that_lasts_is_an_error_with_the_name_of_the_shard(kind, tmp_path, quick, fault):
    WRITE[kind](tmp_path, [24])
    with serve(tmp_path) as server:
        source = open_stream([server.url(f"train-00000.{kind}")], StreamOptions(retry_seconds=0.2))
        server.faults = [fault] * 1000
        with pytest.raises(ShardError, match=rf"train-00000.{kind}: .*tried for 0.2 s, see stream_retry_seconds"):
            load_batches(source)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("remote", [False, True])
def test_a_shard_that_changed_is_an_error_and_not_an_end(kind, tmp_path, num_workers, remote):
    """Between two epochs: it is cut off at the end of a member, or replaced by one of the same size."""
    path, _ = WRITE[kind](tmp_path, [24, 24])
    content = open(path, "rb").read()
    for other in (content[:2048], content[:2048] + bytes(len(content) - 2048)):
        with serve(tmp_path) as server:
            name = server.url(f"train-00000.{kind}") if remote else path
            source = open_stream([name])
            assert len(load_batches(source, num_workers=num_workers)) == 6
            with open(path, "wb") as file:
                file.write(other)
            with pytest.raises(ShardError, match=f"train-00000.{kind} was changed since it was opened"):
                load_batches(source, epoch=1, num_workers=num_workers)
        with open(path, "wb") as file:
            file.write(content)


def test_a_server_without_versions_is_read_all_the_same(kind, tmp_path):
    """A file that is cut off is then noticed by its size."""
    [path] = WRITE[kind](tmp_path, [24])
    with serve(tmp_path) as server:
        server.tags = False
        source = open_stream([server.url(f"train-00000.{kind}")], StreamOptions(retry_seconds=0.2))
        assert len(load_batches(source)) == 6
        with open(path, "r+b") as file:
            file.truncate(2048)
        with pytest.raises(
            ShardError, match=f"train-00000.{kind} was changed since it was opened .its size is now 2048"
        ):
            load_batches(source, epoch=1)


def test_a_parquet_file_that_is_damaged_is_named(tmp_path):
    [path] = write_parquet(tmp_path, [9])
    content = bytearray(open(path, "rb").read())
    content[4:40] = bytes(36)
    open(path, "wb").write(content)
    source = open_stream([path])
    with pytest.raises(ShardError, match="train-00000.parquet is damaged in row group 0"):
        load_batches(source)
    open(path, "wb").write(content[:-5])
    with pytest.raises(ShardError, match="train-00000.parquet is not a whole parquet file"):
        open_stream([path])
