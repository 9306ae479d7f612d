# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which images each process takes."""

from types import SimpleNamespace

import pytest
from datasets import Dataset

from training.data.sources import open_source
from training.features.extraction import (
    LabelledImages,
    process_items,
)


@pytest.mark.parametrize(("count", "processes"), [(10, 1), (10, 2), (9, 2), (9, 4), (1, 3), (24, 3)])
def test_shares_of_processes_are_all_rows_in_order(count, processes):
    images = LabelledImages(
        open_source(Dataset.from_dict({"image": [b""] * count, "label": [0] * count}), image_column="image"), None
    )
    shares = [
        list(process_items(images, SimpleNamespace(num_processes=processes, process_index=rank)))
        for rank in range(processes)
    ]
    assert [row for share in shares for row in share][:count] == list(range(count))
    assert {len(share) for share in shares} == {-(-count // processes)}
