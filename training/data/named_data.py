# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens the data that a command names as DATA or DATA:SPLIT."""

import os
from pathlib import Path
from typing import Any

from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.decoding import DEFAULT, DecodingOptions
from modeling_esvit.storage.paths import expand_home
from training.data.held_out import SHARE, hold_out
from training.data.left_out import warn_of_left_out
from training.data.sources import ImageSource, is_image_folder, open_source


def split_data_name(data: str) -> tuple[str, str | None]:
    """Splits DATA or DATA:SPLIT into DATA and SPLIT."""
    name, colon, split = data.rpartition(":")
    is_url = "/" in split and "://" in data  # the colon is that of the scheme, or of a port
    is_drive = len(name) == 1 and split.startswith(("/", "\\"))  # C:\photographs\*.parquet
    is_part = "/" in split and not os.path.exists(expand_home(name))  # of a pattern: 10:30/*.tar
    whole = is_url or is_drive or is_part or os.path.exists(data)
    return (name, split) if colon and not whole else (data, None)


def split_train_and_test(train: str, test: str, without_test: str = "") -> list[tuple[str, str | None]]:
    """Returns data and split of the training and the test data, which must differ.

    Args:
        without_test: says what a command does that names no test data, for the error.

    Raises:
        DataOptionError: both are the same data, or might be because a split is missing; or one of them is a folder of
            images that the other lies in.
    """
    named = [split_data_name(train), split_data_name(test)]
    (data, split), (test_data, test_split) = named
    same = os.path.realpath(data) == os.path.realpath(test_data)
    if same and (None in (split, test_split) or split == test_split):
        raise DataOptionError(
            f"train {train!r} and test {test!r} are the same data: name a split of it for each, as {data}:train and "
            f"{data}:test (of a folder of images, a split is a subfolder){without_test}."
        )
    for (outer, outer_split), (inner, inner_split) in (named, named[::-1]):
        place, within = find_place(outer, outer_split), find_place(inner, inner_split)
        if place is not None and within is not None and is_image_folder(outer) and place in (within, *within.parents):
            raise DataOptionError(
                f"train {train!r} and test {test!r} share images: {str(within)!r} lies in {str(place)!r}. Name folders "
                f"that lie beside each other{without_test}."
            )
    return named


def find_place(data: str, split: str | None) -> Path | None:
    """Returns the folder that data and split name, without links; None if they name no folder."""
    place = expand_home(data) / (split or "")
    return Path(os.path.realpath(place)) if os.path.isdir(place) else None


def refuse_output_in_data(output: str | os.PathLike[str], *data: str | None) -> None:
    """Refuses an output in a folder whose images are read: pictures that are written there would become some of them.

    In a hidden folder they would not.

    Raises:
        DataOptionError: the output lies in such a folder.
    """
    written = Path(os.path.realpath(expand_home(output)))
    for name in filter(None, data):
        folder, split = split_data_name(name)
        place = find_place(folder, split)
        if place is None or not written.is_relative_to(place) or not is_image_folder(folder):
            continue
        if not any(part.startswith(".") for part in written.relative_to(place).parts):
            raise DataOptionError(
                f"output {str(output)!r} lies in {str(place)!r}, whose images are read: pictures that are written "
                "there would be read as images the next time. Name an output beside that folder."
            )


def open_named(
    data: str, split: str | None, *, streaming: bool = False, decoding: DecodingOptions = DEFAULT, **columns: Any
) -> ImageSource:
    """Opens data, and logs what lies beside its images.

    Args:
        columns: `image_column`, `label_column` and `config_name` of what is no folder of image files.

    Raises:
        DataOptionError, EmptySourceError, OSError: see `open_source`.
    """
    source = open_source(data, split=split, streaming=streaming, decoding=decoding, **columns)
    warn_of_left_out(data if split is None else f"{data}:{split}", source)
    return source


def open_held_out(
    data: str, share: float, *, streaming: bool = False, decoding: DecodingOptions = DEFAULT, **columns: Any
) -> list[ImageSource]:
    """Opens data, holds out a share of each class, and says so on the main process; returns training and test images.

    Args:
        columns: `image_column`, `label_column` and `config_name` of what is no folder of image files.

    Raises:
        DataOptionError, EmptySourceError, OSError: see `open_source` and `hold_out`.
    """
    source = open_named(*split_data_name(data), streaming=streaming, decoding=decoding, **columns)
    return hold_out_and_say(data, source, share)


def hold_out_and_say(data: str, source: ImageSource, share: float) -> list[ImageSource]:
    """Holds out a share of each class of `source`, which `data` names, and says so; returns training and test images.

    Raises:
        DataOptionError: see `hold_out`.
    """
    held_out = hold_out(data, source, share)
    if not int(os.environ.get("RANK", 0)):  # the Trainer of an example makes its group of processes later
        print(f"{data}: {held_out.describe()}.")
    return [held_out.train, held_out.test]


def open_train_and_test(
    train: str,
    test: str | None,
    *,
    test_share: float | None = None,
    streaming: bool = False,
    decoding: DecodingOptions = DEFAULT,
    **columns: Any,
) -> list[ImageSource]:
    """Opens the training and the test data; without test data a share of each class of `train` is held out for testing.

    Args:
        test_share: of each class, SHARE if None.
        columns: `image_column`, `label_column` and `config_name` of those that are not folders of image files.

    Raises:
        DataOptionError, EmptySourceError, OSError: see `split_train_and_test` and `open_source`. Also when `columns`
            are given, and all data are folders of image files.
    """
    if test is None:
        share = SHARE if test_share is None else test_share
        return open_held_out(train, share, streaming=streaming, decoding=decoding, **columns)
    named = split_train_and_test(train, test)
    are_folders = [is_image_folder(data, columns.get("image_column")) for data, _ in named]
    return [
        open_named(
            data,
            split,
            streaming=streaming,
            decoding=decoding,
            **columns if all(are_folders) or not is_folder else {},
        )
        for (data, split), is_folder in zip(named, are_folders, strict=True)
    ]
