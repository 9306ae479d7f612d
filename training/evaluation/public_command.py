# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes commands that can be published: without folders of the machine, URLs, and what concerns one machine alone."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.options.provenance import find_provenance


# Options that do not change a result, and concern one machine alone.
PRIVATE_OPTIONS = ("--output", "--features", "--device", "--workers", "--part_size")
NUMBER = re.compile(r"[\d.,%e+-]+")


def make_public_command(words: Sequence[str], model: str) -> str:
    """Makes the command that others would call from `sys.argv` of a program. MODEL stands for `model`.

    Names on the Hub stay; FOLDER and URL stand for other data and models.
    """
    script = Path(words[0]).resolve()
    return shlex.join(["python", f"{script.parent.name}/{script.name}", *make_public_words(words[1:], model)])


def make_public_words(words: Sequence[str], model: str) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in PRIVATE_OPTIONS:
            if not equals:
                next(rest)
        elif word == model:
            yield "MODEL"
        else:
            named = equals and (option.startswith("--") or option.isidentifier())  # --OPTION=VALUE or NAME=DATA
            yield f"{option}={hide_place(value)}" if named else hide_place(word)


def hide_place(word: str) -> str:
    """Returns a word as it is, unless it names a place that is not on the Hub."""
    is_place = os.sep in word or ":" in word or os.path.exists(word)
    return find_provenance(word).word if is_place and not NUMBER.fullmatch(word) else word
