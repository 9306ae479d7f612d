# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the data sets of a transfer evaluation, and opens their images, which have one class or several.

    entries = read_table(TABLE)                    # {"food101": TransferSet(...), ...}
    train = open_split(entries["voc2007"], entries["voc2007"].train)
    train.source, train.targets                    # images, and targets [N, K] if images have several classes

`transfer_datasets.yaml` describes the fields.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import GatedRepoError
from torch import Tensor

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError
from modeling_esvit.images.decoding import DEFAULT, DecodingOptions
from modeling_esvit.images.folders import LeftOut
from modeling_esvit.storage.url_secrets import hide_secrets
from training.data.columns import find_column, refuse_high_class
from training.data.left_out import warn_of_left_out
from training.data.named_data import split_data_name, split_train_and_test
from training.data.sources import DatasetSource, ImageSource, find_rows_access, open_source
from training.data.stored_rows import load_rows
from training.evaluation.class_names import number_classes
from training.evaluation.transfer_metrics import METRICS, MULTI_LABEL
from training.features.bank import FeatureBank
from training.options.recipes import read_yaml


TABLE = Path(__file__).with_name("transfer_datasets.yaml")
LISTS: dict[str, tuple[type, str]] = {
    "sizes": (int, "a list of two whole numbers"),
    "middle_of": (str, "a list of texts"),
}
COUNTS = ("classes", "tune_per_class")  # fields that are whole numbers; those that are no lists either are texts
ROW = "__row__"  # column of row numbers, which lead from an image to its row in the targets


class TransferTableError(EsViTError, ValueError):
    """Raised when a table, a data set in it or a name of one cannot be used."""


@dataclass(frozen=True)
class TransferSet:
    """Holds a data set; `transfer_datasets.yaml` describes the fields."""

    name: str
    train: str
    test: str
    validation: str | None = None
    image: str | None = None
    label: str | None = None
    config: str | None = None
    revision: str | None = None
    metric: str = "accuracy"
    classes: int | None = None
    sizes: tuple[int, int] | None = None
    tune_per_class: int | None = None
    middle_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise TransferTableError(f"{self.name}: the metric {self.metric!r} is not one of {', '.join(METRICS)}.")
        if self.metric == MULTI_LABEL and self.tune_per_class is not None:
            raise TransferTableError(
                f"{self.name}: tune_per_class needs images with one class; {MULTI_LABEL} is for images with several."
            )
        split_train_and_test(self.train, self.test)

    @property
    def splits(self) -> dict[str, str]:
        """Returns the data of train, validation and test, as far as they exist, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: data for name, data in named.items() if data is not None}


def read_table(path: Path) -> dict[str, TransferSet]:
    """Reads a table of data sets.

    Raises:
        OptionError: the file is not YAML.
        TransferTableError: the file is not a mapping of names to the fields of `TransferSet`.
        OSError: there is no such file.
    """
    table = read_yaml(path)
    if not isinstance(table, dict) or not all(isinstance(values, dict) for values in table.values()):
        raise TransferTableError(f"{path} must map the name of each data set to its fields.")
    return {str(name): make_set(str(name), values) for name, values in table.items()}


def make_set(name: str, values: dict[str, Any]) -> TransferSet:
    unknown = set(values) - {field.name for field in fields(TransferSet)}
    if unknown or not {"train", "test"} <= set(values):
        raise TransferTableError(
            f"{name}: a data set needs the fields train and test. "
            f"Unknown fields: {', '.join(sorted(unknown)) or 'none'}."
        )
    for field, value in values.items():
        check_value(name, field, value)
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    named = {key: hide_secrets(values[key]) for key in ("train", "test", "validation") if values.get(key) is not None}
    return TransferSet(name, **{**values, **lists, **named})


def check_value(name: str, field: str, value: Any) -> None:
    """Checks the type of a field of a data set: YAML makes a number of `config: 2012`.

    Raises:
        TransferTableError: it is not that of the field.
    """
    if field in LISTS:
        kind, wanted = LISTS[field]
        fits = isinstance(value, list) and all(isinstance(each, kind) for each in value)
        fits = fits and (field != "sizes" or len(value) == 2)
    elif field in COUNTS:
        wanted, fits = "a whole number from 1 on", isinstance(value, int) and value > 0
    else:
        wanted, fits = "a text (a number needs quotes)", isinstance(value, str)
    if not fits and (value is not None or field in ("train", "test")):
        raise TransferTableError(f"{name}: the field {field} must be {wanted}, got {value!r}.")


class OpenSplit(NamedTuple):
    """Holds the images of a split.

    Attributes:
        targets: `[N, K]` if images have several classes: 1 for each class of an image and 0 for the others. The label
            of an image is then its row in `targets`.
        class_names: names of the K columns.
    """

    source: ImageSource
    targets: Tensor | None = None
    class_names: list[str] | None = None


def open_split(
    entry: TransferSet, data: str, streaming: bool = False, decoding: DecodingOptions = DEFAULT
) -> OpenSplit:
    """Opens a split of a data set. `streaming` has no effect on images with several classes or `middle_of`.

    Raises:
        DataNotFoundError, EmptySourceError, DataOptionError: the data cannot be opened.
    """
    data, split = split_data_name(data)
    place: dict[str, Any] = {"split": split, "config_name": entry.config, "revision": entry.revision}
    if entry.metric != MULTI_LABEL and not entry.middle_of:
        place |= {"image_column": entry.image, "label_column": entry.label}
        source = open_source(data, **place, streaming=streaming, decoding=decoding)
        warn_of_left_out(entry.name, source)
        return OpenSplit(source)
    decoding = decoding.restrict_to(find_rows_access(data, entry.revision))
    left_out = LeftOut()
    rows = load_rows(data, **place, label_column=entry.label, left_out=left_out)
    rows = select_middle_rows(rows, entry.middle_of) if entry.middle_of else rows
    opened = make_open_split(entry, rows, decoding)
    opened.source.left_out.update(left_out)
    warn_of_left_out(entry.name, opened.source)
    return opened


def make_open_split(entry: TransferSet, rows: Any, decoding: DecodingOptions) -> OpenSplit:
    """Makes the images and targets of a split of its rows.

    Raises:
        EmptySourceError, DataOptionError: the rows have no images, or not the classes that the entry names.
    """
    if entry.metric != MULTI_LABEL:
        return OpenSplit(DatasetSource(rows, entry.image, entry.label, decoding))
    if entry.label is None:
        raise DataOptionError(f"{entry.name}: name the column that lists the classes of an image in the field label.")
    targets, names = make_class_targets(rows, entry.label)
    numbered = rows.remove_columns(entry.label).add_column(ROW, range(len(rows)))
    return OpenSplit(DatasetSource(numbered, entry.image, ROW, decoding), targets, names)


def select_middle_rows(rows: Any, columns: tuple[str, ...]) -> Any:
    """Selects the middle one of all rows with equal `columns`, in the order of their first rows."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, key in enumerate(zip(*(find_column(rows, column) for column in columns), strict=True)):
        groups.setdefault(key, []).append(number)
    return rows.select([numbers[len(numbers) // 2] for numbers in groups.values()])


def make_class_targets(rows: Any, column: str) -> tuple[Tensor, list[str] | None]:
    """Makes targets `[N, K]` from a column of lists, and returns them with the names of the classes, if known.

    A list holds numbers or names of classes. If all lists have the same length, it may hold a 0 or 1 for each class.


    Raises:
        DataOptionError: the column does not exist, or holds something else.
    """
    import datasets

    lists = list(find_column(rows, column))
    inner = getattr(rows.features[column], "feature", None)
    if not all(isinstance(each, list) for each in lists):
        raise DataOptionError(
            f"label {column!r} holds {rows.features[column]}, but must hold a list for each image, with its classes."
        )
    values = {value for each in lists for value in each}
    if isinstance(inner, datasets.ClassLabel):
        return encode_multi_hot(lists, len(inner.names)), inner.names
    if all(isinstance(value, str) for value in values):
        names = sorted(values)
        number = {name: index for index, name in enumerate(names)}
        return encode_multi_hot([[number[name] for name in each] for each in lists], len(names)), names
    if values <= {0, 1} and {len(each) for each in lists} != {1} and len({len(each) for each in lists}) == 1:
        return torch.tensor(lists, dtype=torch.int64), None
    if not all(isinstance(value, int) and value >= 0 for value in values):
        raise DataOptionError(
            f"label {column!r} holds {sorted(values)[:5]}..., but its lists must be of class numbers, or of 0 and 1."
        )
    refuse_high_class(column, max(values, default=-1))
    return encode_multi_hot(lists, max(values, default=-1) + 1), None


def encode_multi_hot(lists: list[list[int]], num_classes: int) -> Tensor:
    targets = torch.zeros(len(lists), num_classes, dtype=torch.int64)
    for row, classes in enumerate(lists):
        targets[row, classes] = 1
    return targets


def unify_labels(splits: list[tuple[OpenSplit, FeatureBank]]) -> list[Tensor]:
    """Returns the labels `[N]`, or targets `[N, K]`, of each bank, numbered so that equal numbers mean equal classes.

    `number_classes` says which classes are the same.

    Raises:
        ClassNameError: the classes of the splits cannot be compared.
    """
    places = number_classes([split.class_names or bank.class_names for split, bank in splits])
    widths = [0 if split.targets is None else split.targets.shape[1] for split, _ in splits]
    width = max(own if place is None else int(place.max()) + 1 for own, place in zip(widths, places, strict=True))
    return [renumber_classes(split, bank, own, width) for (split, bank), own in zip(splits, places, strict=True)]


def renumber_classes(split: OpenSplit, bank: FeatureBank, places: Tensor | None, width: int) -> Tensor:
    """Numbers the classes of a split by `places`, or keeps their numbers if it is None. Targets get `width` columns."""
    if split.targets is None:
        return bank.labels if places is None else places[bank.labels]
    targets = split.targets[bank.labels]
    wide = torch.zeros(len(targets), width, dtype=torch.int64)
    wide[:, torch.arange(targets.shape[1]) if places is None else places] = targets
    return wide


def classify_failure(error: Exception) -> str:
    """Returns the status of data that cannot be used.

    "gated" means that its owner has to grant access, "missing" that it was not found, "failed" anything else.
    """
    cause: BaseException | None = error
    while cause is not None:
        # `datasets` has no class of its own for this error.
        if isinstance(cause, GatedRepoError) or "is a gated dataset on the Hub" in str(cause):
            return "gated"
        cause = cause.__cause__ or cause.__context__
    return "missing" if isinstance(error, DataNotFoundError | ConnectionError) else "failed"
