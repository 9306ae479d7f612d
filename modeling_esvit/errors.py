# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the base of all errors that a user can put right."""


class EsViTError(Exception):
    """Raised, as one of its subclasses, when an input, option, file or model cannot be used.

    The message says what is wrong, with which value, and what to do; a program prints it alone. Subclasses also derive
    from the built-in error that fits, such as `ValueError`.
    """
