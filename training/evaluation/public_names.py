# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What may be told of the data and commands of a run: names, but no folders of the machine, passwords or queries."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from training.options.hub_names import is_hub_name


# Options that change no result, but say where things lie on a machine.
OWN_MATTERS = ("--output", "--output_dir", "--features", "--device", "--workers", "--part_size")


def public_name(data: str) -> str:
    """What may be told of a data source, an option `DATA` or `DATA:SPLIT`: of a folder its name without the path, of an
    address no user name, password or query, of a data set on the Hub all.
    """
    address = urlsplit(data)
    if address.scheme and address.netloc:
        return f"{address.scheme}://{address.hostname}{address.path}"
    return data if on_hub(data) else Path(data).name


def on_hub(data: str) -> bool:
    """Whether a data source or `init_from` is a name on the Hub."""
    name = data if Path(data).exists() else data.partition(":")[0]
    return is_hub_name(name) and not Path(name).exists()


def public_command(words: Sequence[str], model: str) -> str:
    """A command of this project, `sys.argv`, as others would call it; MODEL stands for `model`."""
    script = Path(words[0]).resolve()
    return shlex.join(["python", f"{script.parent.name}/{script.name}", *public_words(words[1:], model)])


def public_words(words: Sequence[str], model: str) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in OWN_MATTERS:
            if not equals:
                next(rest)
        elif word == model:
            yield "MODEL"
        else:
            named = equals and (option.startswith("--") or option.isidentifier())  # an option, or NAME=DATA
            yield f"{option}={public_name(value)}" if named else public_name(word)
