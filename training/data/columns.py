# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the image and label columns of a data set, and defines the errors of data that cannot be used."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import DecodingOptions, Record
from modeling_esvit.images.places import NOTHING
from modeling_esvit.images.row_folders import DataOptionError
from modeling_esvit.images.row_folders import EmptySourceError as EmptySourceError  # for who imports errors from here
from modeling_esvit.images.rows import (
    describe_columns,
    describe_image_lists,
    find_image_columns,
    is_bytes_or_path,
    is_string,
    leave_undecoded,
    read_cell,
)


if TYPE_CHECKING:
    import datasets


ROWS = DecodingOptions(access=NOTHING)  # of rows that may open nothing


class DataNotFoundError(EsViTError, FileNotFoundError):
    """Raised when there is no data where `data` points to."""


class ImageColumns(NamedTuple):
    """Holds the names of the columns with the image and, if there is one, its class.

    Attributes:
        strings: whether labels are strings.
        numbers: the number of each class, if they are.
        described: all columns of the data set with their types.
        options: how the images are decoded, and what their names may open: nothing, unless the source says so.
    """

    image: str
    label: str | None
    class_names: list[str] | None
    strings: bool = False
    numbers: dict[str, int] = {}  # noqa: RUF012  (never changed)
    described: str = ""
    options: DecodingOptions = ROWS

    @classmethod
    def find(cls, features: "datasets.Features", image: str | None, label: str | None) -> "ImageColumns":
        """Finds the named columns, or else the only image column, and the only class column or one called "label".

        Labels are classes, integers, or strings: see `number_names`.

        An image column is an `Image` or, if there is none, a struct with `bytes` or `path`. A column that is named may
        also hold plain bytes, or strings, which are paths.

        Raises:
            DataOptionError: a named column does not exist, or holds no images or labels; or there is not exactly one
                image column to choose.
        """
        import datasets

        _refuse_unknown_columns(features, image_column=image, label_column=label)
        described = describe_columns(features)
        images = find_image_columns(features)
        classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
        if image is None and len(images) != 1:
            raise DataOptionError(
                f"image_column must be one of the columns {described}; {' and '.join(images) or 'none'} holds images."
                f"{describe_image_lists(features)}"
            )
        if image is not None and image not in images and not is_bytes_or_path(features[image]):
            raise DataOptionError(
                f"image_column {image!r} holds {features[image]}; each row must hold one Image, one struct of "
                f"bytes and path, bytes, or a path. The columns are {described}."
            )
        if label is None and len(classes) == 1:
            label = classes[0]
        if label is None and (_is_integer(features.get("label")) or is_string(features.get("label"))):
            label = "label"
        if label is not None and not (label in classes or _is_integer(features[label]) or is_string(features[label])):
            raise DataOptionError(
                f"label_column {label!r} holds {features[label]}; labels are integers, ClassLabel or strings. The "
                f"columns are {described}."
            )
        names = features[label].names if label in classes else None
        strings = label is not None and is_string(features[label])
        return cls(image or images[0], label, names, strings, described=described)

    def list_names(self) -> list[str]:
        """Returns the names of the columns that are read."""
        return [self.image] if self.label is None else [self.image, self.label]

    def number_names(self, labels: Iterable[str | None]) -> "ImageColumns":
        """Returns the columns with a number for each label that is a string, in sorted order; None is no label."""
        names = sorted({name for name in labels if name is not None})
        return self._replace(class_names=names, numbers={name: number for number, name in enumerate(names)})

    def without_label(self) -> "ImageColumns":
        """Returns the columns of images alone."""
        return self._replace(label=None, class_names=None, strings=False)

    def select(self, dataset: Any) -> Any:
        """Returns the data set with these columns alone, and images undecoded, as bytes or path."""
        return leave_undecoded(dataset.select_columns(self.list_names()), self.image)

    def record(self, row: dict[str, Any]) -> Record:
        """Returns the record of a row of `select(dataset)`. A null image becomes empty bytes, an unreadable image.

        Raises:
            DataOptionError: the label is a string that none of the numbered classes has.
        """
        label = None if self.label is None else row[self.label]
        if isinstance(label, str):
            if label not in self.numbers:
                raise DataOptionError(f"the class {label!r} is none of the {len(self.numbers)}: {[*self.numbers]}.")
            label = self.numbers[label]
        return read_cell(row[self.image], label, self.options)


def _refuse_unknown_columns(features: "datasets.Features", **columns: str | None) -> None:
    for option, column in columns.items():
        if column is not None and column not in features:
            raise DataOptionError(f"{option} {column!r} does not exist; the columns are {describe_columns(features)}.")


def find_column(dataset: Any, name: str) -> Any:
    """Returns a column of a data set.

    Raises:
        DataOptionError: there is no such column.
    """
    _refuse_unknown_columns(dataset.features, column=name)
    return dataset[name]


def _is_integer(feature: Any) -> bool:
    return "int" in getattr(feature, "dtype", "") or getattr(feature, "dtype", None) == "bool"
