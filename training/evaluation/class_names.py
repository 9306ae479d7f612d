# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbers the classes of several data sets alike, by their names, whatever order each of them numbers them in."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.storage.identity import compose


INTEGER = re.compile(r"[0-9]{1,18}")
SHOWN = 8  # classes of each data set in a message


class ClassNameError(EsViTError, ValueError):
    """Raised when the classes of two data sets cannot be compared."""


def are_integers(names: list[str]) -> bool:
    """Returns whether all names are integers, no two of them the same."""
    return all(INTEGER.fullmatch(name) for name in names) and len({int(name) for name in names}) == len(names)


def number_classes(named: Sequence[list[str] | None]) -> list[Tensor | None]:
    """Returns for each data set the common number of each of its classes; None where its own numbers are common.

    Classes are the same if their names are equal, whichever code points their accents have. Names that all are
    integers, such as the folders 0, 1, ..., 11, are compared as integers, also with the numbers of a data set that has
    no names.

    Args:
        named: the names of each data set's classes; None if labels are numbers.

    Raises:
        ClassNameError: one has numbers, and another has names that are none.
    """
    named = [None if names is None else [*map(compose, names)] for names in named]
    known = [names for names in named if names is not None]
    if all(map(are_integers, known)):
        return [None if names is None else torch.tensor([int(name) for name in names]) for names in named]
    if len(known) < len(named):
        words = next(names for names in known if not are_integers(names))
        raise ClassNameError(
            f"the classes of one data set have the names {_show(words)}, and those of another are numbers without "
            "names: nothing says which are the same. Name the classes of both, or choose another label_column."
        )
    number = {name: index for index, name in enumerate(dict.fromkeys(name for names in known for name in names))}
    return [torch.tensor([number[name] for name in names]) for names in known]


def match_classes(classes: list[str], own: list[str] | None) -> dict[int | None, int]:
    """Returns the place in `classes` of each number of a class of a source, which are called `own` or have no names.

    Raises:
        ClassNameError, DataOptionError: it has a class that is none of `classes`.
    """
    [known, numbers] = number_classes([classes, own])
    places = {number: place for place, number in enumerate(known.tolist())}  # type: ignore[union-attr]
    if own is None or numbers is None:
        return places
    if unknown := [name for name, number in zip(own, numbers.tolist(), strict=True) if number not in places]:
        raise DataOptionError(f"the classes {unknown} are none of the training images': {classes}.")
    return {label: places[number] for label, number in enumerate(numbers.tolist())}


def check_common(train: Tensor, test: Tensor, train_names: list[str] | None, test_names: list[str] | None) -> None:
    """Checks that training and test data have a class in common.

    Args:
        train, test: the common numbers of their labels.

    Raises:
        ClassNameError: they have none.
    """
    if len(train) and len(test) and not torch.isin(test, train).any():
        lists = [_show(names or _list_numbers(labels)) for names, labels in ((train_names, train), (test_names, test))]
        raise ClassNameError(
            f"the training data have the classes {lists[0]}, and the test data {lists[1]}: none is in both. Choose "
            "another label_column, or give the classes the same names."
        )


def _list_numbers(labels: Tensor) -> list[str]:
    return [str(number) for number in labels.unique().tolist()]


def _show(names: list[str]) -> str:
    return f"{', '.join(map(repr, names[:SHOWN]))}{f' ... ({len(names)} in all)' if len(names) > SHOWN else ''}"
