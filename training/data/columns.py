# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the image and label columns of a data set."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.decoding import DecodingOptions, Record
from modeling_esvit.images.places import NOTHING
from modeling_esvit.images.rows import (
    describe_columns,
    describe_image_lists,
    find_image_columns,
    is_bytes_or_path,
    is_string,
    leave_undecoded,
    read_cell,
)
from modeling_esvit.storage.identity import compose


if TYPE_CHECKING:
    import datasets


LABEL_KINDS = STRINGS, INTEGERS, BOOLEANS = "strings", "integers", "booleans"
LARGEST_LABEL = 2**63 - 1  # of int64
LARGEST_FLOAT = 2**53  # above which one float stands for several integers
MOST_CLASSES = 100_000  # for which outputs are made where labels are numbers without names
ROWS = DecodingOptions(access=NOTHING)  # of rows that may open nothing


class ImageColumns(NamedTuple):
    """Holds the names of the columns with the image and, if there is one, its class.

    Attributes:
        strings: whether labels are strings.
        booleans: whether they are booleans, whose classes are called False and True.
        numbers: the number of each class, if they are.
        described: all columns of the data set with their types.
        options: how the images are decoded, and what their names may open: nothing, unless the source says so.
    """

    image: str
    label: str | None
    class_names: list[str] | None
    strings: bool = False
    booleans: bool = False
    numbers: dict[str, int] = {}  # noqa: RUF012  (never changed)
    described: str = ""
    options: DecodingOptions = ROWS

    @classmethod
    def find(cls, features: "datasets.Features", image: str | None, label: str | None) -> "ImageColumns":
        """Finds the named columns, or else the only image column, and the only class column or one called "label".

        Labels are classes, integers, also as floats, or strings: see `number_label` and `number_names`.

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
        label = find_label(features) if label is None else label
        kind = None if label is None else name_label_kind(features[label])
        if label is not None and kind not in LABEL_KINDS:
            raise DataOptionError(
                f"label_column {label!r} holds {features[label]}; labels are integers, ClassLabel or strings: write "
                f"it as one of these, or choose another. The columns are {described}."
            )
        named = label is not None and isinstance(features[label], datasets.ClassLabel)
        names = [*map(compose, features[label].names)] if named else ["False", "True"] if kind == BOOLEANS else None
        return cls(image or images[0], label, names, kind == STRINGS, kind == BOOLEANS, described=described)

    @property
    def label_kind(self) -> str:
        """Returns one of LABEL_KINDS."""
        return STRINGS if self.strings else BOOLEANS if self.booleans else INTEGERS

    def list_names(self) -> list[str]:
        """Returns the names of the columns that are read."""
        return [self.image] if self.label is None else [self.image, self.label]

    def number_names(self, labels: Iterable[str | None]) -> "ImageColumns":
        """Returns the columns with a number for each label that is a string, in sorted order; see `number_label`."""
        composed = {name: compose(name) for name in labels if name}
        names = sorted({*composed.values()})
        number = {name: index for index, name in enumerate(names)}
        return self._replace(class_names=names, numbers={name: number[same] for name, same in composed.items()})

    def check_floats(self, labels: Iterable[float | None], *, is_named: bool) -> "ImageColumns":
        """Returns the columns, without a label that holds other floats than whole numbers, unless it was named.

        Raises:
            DataOptionError: it was; see `number_label`.
        """
        try:
            for label in labels:
                self.number_label(label)
        except DataOptionError:
            if is_named:
                raise
            return self.without_label()
        return self

    def without_label(self) -> "ImageColumns":
        """Returns the columns of images alone."""
        return self._replace(label=None, class_names=None, strings=False)

    def select(self, dataset: Any) -> Any:
        """Returns the data set with these columns alone, and images undecoded, as bytes or path."""
        return leave_undecoded(dataset.select_columns(self.list_names()), self.image)

    def record(self, row: dict[str, Any]) -> Record:
        """Returns the record of a row of `select(dataset)`. A null image becomes empty bytes, an unreadable image.

        Raises:
            DataOptionError: see `number_label`.
        """
        label = None if self.label is None else self.number_label(row[self.label])
        return read_cell(row[self.image], label, self.options)

    def number_label(self, label: str | float | None) -> int | None:
        """Returns the number of a label as it stands in a row; None, NaN and an empty string are no label.

        pandas makes floats of integers where a row has none.

        Raises:
            DataOptionError: it is a string that none of the numbered classes has, or an integer that torch cannot hold,
                or a float that is no whole number, or stands for several.
        """
        if label is None or label == "" or label != label:  # noqa: PLR0124  (NaN)
            return None
        if isinstance(label, str):
            if label not in self.numbers:
                raise DataOptionError(f"the class {label!r} is none of the {len(self.numbers)}: {[*self.numbers]}.")
            return self.numbers[label]
        if isinstance(label, float) and not label.is_integer():
            raise DataOptionError(
                f"the column {self.label!r} holds the label {label}, which is no whole number: write classes as "
                "integers or strings, or choose another label_column."
            )
        if isinstance(label, float) and abs(label) >= LARGEST_FLOAT:
            raise DataOptionError(
                f"the column {self.label!r} holds the label {label:.0f} as a float, which stands for several integers: "
                "write it as an integer or a string."
            )
        if label > LARGEST_LABEL:
            raise DataOptionError(
                f"the column {self.label!r} holds the label {label}, and {LARGEST_LABEL} is the largest that is read: "
                "write it as a string."
            )
        return int(label)


def refuse_high_class(column: str, highest: int) -> None:
    """Refuses numbers of classes for which a list or a classifier up to the highest would take the memory.

    Raises:
        DataOptionError: the highest is more than MOST_CLASSES allow.
    """
    if highest >= MOST_CLASSES:
        raise DataOptionError(
            f"label_column {column!r} has the class {highest}, and each number up to it would be a class, of which "
            f"{MOST_CLASSES:,} are allowed: number the classes from 0 on, or write them as strings."
        )


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


def find_label(features: "datasets.Features") -> str | None:
    """Returns the only class column, or else one called "label" that holds labels; None without either."""
    import datasets

    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if len(classes) == 1:
        return classes[0]
    return "label" if name_label_kind(features.get("label")) in LABEL_KINDS else None


def name_label_kind(feature: Any) -> str | None:
    """Returns what a column holds: one of LABEL_KINDS, of which ClassLabel and floats are INTEGERS, or another type;
    None for nulls alone.
    """
    import datasets

    if isinstance(inner := getattr(feature, "feature", None), datasets.Value | datasets.ClassLabel):
        return f"lists of {name_label_kind(inner)}"
    if not isinstance(feature, datasets.Value | datasets.ClassLabel):  # an Array2D has a dtype, too
        return str(feature)
    if feature.dtype == "null":
        return None
    if is_string(feature):
        return STRINGS
    if feature.dtype == "bool":
        return BOOLEANS
    return INTEGERS if "int" in feature.dtype or is_float(feature) else str(feature)


def is_float(feature: Any) -> bool:
    """Returns whether a column holds floats."""
    return str(getattr(feature, "dtype", "")).startswith("float")
