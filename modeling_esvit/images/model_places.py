# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the files of a model lead nowhere else: a stranger may have written them.

Fields of a configuration can name other configurations, weights and kernels, in folders of this machine or on the Hub,
which transformers and timm would read, or run.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.names import show_name
from modeling_esvit.images.places import check_regular, is_inside
from modeling_esvit.images.weight_names import WEIGHTS, check_names, check_stored_names
from modeling_esvit.storage.contents import check_itself


SAFETENSORS = ".safetensors"
READ = (".json", SAFETENSORS, ".bin", ".pt", ".pth")  # extensions of what is read of a model
KERNELS = "_implementation"  # the end of fields that may name kernels of a repository
ANY_PLACE = re.compile("")
TIMM_PLACE = re.compile("(hf[-_]hub|local[-_]dir):")  # of a network that timm reads from elsewhere
FOREIGN = {
    **dict.fromkeys(("backbone_config", "checkpoint_path"), ANY_PLACE),
    **dict.fromkeys(("backbone", "architecture"), TIMM_PLACE),
    KERNELS: re.compile(".*/"),
}


class ModelPlaceError(EsViTError, ValueError):
    """Raised when a file of a model names something that is no part of it."""


def check_fields(fields: Any) -> None:
    """Checks the texts in a `config.json`, before a configuration is made of them.

    Raises:
        ModelPlaceError: one of them names another place.
    """
    for name, text in list_texts("", fields):
        kind = KERNELS if name.endswith(KERNELS) else name
        if kind in FOREIGN and FOREIGN[kind].match(text):
            raise ModelPlaceError(f"{name} in its config.json names {show_name(text)}, which is no part of the model.")


def list_texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yields the texts in a value of JSON, each with the name of its field; kernels may be named for each part."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for each, inner in value.items():
            yield from list_texts(name if name.endswith(KERNELS) else each, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from list_texts(name, inner)


def check_files(folder: Path) -> None:
    """Checks what is read of a model's folder: its files are regular, an index names such alone, names can be shown.

    Raises:
        ModelPlaceError: an index names a file elsewhere.
        PlaceError: one is a pipe or a device, which may have no end.
        StandInError: one of weights is a pointer of Git LFS, or a web page.
        WeightNameError: a tensor has a name that would change a terminal.
    """
    weights: set[str] = set()
    for file in sorted(folder.iterdir()):
        if file.suffix in READ and file.exists() and not file.is_dir():
            check_regular(str(file))
            if ".index." in file.name:
                weights |= _check_index(file)
            elif WEIGHTS.fullmatch(file.name):
                weights.add(file.name)
    files = [file for file in sorted(folder / name for name in weights) if file.is_file()]  # transformers misses others
    safe = [file for file in files if file.suffix == SAFETENSORS]
    for file in safe or files:  # safetensors are read in place of others, which a clone may have as pointers
        check_itself(file)
    for file in files:
        check_stored_names(file)


def _check_index(index: Path) -> set[str]:
    """Returns the names of the files that an index names; what is wrong with a damaged one, transformers says."""
    folder = os.path.abspath(index.parent)
    try:
        tensors = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = {*tensors.values()}
        places = {name: os.path.abspath(os.path.join(folder, name)) for name in names}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return set()
    for name, place in places.items():
        if not is_inside(place, folder):
            raise ModelPlaceError(f"{index.name} names {show_name(name)}, which is no file of the model.")
    check_names(tensors, index.name)
    return names
