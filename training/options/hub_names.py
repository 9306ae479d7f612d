# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Recognises and checks names of repositories on the Hub."""

import re

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from training.options.errors import OptionError


LONGEST = 64  # characters of a name that is made here; the Hub allows 96 with the owner and a slash
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_name(text: str) -> bool:
    """Returns whether `text` has the form OWNER/NAME; a relative path can have it, too."""
    return HUB_NAME.fullmatch(text) is not None


def make_repo_name(text: str) -> str:
    """Returns a name for a repository that is as near to `text`, the name of a folder, as the Hub allows."""
    name = re.sub(r"[-.]{2,}", "-", re.sub(r"[^A-Za-z0-9_.-]+", "-", text))
    return name[:LONGEST].strip("-.").removesuffix(".git") or "NAME"


def check_repo_id(repo_id: str) -> None:
    """Checks that `repo_id` can be the full name of a repository.

    Raises:
        OptionError: It cannot.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise OptionError(f"{repo_id!r} is no name on the Hub: {error}") from error
    if "/" not in repo_id:
        raise OptionError(f"{repo_id!r} is no full name on the Hub; it must be user/name or organisation/name.")
