# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches do not depend on workers, processes or where a run begins; unreadable images are replaced and counted."""

import itertools
import os
import pickle
import signal
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_esvit.images.data_errors import DataOptionError
from tests.helpers.shard_server import write_parquet
from training.data import lost_workers
from training.data.batch_order import BatchOrder, BatchRequest
from training.data.loader import ViewsDataset, iterate, make_loader
from training.data.lost_workers import LostWorkerError, report_lost_worker
from training.data.shard_stream import StreamOptions
from training.data.sources import FolderSource, shuffle_epoch
from training.data.stream_opening import open_stream
from training.data.unreadable import TooManyUnreadableImagesError
from training.views.draw import ViewOptions


OPTIONS = ViewOptions(global_crop_size=16, local_crop_sizes=(8,), local_crops_numbers=(2,))
NUMBER = 22


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """22 pictures of two classes."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for index in range(NUMBER):
        path = root / f"class{index % 2}" / f"{index:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return root


def stream(folder):
    """22 other pictures, in three parquet files."""
    shards = folder.parent / f"{folder.name}-shards"
    if not shards.exists():
        shards.mkdir()
        write_parquet(shards, [9, 4, 9])
    return open_stream([str(path) for path in sorted(shards.iterdir())], StreamOptions(shuffle_window=6))


@pytest.fixture(params=["folder", "stream"])
def source(request, folder):
    return FolderSource(folder) if request.param == "folder" else stream(folder)


def batches(source, **options):
    loading = {name: options.pop(name) for name in ("num_workers", "augment") if name in options}
    return list(make_loader(source, OPTIONS, BatchOrder(**{"seed": 5, "batch_size": 4, **options}), **loading))


def assert_equal(left, right):
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        assert torch.equal(a.positions, b.positions) and torch.equal(a.labels, b.labels) and a.skipped == b.skipped
        assert all(torch.equal(x, y) for x, y in zip(a.groups, b.groups, strict=True))


def test_an_epoch_holds_each_image_once_in_its_order(folder):
    source = FolderSource(folder)
    loader = make_loader(source, OPTIONS, BatchOrder(seed=5, batch_size=4))
    assert len(loader) == 5
    epoch = list(loader)
    assert [tuple(group.shape) for group in epoch[0].groups] == [(8, 3, 16, 16), (8, 3, 8, 8)]
    assert torch.cat([batch.positions for batch in epoch]).tolist() == list(range(20))
    images = shuffle_epoch(NUMBER, seed=5, epoch=0)[:20]
    assert torch.cat([batch.labels for batch in epoch]).tolist() == [source.read(int(i)).label for i in images]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(source, num_workers):
    assert_equal(batches(source, num_workers=num_workers, num_epochs=2), batches(source, num_epochs=2))


def test_processes_together_hold_the_batches_of_one(folder):
    source = FolderSource(folder)
    whole = batches(source, batch_size=6)
    parts = [batches(source, batch_size=2, rank=rank, world_size=3) for rank in range(3)]
    for k, batch in enumerate(whole):
        assert torch.equal(batch.positions, torch.cat([part[k].positions for part in parts]))
        for index, group in enumerate(batch.groups):
            crops = zip(*[part[k].groups[index].split(2) for part in parts], strict=True)
            assert torch.equal(group, torch.cat([rank for crop in crops for rank in crop]))


def test_a_run_can_begin_at_any_step(source):
    whole = batches(source, num_epochs=2)
    assert_equal(batches(source, num_epochs=2, start_batch=3), whole[3:])
    assert_equal(batches(source, epoch=1), whole[5:])
    assert_equal(batches(source, num_epochs=2, start_batch=5), whole[5:])  # stopped at the end of an epoch


def test_epochs_and_seeds_differ(source):
    keys = [{"epoch": 0}, {"epoch": 1}, {"seed": 6}]
    first = [batches(source, **key)[0].groups[0] for key in keys]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(first, 2))


def test_views_of_a_position_differ_between_epochs(folder):
    dataset = ViewsDataset(FolderSource(folder), OPTIONS, seed=5)
    first, second = (dataset[BatchRequest(epoch, range(1), [[0]])].groups[0] for epoch in (0, 1))
    assert not torch.equal(first, second)


def test_workers_can_be_started_without_fork(folder):
    """What goes to a worker can be pickled, and is not the stream: that may hold threads, connections, lambdas."""
    shards = stream(folder)
    shards.connection = lambda: None
    for source, items in ((FolderSource(folder), iter([3])), (shards, shards.rank_items(5, 0, 0, NUMBER, 0))):
        dataset = ViewsDataset(source, OPTIONS, seed=5)
        item = next(items)
        copy = pickle.loads(pickle.dumps(dataset))
        pairs = zip(*[views[BatchRequest(0, range(1), [[item]])].groups for views in (dataset, copy)], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_global_generator_is_left_alone(folder, num_workers):
    before = torch.get_rng_state()
    batches(FolderSource(folder), num_workers=num_workers)
    assert torch.equal(before, torch.get_rng_state())


def test_batches_that_do_not_exist_are_refused(folder):
    source = FolderSource(folder)
    with pytest.raises(DataOptionError, match=r"22 images has no batch of 8 images \* 3 processes = 24"):
        make_loader(source, OPTIONS, BatchOrder(seed=0, batch_size=8, world_size=3))
    with pytest.raises(DataOptionError, match="start_batch 6 is not in an epoch of 5 batches"):
        make_loader(source, OPTIONS, BatchOrder(seed=0, batch_size=4, start_batch=6))


# -- unreadable images -------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(folder, tmp_path):
    """The pictures again, the ones at positions 1, 2 and 21 (the last) of epoch 0 cut off."""
    names = [FolderSource(folder).read(i).name for i in range(NUMBER)]
    bad = {names[i] for i in shuffle_epoch(NUMBER, seed=5, epoch=0)[[1, 2, 21]]}
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        content = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2] if name in bad else content)
    return tmp_path, bad


@pytest.mark.parametrize("split", [{"batch_size": 11}, {"batch_size": 1, "num_workers": 1}], ids=["large", "one"])
def test_an_unreadable_image_is_replaced_by_the_next_readable_one(folder, damaged, split):
    root, bad = damaged
    epoch = batches(FolderSource(root), **split)
    assert set().union(*[batch.skipped for batch in epoch]) == bad
    assert all(f"{name}: " in message for batch in epoch for name, message in batch.skipped.items())
    assert torch.cat([batch.positions for batch in epoch]).tolist() == list(range(NUMBER))

    source = FolderSource(folder)
    order = shuffle_epoch(NUMBER, seed=5, epoch=0).tolist()
    shown = [*order[:1], order[3], order[3], *order[3:21], order[0]]
    assert torch.cat([batch.labels for batch in epoch]).tolist() == [source.read(i).label for i in shown]


def test_replacements_are_the_same_for_any_number_of_processes(damaged):
    source = FolderSource(damaged[0])
    whole = batches(source, batch_size=22)[0].groups[0].split(22)
    single = [batches(source, batch_size=1, rank=rank, world_size=22)[0].groups[0] for rank in range(22)]
    assert torch.equal(torch.cat([*whole]), torch.cat([group[crop : crop + 1] for crop in (0, 1) for group in single]))


def test_replacements_are_limited_for_any_batch(damaged, monkeypatch):
    monkeypatch.setattr("training.data.batch_order.MAX_REPLACEMENTS", 1)
    for size in (2, 22):
        with pytest.raises(TooManyUnreadableImagesError, match="2 images in a row"):
            batches(FolderSource(damaged[0]), batch_size=size)


def test_a_replacement_gets_views_of_its_own(damaged):
    """Slots 1 to 3 show the same image, but not the same crops of it."""
    first = batches(FolderSource(damaged[0]), batch_size=22)[0].groups[0][1:4]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(first, 2))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nothing_readable_is_an_error(tmp_path, num_workers):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_text("text")
    with pytest.raises(TooManyUnreadableImagesError, match="in a row cannot be read; the last one: .*jpg"):
        batches(FolderSource(tmp_path), batch_size=1, num_workers=num_workers)


@pytest.mark.slow
def test_workers_end_at_once_when_the_batches_are_closed(folder):
    others = {child.pid for child in active_children()}
    batches = iterate(make_loader(FolderSource(folder), OPTIONS, BatchOrder(seed=5, batch_size=4), num_workers=2))
    next(batches)
    assert len({child.pid for child in active_children()} - others) == 2
    batches.close()
    assert {child.pid for child in active_children()} <= others


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_hangs_is_reported(number, folder, monkeypatch, caplog):
    hangs = number == signal.SIGSTOP
    if hangs:  # else nothing is said, however long a busy machine takes
        monkeypatch.setattr(lost_workers, "REPORT", 0.2)
    monkeypatch.setattr(lost_workers, "POLL", 0.1)
    others = set(active_children())
    loader = make_loader(FolderSource(folder), OPTIONS, BatchOrder(seed=5, batch_size=2, num_epochs=500), num_workers=1)
    batches = iterate(loader, patience=1 if hangs else 60)
    next(batches)
    [worker] = set(active_children()) - others
    os.kill(worker.pid, number)
    message = {
        # By torch, or by the connection that closed.
        signal.SIGKILL: rf"(DataLoader worker \(pid.* {worker.pid}|worker {worker.pid} has ended).* lower --work",
        signal.SIGSTOP: rf"made no batch for .* s: worker {worker.pid} is stopped, .*the same command continues",
    }[number]
    with pytest.raises(LostWorkerError, match=message), report_lost_worker():
        list(batches)
    assert ("worker" in caplog.text) == hangs
    assert not worker.is_alive() and set(active_children()) <= others


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("spawn", "forkserver"))]
)
def test_workers_of_every_kind_give_the_same_batches(source, method):
    loader = make_loader(source, OPTIONS, BatchOrder(seed=5, batch_size=4), num_workers=1)
    loader.multiprocessing_context = method
    assert_equal(list(iterate(loader, patience=60)), batches(source))


def break_off(source, seed, epoch):
    yield from [0] * 34
    raise ZeroDivisionError


@pytest.mark.parametrize("fails", ["worker", "order"])
def test_workers_end_at_once_when_the_batches_fail(fails, folder, tmp_path, monkeypatch):
    """Also while the error, whose traceback refers to what was running, is kept."""
    (tmp_path / "bad").mkdir()
    for number in range(20):
        (tmp_path / "bad" / f"{number}.jpg").write_text("no picture")
    source = FolderSource(tmp_path / "bad" if fails == "worker" else folder)
    if fails == "order":
        monkeypatch.setattr(FolderSource, "items", break_off)
    others = {child.pid for child in active_children()}
    loader = make_loader(source, OPTIONS, BatchOrder(seed=5, batch_size=4), num_workers=2)
    with pytest.raises((TooManyUnreadableImagesError, ZeroDivisionError)) as kept:
        list(iterate(loader))
    assert kept.value.__traceback__ is not None
    assert {child.pid for child in active_children()} <= others
