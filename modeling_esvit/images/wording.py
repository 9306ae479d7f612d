# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says how many things there are, and for which reasons images cannot be read."""

import re
from collections.abc import Mapping


PLURAL = re.compile(r"^((?:[a-z]+ )?[a-z]*?(?:ss(?=es\b)|[a-z](?=s\b)))e?s\b")  # "files beside", "zip files", "classes"
NUMBER = re.compile("[0-9]+")
MOST_REASONS = 8  # that an error names
LONGEST_REASON = 500  # characters; a name in a row may have millions


def show_number(number: int, things: str) -> str:
    """Returns how many things there are, such as "2 zip files: unpack them" and "1 zip file: unpack it"."""
    if number == 1:
        things = re.sub(r"\bthem\b", "it", PLURAL.sub(r"\1", things))
    return f"{number} {things}"


def list_reasons(unreadable: Mapping[str, str], most: int) -> list[str]:
    """Returns up to `most` sentences on images that cannot be read, of which the first ones have different reasons.

    Args:
        unreadable: name of each image -> a sentence that has its name.
    """
    reasons = dict.fromkeys([*_find_kinds(unreadable), *unreadable.values()])
    return [*map(_shorten, [*reasons][:most])]


def show_reasons(unreadable: Mapping[str, str]) -> str:
    """Returns a sentence for each different reason why images cannot be read; see `list_reasons`."""
    return "; ".join(map(_shorten, _find_kinds(unreadable)[:MOST_REASONS]))


def _find_kinds(unreadable: Mapping[str, str]) -> list[str]:
    """Returns the first sentence of each reason, whatever names and numbers it has."""
    first = dict[str, str]()
    for name, reason in unreadable.items():
        first.setdefault(NUMBER.sub("", reason.replace(name, "")), reason)
    return [*first.values()]


def _shorten(reason: str) -> str:
    """Returns a sentence without its middle if it is long."""
    half = LONGEST_REASON // 2
    return reason if len(reason) <= LONGEST_REASON else f"{reason[:half]} ... {reason[-half:]}"
