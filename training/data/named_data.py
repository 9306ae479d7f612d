# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens the data that a command names as DATA or DATA:SPLIT."""

import os
from typing import Any

from modeling_esvit.images.decoding import DEFAULT, DecodingOptions
from training.data.columns import DataOptionError
from training.data.left_out import warn_of_left_out
from training.data.sources import ImageSource, is_image_folder, open_source


def split_data_name(data: str) -> tuple[str, str | None]:
    """Splits DATA or DATA:SPLIT into DATA and SPLIT."""
    name, colon, split = data.rpartition(":")
    is_url = "/" in split and "://" in data  # the colon is that of the scheme, or of a port
    return (name, split) if colon and not is_url and not os.path.exists(data) else (data, None)


def split_train_and_test(train: str, test: str) -> list[tuple[str, str | None]]:
    """Returns data and split of the training and the test data, which must differ.

    Raises:
        DataOptionError: both are the same data, or might be because a split is missing.
    """
    named = [split_data_name(train), split_data_name(test)]
    if named[0][0] == named[1][0] and (None in (named[0][1], named[1][1]) or named[0] == named[1]):
        raise DataOptionError(f"train {train!r} and test {test!r} are the same data: name a split of it for each.")
    return named


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


def open_train_and_test(
    train: str, test: str, *, streaming: bool = False, decoding: DecodingOptions = DEFAULT, **columns: Any
) -> list[ImageSource]:
    """Opens the training and the test data.

    Args:
        columns: `image_column`, `label_column` and `config_name` of those that are not folders of image files.

    Raises:
        DataOptionError, EmptySourceError, OSError: see `split_train_and_test` and `open_source`. Also when `columns`
            are given, and all data are folders of image files.
    """
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
