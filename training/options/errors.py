# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the errors of options, and the base of the errors that all processes of a run raise together."""

from modeling_esvit.errors import EsViTError


class SharedError(EsViTError):
    """Raised by every process at the same point of a run, so that the main one alone needs to report it."""


class OptionError(SharedError, ValueError):
    """Raised when an option does not exist, or has a value that cannot work."""
