# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the base of all errors that a user can put right, and the one of a word that is no choice."""

from collections.abc import Iterable


class EsViTError(Exception):
    """Raised, as one of its subclasses, when an input, option, file or model cannot be used.

    The message says what is wrong, with which value, and what to do; a program prints it alone. Subclasses also derive
    from the built-in error that fits, such as `ValueError`.
    """


class ChoiceError(EsViTError, ValueError):
    """Raised when a value is none of the words among which to choose."""


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raises a ChoiceError if the value of the argument `name` is none of the choices."""
    words = list(choices)
    if value not in words:
        raise ChoiceError(f"{name} is {value!r}; choose one of {', '.join(map(repr, words))}.")
