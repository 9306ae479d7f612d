# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the image and label columns of a data set, and defines the errors of data that cannot be used."""

from typing import TYPE_CHECKING, Any, NamedTuple

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import DecodingOptions, Record
from modeling_esvit.images.places import NOTHING
from modeling_esvit.images.rows import read_cell


if TYPE_CHECKING:
    import datasets


BYTES = ("binary", "large_binary", "binary_view")
STRINGS = ("string", "large_string", "string_view")
ROWS = DecodingOptions(access=NOTHING)  # of rows that may open nothing


class DataOptionError(EsViTError, ValueError):
    """Raised when an option does not fit the data."""


class DataNotFoundError(EsViTError, FileNotFoundError):
    """Raised when there is no data where `data` points to."""


class EmptySourceError(EsViTError, ValueError):
    """Raised when the data exists but holds no image."""


class ImageColumns(NamedTuple):
    """Holds the names of the columns with the image and, if there is one, its class.

    Attributes:
        numbers: the number of each class, if labels are strings.
        described: all columns of the data set with their types.
        options: how the images are decoded, and what their names may open: nothing, unless the source says so.
    """

    image: str
    label: str | None
    class_names: list[str] | None
    numbers: dict[str, int] = {}  # noqa: RUF012  (never changed)
    described: str = ""
    options: DecodingOptions = ROWS

    @classmethod
    def find(
        cls, features: "datasets.Features", image: str | None, label: str | None, *, strings: bool = False
    ) -> "ImageColumns":
        """Finds the named columns, or else the only image column and the only class (or integer "label") column.

        With `strings`, labels may be strings: see `number_names`.

        An image column is an `Image` or, if there is none, a struct with `bytes` or `path`. A column that is named may
        also hold plain bytes, or strings, which are paths.

        Raises:
            DataOptionError: a named column does not exist, or holds no images or integers; or there is not exactly one
                image column to choose.
        """
        import datasets

        _refuse_unknown_columns(features, image_column=image, label_column=label)
        described = describe_columns(features)
        images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
        images = images or [name for name, feature in features.items() if _is_image_struct(feature)]
        classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
        if image is None and len(images) != 1:
            raise DataOptionError(
                f"image_column must be one of the columns {described}; {' and '.join(images) or 'none'} holds images."
            )
        if image is not None and image not in images and not _is_bytes_or_path(features[image]):
            raise DataOptionError(
                f"image_column {image!r} holds {features[image]}; each row must hold one Image, one struct of "
                f"bytes and path, bytes, or a path. The columns are {described}."
            )
        if label is None and len(classes) == 1:
            label = classes[0]
        if label is None and (_is_integer(features.get("label")) or (strings and _is_string(features.get("label")))):
            label = "label"
        if label is not None and not (
            label in classes or _is_integer(features[label]) or (strings and _is_string(features[label]))
        ):
            expected = "integers, ClassLabel, or, of a data set that is read in place, strings"
            raise DataOptionError(
                f"label_column {label!r} holds {features[label]}; labels are {expected}. The columns are {described}."
            )
        names = features[label].names if label in classes else None
        return cls(image or images[0], label, names, described=described)

    def list_names(self) -> list[str]:
        """Returns the names of the columns that are read."""
        return [self.image] if self.label is None else [self.image, self.label]

    def number_names(self, dataset: Any) -> "ImageColumns":
        """Returns the columns with numbers for labels that are strings, in sorted order."""
        if self.label is None or not _is_string(dataset.features[self.label]):
            return self
        names = sorted(name for name in dataset.unique(self.label) if name is not None)
        return self._replace(class_names=names, numbers={name: number for number, name in enumerate(names)})

    def select(self, dataset: Any) -> Any:
        """Returns the data set with these columns alone, and images undecoded, as bytes or path."""
        import datasets

        dataset = dataset.with_format(None).select_columns(self.list_names())
        if getattr(dataset.features[self.image], "dtype", None) == "binary_view":  # of which datasets makes no images
            dataset = dataset.cast_column(self.image, datasets.Value("large_binary"))
        return dataset.cast_column(self.image, datasets.Image(decode=False))

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


def describe_columns(features: "datasets.Features") -> str:
    """Returns the columns of a data set with their types, such as "img (Image), fine_label (ClassLabel of 100)"."""
    return ", ".join(f"{name} ({_describe_type(feature)})" for name, feature in features.items())


def _describe_type(feature: Any) -> str:
    names = getattr(feature, "names", None)
    kind = type(feature).__name__
    if names is not None:
        return f"{kind} of {len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    if kind == "Value":
        return feature.dtype
    if isinstance(feature, dict):
        return f"struct of {', '.join(feature)}"
    return kind


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


def _is_string(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in STRINGS


def _is_image_struct(feature: Any) -> bool:
    """Returns whether a column is stored like the images of `datasets`, with other fields or not, but not declared."""
    if not isinstance(feature, dict):
        return False
    content, path = feature.get("bytes"), feature.get("path")
    return getattr(content, "dtype", None) in BYTES or getattr(path, "dtype", None) in STRINGS


def _is_bytes_or_path(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in (*BYTES, *STRINGS)
