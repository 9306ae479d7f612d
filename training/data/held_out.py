# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Holds out a share of each class of labelled images for testing: the same images in each call and on each machine.

Of each class those images are held out whose names have the smallest checksums. The choice depends on names alone, on
no order, model or random generator, and images that are added to a folder change little of it.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.folders import LeftOut
from modeling_esvit.storage.identity import compose, compute_checksum
from training.data.shard_stream import ShardStream
from training.data.sources import DatasetSource, FolderSource, ImageSource, describe_labels
from training.options.provenance import USUAL_SPLITS


SHARE = 0.2  # of each class, unless another one is asked for
SEED = "held out for testing"  # goes into the checksums, so that no other choice by name makes the same one
NAMED = 8  # classes that a line names


class HeldOut(NamedTuple):
    """Holds the two parts of labelled images.

    alone: the names of classes with a single image, which is in `train`.
    """

    train: FolderSource | DatasetSource
    test: FolderSource | DatasetSource
    share: float
    alone: list[str]

    def describe(self) -> str:
        """Says how many images are held out, and of which classes none is."""
        whole = len(self.train) + len(self.test)
        line = f"holds out {len(self.test)} of {whole} images, {100 * self.share:.4g}% of each class, for testing"
        if not self.alone:
            return line
        named = ", ".join(self.alone[:NAMED]) + (f" and {len(self.alone) - NAMED} more" * (len(self.alone) > NAMED))
        return f"{line}; none of the classes with a single image: {named}"


def hold_out(name: str, source: ImageSource, share: float) -> HeldOut:
    """Splits labelled images: of each class of two images and more a rounded share is held out, at least one image, and
    at least one stays.

    Args:
        name: names the data in an error.
        share: between 0 and 1.

    Raises:
        DataOptionError: see `require_classes`; or no class has two images.
    """
    labelled = require_classes(name, source)
    rows_by_class = defaultdict[int | None, list[int]](list)
    for row, label in enumerate(labelled.list_labels()):
        rows_by_class[label].append(row)
    names, chosen = labelled.list_names(), np.zeros(len(labelled), dtype=bool)
    for rows in rows_by_class.values():
        chosen[choose_held_out([names[row] for row in rows], rows, share)] = True
    if not chosen.any():
        raise DataOptionError(f"each class of {name!r} has a single image, so that none can be held out: add images.")
    train, test = labelled.select((~chosen).nonzero()[0]), labelled.select(chosen.nonzero()[0])
    test.left_out = LeftOut()  # the training images say what lies beside both
    alone = [show_class(labelled, label) for label, rows in rows_by_class.items() if len(rows) == 1]
    return HeldOut(train, test, share, alone)


def require_classes(name: str, source: ImageSource) -> FolderSource | DatasetSource:
    """Returns the images if their classes are known before they are read.

    Raises:
        DataOptionError: they are a stream, or have no labels; or their classes are called train, test and so on, which
            are splits.
    """
    if isinstance(source, ShardStream):
        raise DataOptionError(
            f"{name!r} is read as a stream (tar files, a URL, --streaming), whose labels are not known beforehand, so "
            "that no share of each class can be held out. Name test data, such as other shards, or another split of a "
            "data set; local parquet files and data sets of the Hub have labels beforehand without --streaming."
        )
    if not source.has_labels:
        raise DataOptionError(
            f"{name!r} has no labels, so that no share of each class can be held out. {describe_labels(source)}"
        )
    classes = source.class_names or []
    if classes and set(classes) <= set(USUAL_SPLITS):
        are_folders = isinstance(source, FolderSource)
        advice = f"Name the splits, {name}:{classes[-1]} and so on" if are_folders else "Make a file of each split"
        raise DataOptionError(
            f"the classes of {name!r} are called {' and '.join(classes)}, as splits are: nothing is held out. "
            f"{advice}, or call the classes otherwise."
        )
    return source


def choose_held_out(names: list[str], rows: list[int], share: float) -> list[int]:
    """Chooses those of a class's `rows` to hold out, by their `names`."""
    count = min(max(round(share * len(rows)), 1), len(rows) - 1)
    keys = {row: compute_checksum(SEED, compose(name)) for name, row in zip(names, rows, strict=True)}
    return sorted(rows, key=keys.__getitem__)[:count]


def show_class(source: FolderSource | DatasetSource, label: int | None) -> str:
    """Returns the name of a class, or its number if it has none."""
    named = source.class_names is not None and label is not None and label >= 0
    return source.class_names[label] if named else str(label)  # type: ignore[index]
