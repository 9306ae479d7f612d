# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the image and label columns of a data set, and defines the errors of data that cannot be used."""

from typing import TYPE_CHECKING, Any, NamedTuple

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import Record


if TYPE_CHECKING:
    import datasets


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
    """

    image: str
    label: str | None
    class_names: list[str] | None
    numbers: dict[str, int] = {}  # noqa: RUF012  (never changed)

    @classmethod
    def find(
        cls, features: "datasets.Features", image: str | None, label: str | None, *, strings: bool = False
    ) -> "ImageColumns":
        """Finds the named columns, or else the only image column and the only class (or integer "label") column.

        With `strings`, labels may be strings: see `number_names`.

        An image column is an `Image` or, if there is none, a struct of `bytes` and `path`. A column that is named may
        also hold plain bytes, or strings, which are paths.

        Raises:
            DataOptionError: a named column does not exist, or holds no images or integers; or there is not exactly one
                image column to choose.
        """
        import datasets

        _refuse_unknown_columns(features, image_column=image, label_column=label)
        images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
        images = images or [name for name, feature in features.items() if _is_image_struct(feature)]
        classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
        if image is None and len(images) != 1:
            raise DataOptionError(f"image_column must be one of the columns {list(features)}; images are in {images}.")
        if image is not None and image not in images and not _is_bytes_or_path(features[image]):
            raise DataOptionError(
                f"image_column {image!r} holds {features[image]}; each row must hold one Image, one struct of "
                "bytes and path, bytes, or a path."
            )
        if label is None and len(classes) == 1:
            label = classes[0]
        if label is None and (_is_integer(features.get("label")) or (strings and _is_string(features.get("label")))):
            label = "label"
        if label is not None and not (
            label in classes or _is_integer(features[label]) or (strings and _is_string(features[label]))
        ):
            expected = "integers, ClassLabel, or, of a data set that is read in place, strings"
            raise DataOptionError(f"label_column {label!r} holds {features[label]}; labels are {expected}.")
        return cls(image or images[0], label, features[label].names if label in classes else None)

    def number_names(self, dataset: Any) -> "ImageColumns":
        """Returns the columns with numbers for labels that are strings, in sorted order."""
        if self.label is None or not _is_string(dataset.features[self.label]):
            return self
        names = sorted(name for name in dataset.unique(self.label) if name is not None)
        return self._replace(class_names=names, numbers={name: number for number, name in enumerate(names)})

    def select(self, dataset: Any) -> Any:
        """Returns the data set with these columns alone, and images undecoded, as bytes or path."""
        import datasets

        columns = [self.image] if self.label is None else [self.image, self.label]
        dataset = dataset.with_format(None).select_columns(columns)
        return dataset.cast_column(self.image, datasets.Image(decode=False))

    def record(self, row: dict[str, Any]) -> Record:
        """Returns the record of a row of `select(dataset)`. A null image becomes empty bytes, an unreadable image."""
        image = row[self.image] or {"bytes": None, "path": None}
        content = image["bytes"] or image["path"] or b""
        label = None if self.label is None else row[self.label]
        return Record(content, self.numbers[label] if isinstance(label, str) else label, image["path"])


def _refuse_unknown_columns(features: "datasets.Features", **columns: str | None) -> None:
    for option, column in columns.items():
        if column is not None and column not in features:
            raise DataOptionError(f"{option} {column!r} does not exist; the columns are {list(features)}.")


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
    return getattr(feature, "dtype", None) in ("string", "large_string")


def _is_image_struct(feature: Any) -> bool:
    """Returns whether a column is stored like the images of `datasets`, but not declared as one."""
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _is_bytes_or_path(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("binary", "large_binary", "string", "large_string")
