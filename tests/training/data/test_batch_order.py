# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a step has the same images at the same positions, whichever processes share it."""

import itertools

import pytest

from tests.helpers.streams import WRITE
from training.data.batch_order import MAX_REPLACEMENTS, BatchOrder, BatchRequests, Cursor, Lanes
from training.data.sources import FolderSource, open_source


STEP, EPOCHS = 24, 2
LANES = Lanes(number=2, batch_size=6, batches_per_step=2)
SHARES = [(1, 24, 1), (1, 3, 8), (2, 6, 2), (2, 12, 1), (3, 4, 2), (4, 6, 1), (6, 4, 1), (8, 1, 3), (24, 1, 1)]


@pytest.fixture(params=["folder", "parquet", "tar"])
def source(request, tmp_path):
    """Returns 80 images: three steps of 24, and 8 left over."""
    if request.param == "folder":
        for index in range(80):
            (tmp_path / f"{index:02d}.png").touch()
        return FolderSource(tmp_path)
    WRITE[request.param](tmp_path, [30, 7, 43], size=4)
    return open_source(str(tmp_path / f"*.{request.param}"))


def identify(candidates: list) -> list:
    """Returns what tells the candidates of a position from others."""
    return [each if isinstance(each, int) else each.name for each in candidates]


def deal(source, processes: int, batch_size: int, accumulated: int, start_step: int = 0, lanes=LANES) -> dict:
    """Returns the candidates by (epoch, step, position), as all processes together get them."""
    found = {}
    for rank in range(processes):
        start = start_step * accumulated
        order = BatchOrder(5, batch_size, accumulated, 0, EPOCHS, start, rank, processes, stream_lanes=lanes)
        requests = iter(BatchRequests(source, order))
        for epoch in range(EPOCHS):
            for step, _ in itertools.product(range(start_step if epoch == 0 else 0, 3), range(accumulated)):
                request = next(requests)
                assert request.epoch == epoch and len(request.candidates) == batch_size
                for position, candidates in zip(request.positions, request.candidates, strict=True):
                    assert position // STEP == step
                    assert found.setdefault((epoch, step, position), identify(candidates)) == identify(candidates)
        assert next(requests, None) is None
    return found


@pytest.mark.parametrize("share", SHARES)
def test_a_step_is_the_same_for_all_who_share_it(source, share):
    expected = deal(source, LANES.number, LANES.batch_size, LANES.batches_per_step, lanes=None)
    assert len(expected) == EPOCHS * 3 * STEP and all(len(each) == 1 + MAX_REPLACEMENTS for each in expected.values())
    assert deal(source, *share) == expected


@pytest.mark.parametrize("start_step", [1, 2, 3])
@pytest.mark.parametrize("share", [(1, 3, 8), (3, 4, 2), (4, 6, 1)])
def test_others_begin_at_any_step(source, share, start_step):
    expected = deal(source, LANES.number, LANES.batch_size, LANES.batches_per_step, lanes=None)
    assert deal(source, *share, start_step) == {
        key: each for key, each in expected.items() if key[0] or key[1] >= start_step
    }


def test_an_epoch_visits_each_image_once(source):
    items = [each[0] for (epoch, *_), each in deal(source, 3, 4, 2).items() if epoch == 0]
    assert len(set(items)) == len(items) == 3 * STEP


def test_parts_of_lanes():
    parts = list(Lanes(3, 4).locate(range(2, 15)))
    assert parts == [(0, 2, 2), (1, 0, 4), (2, 0, 4), (0, 4, 3)]
    assert list(Lanes(1, 4).locate(range(6, 6))) == []


def test_a_cursor_skips_and_looks_ahead():
    cursor = Cursor(iter(range(10, 100)), first=10)
    assert [each[0] for each in cursor.take(12, 3)] == [12, 13, 14]
    assert cursor.take(14, 1) == [list(range(14, 15 + MAX_REPLACEMENTS))]
    assert [each[0] for each in cursor.take(60, 2)] == [60, 61]
    assert cursor.take(99, 1) == [[99]]
