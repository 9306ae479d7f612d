# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the images of a source that can be read, for trainers that ask for images by number and expect each of them."""

from accelerate import PartialState
from accelerate.utils import gather_object

from modeling_esvit.embed.progress import show_progress
from modeling_esvit.images.decoding import UnreadableImageError, decode
from modeling_esvit.images.read_ahead import in_order
from training.data.sources import DatasetSource, FolderSource
from training.data.unreadable import SkipLog


THREADS, AHEAD = 4, 64


def find_readable(source: FolderSource | DatasetSource, max_unreadable: float, title: str) -> tuple[list[int], SkipLog]:
    """Returns the numbers of the images that can be read, and the log of the others.

    Each image is decoded once for that, a JPEG at an eighth of its size, which reads all of it. Processes share the
    work, and all get all numbers.

    Args:
        max_unreadable: See `SkipLog`.
        title: Of the progress bar.

    Raises:
        TooManyUnreadableImagesError: more images than `max_unreadable` allows cannot be read.
        EmptySourceError: no image can be read.
    """
    state = PartialState()
    share = range(state.process_index, len(source), state.num_processes)
    faults = in_order(iter(share), lambda number: find_fault(source, number), threads=THREADS, ahead=AHEAD)
    shown = show_progress(title, len(share), "image", shown=state.is_main_process, leave=False, iterable=faults)
    found = gather_object([(number, fault) for number, fault in zip(share, shown, strict=True) if fault is not None])
    skipped = SkipLog(len(source), max_unreadable)
    skipped.add(dict(fault for _, fault in found))
    readable = sorted({*range(len(source))} - {number for number, _ in found})
    if not readable:
        raise skipped.make_empty_error()
    return readable, skipped


def find_fault(source: FolderSource | DatasetSource, number: int) -> tuple[str, str] | None:
    """Returns the name of an image and why it cannot be read; None if it can."""
    record = source.read(number)
    try:
        decode(record, lambda size: (1, 1))
    except UnreadableImageError as error:
        return record.identity(), str(error)
    return None
