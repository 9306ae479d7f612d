# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The columns of a data set that matter here, and the errors of data that cannot be used."""

from typing import TYPE_CHECKING, Any, NamedTuple

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import Record


if TYPE_CHECKING:
    import datasets


class DataOptionError(EsViTError, ValueError):
    """An option does not fit the data it is meant for."""


class DataNotFoundError(EsViTError, FileNotFoundError):
    """There is no data where `data` points to."""


class EmptySourceError(EsViTError, ValueError):
    """The data exists but holds no image."""


class ImageColumns(NamedTuple):
    """The columns of a data set that hold the image and, where there is one, its class.

    numbers: of classes that the column has the names of.
    """

    image: str
    label: str | None
    class_names: list[str] | None
    numbers: dict[str, int] = {}  # noqa: RUF012  (never changed)

    @classmethod
    def find(
        cls, features: "datasets.Features", image: str | None, label: str | None, *, strings: bool = False
    ) -> "ImageColumns":
        """The columns named, or else the only image column and the only class (or integer "label") column.

        With `strings`, labels may be strings: see `of_names`.

        An image column is an `Image` or, where there is none, a struct of `bytes` and `path`; by name, also plain bytes
        or strings, which are paths.

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
                f"image_column {image!r} holds {features[image]}; it must be an Image, a struct of bytes and path, "
                "bytes or a path: one a row."
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

    def of_names(self, dataset: Any) -> "ImageColumns":
        """If labels are strings, the same with their names, sorted, and numbers."""
        if self.label is None or not _is_string(dataset.features[self.label]):
            return self
        names = sorted(name for name in dataset.unique(self.label) if name is not None)
        return self._replace(class_names=names, numbers={name: number for number, name in enumerate(names)})

    def select(self, dataset: Any) -> Any:
        """The data set with these columns only, images as bytes or path: it must not decode, we do."""
        import datasets

        columns = [self.image] if self.label is None else [self.image, self.label]
        dataset = dataset.with_format(None).select_columns(columns)
        return dataset.cast_column(self.image, datasets.Image(decode=False))

    def record(self, row: dict[str, Any]) -> Record:
        """The record of a row of `select(dataset)`. A null image becomes empty bytes, which `decode` refuses."""
        image = row[self.image] or {"bytes": None, "path": None}
        content = image["bytes"] or image["path"] or b""
        label = None if self.label is None else row[self.label]
        return Record(content, self.numbers[label] if isinstance(label, str) else label, image["path"])


def _refuse_unknown_columns(features: "datasets.Features", **columns: str | None) -> None:
    for option, column in columns.items():
        if column is not None and column not in features:
            raise DataOptionError(f"{option} {column!r} does not exist; the columns are {list(features)}.")


def find_column(dataset: Any, name: str) -> Any:
    """A column of a data set.

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
    """As `datasets` stores images, without its note that they are."""
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _is_bytes_or_path(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("binary", "large_binary", "string", "large_string")
