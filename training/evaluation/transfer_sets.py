# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The data sets of a transfer evaluation: which they are, and their images with one class or several.

    entries = read_table(TABLE)                    # {"food101": TransferSet(...), ...}
    train = open_part(entries["voc2007"], entries["voc2007"].train)
    train.source, train.targets                    # images, and [N, K] for images of several classes

`transfer_datasets.yaml` describes the fields.
"""

import itertools
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from huggingface_hub.errors import GatedRepoError
from torch import Tensor

from modeling_esvit.errors import EsViTError
from training.data.columns import DataNotFoundError, DataOptionError, find_column
from training.data.named_data import split_data_name, split_train_and_test
from training.data.sources import DatasetSource, ImageSource, load_rows, open_source
from training.evaluation.transfer_metrics import METRICS, MULTI_LABEL
from training.features.bank import FeatureBank


TABLE = Path(__file__).with_name("transfer_datasets.yaml")
ROW = "__row__"  # the column of row numbers, by which the classes of an image are found again


class TransferTableError(EsViTError, ValueError):
    """A table, or a name in it, that cannot be."""


@dataclass(frozen=True)
class TransferSet:
    """See `transfer_datasets.yaml`."""

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
            raise TransferTableError(f"{self.name}: the metric {self.metric!r} is none of {', '.join(METRICS)}.")
        if self.metric == MULTI_LABEL and self.tune_per_class is not None:
            raise TransferTableError(
                f"{self.name}: tune_per_class is for images of one class, {MULTI_LABEL} for several."
            )
        split_train_and_test(self.train, self.test)

    @property
    def parts(self) -> dict[str, str]:
        """Of train, validation and test those that there are."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: data for name, data in named.items() if data is not None}


def read_table(path: Path) -> dict[str, TransferSet]:
    """Raises:
    TransferTableError: it is not a mapping of names to the fields of `TransferSet`.
    OSError: there is no such file.
    """
    table = yaml.safe_load(path.read_text())
    if not isinstance(table, dict) or not all(isinstance(values, dict) for values in table.values()):
        raise TransferTableError(f"{path} must map the name of each data set to its fields.")
    return {str(name): entry(str(name), values) for name, values in table.items()}


def entry(name: str, values: dict[str, Any]) -> TransferSet:
    unknown = set(values) - {field.name for field in fields(TransferSet)}
    if unknown or not {"train", "test"} <= set(values):
        raise TransferTableError(
            f"{name}: train and test are needed, and {sorted(unknown)} are no fields of a data set."
        )
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return TransferSet(name, **{**values, **lists})


class Part(NamedTuple):
    """The images of a split. Where they are of several classes, the label of each image is its row in `targets` [N, K],
    which are 1 for its classes, and `class_names` are those of the K columns.
    """

    source: ImageSource
    targets: Tensor | None = None
    class_names: list[str] | None = None


def open_part(entry: TransferSet, data: str, streaming: bool = False) -> Part:
    """`streaming` is for images of one class; of others, the rows are in place.

    Raises:
        DataNotFoundError, EmptySourceError, DataOptionError: see their descriptions.
    """
    data, split = split_data_name(data)
    place: dict[str, Any] = {"split": split, "config_name": entry.config, "revision": entry.revision}
    if entry.metric != MULTI_LABEL and not entry.middle_of:
        return Part(open_source(data, **place, image_column=entry.image, label_column=entry.label, streaming=streaming))
    rows = load_rows(data, **place)
    rows = middle_rows(rows, entry.middle_of) if entry.middle_of else rows
    if entry.metric != MULTI_LABEL:
        return Part(DatasetSource(rows, entry.image, entry.label))
    if entry.label is None:
        raise DataOptionError(f"{entry.name}: name the column that lists the classes of an image (label).")
    targets, names = class_targets(rows, entry.label)
    numbered = rows.remove_columns(entry.label).add_column(ROW, range(len(rows)))
    return Part(DatasetSource(numbered, entry.image, ROW), targets, names)


def middle_rows(rows: Any, columns: tuple[str, ...]) -> Any:
    """Of all rows that are equal in `columns` the middle one, in the order in which they begin."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, key in enumerate(zip(*(find_column(rows, column) for column in columns), strict=True)):
        groups.setdefault(key, []).append(number)
    return rows.select([numbers[len(numbers) // 2] for numbers in groups.values()])


def class_targets(rows: Any, column: str) -> tuple[Tensor, list[str] | None]:
    """Targets [N, K] of a column of lists: numbers or names of classes, or, all of one length, a 0 or 1 for each class.

    Raises:
        DataOptionError: there is no such column, or it holds something else.
    """
    import datasets

    lists = list(find_column(rows, column))
    inner = getattr(rows.features[column], "feature", None)
    if not all(isinstance(each, list) for each in lists):
        raise DataOptionError(
            f"label {column!r} holds {rows.features[column]}; several classes are a list for each image."
        )
    values = {value for each in lists for value in each}
    if isinstance(inner, datasets.ClassLabel):
        return multi_hot(lists, len(inner.names)), inner.names
    if all(isinstance(value, str) for value in values):
        names = sorted(values)
        number = {name: index for index, name in enumerate(names)}
        return multi_hot([[number[name] for name in each] for each in lists], len(names)), names
    if values <= {0, 1} and {len(each) for each in lists} != {1} and len({len(each) for each in lists}) == 1:
        return torch.tensor(lists, dtype=torch.int64), None
    if not all(isinstance(value, int) and value >= 0 for value in values):
        raise DataOptionError(
            f"label {column!r} holds {sorted(values)[:5]}...: lists are of class numbers, or of 0 and 1."
        )
    return multi_hot(lists, max(values, default=-1) + 1), None


def multi_hot(lists: list[list[int]], num_classes: int) -> Tensor:
    targets = torch.zeros(len(lists), num_classes, dtype=torch.int64)
    for row, classes in enumerate(lists):
        targets[row, classes] = 1
    return targets


def common_labels(parts: list[tuple[Part, FeatureBank]]) -> list[Tensor]:
    """The labels [N], or targets [N, K], of the images of each bank, so that equal numbers mean equal classes.

    Classes are the same if their names are; where a part has no names, if their numbers are.
    """
    names = [part.class_names or bank.class_names or [] for part, bank in parts]
    number = {name: index for index, name in enumerate(dict.fromkeys(itertools.chain(*names)))} if all(names) else {}
    width = len(number) or max(0 if part.targets is None else part.targets.shape[1] for part, _ in parts)
    places = [torch.tensor([number[name] for name in own]) if number else None for own in names]
    return [renumbered(part, bank, own, width) for (part, bank), own in zip(parts, places, strict=True)]


def renumbered(part: Part, bank: FeatureBank, places: Tensor | None, width: int) -> Tensor:
    """With the numbers `places` of its classes, or those that they have; targets get `width` columns."""
    if part.targets is None:
        return bank.labels if places is None else places[bank.labels]
    targets = part.targets[bank.labels]
    wide = torch.zeros(len(targets), width, dtype=torch.int64)
    wide[:, torch.arange(targets.shape[1]) if places is None else places] = targets
    return wide


def why_unavailable(error: Exception) -> str:
    """ "gated": its owner lets nobody read it who has not asked; else "missing" or, of data that is there, "failed"."""
    cause: BaseException | None = error
    while cause is not None:
        # `datasets` says so in words alone.
        if isinstance(cause, GatedRepoError) or "is a gated dataset on the Hub" in str(cause):
            return "gated"
        cause = cause.__cause__ or cause.__context__
    return "missing" if isinstance(error, DataNotFoundError | ConnectionError) else "failed"
