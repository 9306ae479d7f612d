# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads streams of shards in tests: how shards are written, and how their batches are loaded."""

from tests.helpers.shard_server import write_parquet, write_tar
from training.data.batch_order import BatchOrder
from training.data.loader import Batch, make_loader
from training.views.draw import ViewOptions


OPTIONS = ViewOptions(global_crop_size=8, local_crop_sizes=(4,), local_crops_numbers=(1,))
WRITE = {"parquet": write_parquet, "tar": write_tar}


def load_batches(source, **options) -> list[Batch]:
    """Loads one epoch, unless the options of `BatchOrder` and `make_loader` say otherwise."""
    loading = {name: options.pop(name) for name in ("num_workers", "augment") if name in options}
    return list(make_loader(source, OPTIONS, BatchOrder(**{"seed": 5, "batch_size": 4, **options}), **loading))


def list_labels(batches: list[Batch]) -> list[int]:
    return [label for batch in batches for label in batch.labels.tolist()]
