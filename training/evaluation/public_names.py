# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes names of data and commands that can be published, without folders of the machine, passwords or queries."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from training.options.hub_names import is_hub_name


# Options that do not change a result, and concern one machine alone.
PRIVATE_OPTIONS = ("--output", "--features", "--device", "--workers", "--part_size")


def make_public_name(data: str) -> str:
    """Makes the public name of a data source that an option `DATA` or `DATA:SPLIT` gives.

    Returns the name of a folder without its path, an address without user name, password and query, and the name of a
    data set on the Hub unchanged.
    """
    address = urlsplit(data)
    if address.scheme and address.netloc:
        return f"{address.scheme}://{address.hostname}{address.path}"
    return data if is_on_hub(data) else Path(data).name


def is_on_hub(data: str) -> bool:
    """Returns whether a data source or `init_from` is a name on the Hub."""
    name = data if Path(data).exists() else data.partition(":")[0]
    return is_hub_name(name) and not Path(name).exists()


def make_public_command(words: Sequence[str], model: str) -> str:
    """Makes the command that others would call from `sys.argv` of a program. MODEL stands for `model`."""
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
            yield f"{option}={make_public_name(value)}" if named else make_public_name(word)
