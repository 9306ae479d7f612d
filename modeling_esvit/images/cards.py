# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads what the card of a data set says of its files, and refuses one that leads to files elsewhere.

A card is a stranger's, as the rows are. `datasets` refuses one of the Hub that leads elsewhere, but follows one in a
folder to any other folder of this machine, and to any server.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.names import show_name
from modeling_esvit.images.places import ARCHIVES, is_inside
from modeling_esvit.storage.yaml_aliases import check_aliases, check_card


Configurations = list[Mapping[str, Any]]
CARD, SETTINGS = "README.md", ".huggingface.yaml"  # the second goes before the first
ADVICE = "If you trust it, name the files yourself, by a path, a glob or a URL."


def read_card(folder: Path) -> Mapping[str, Any]:
    """Returns the fields of the card of a folder; none without a card.

    Raises:
        DataOptionError: they are damaged.
    """
    from huggingface_hub import metadata_load

    card, settings, fields = folder / CARD, folder / SETTINGS, dict[str, Any]()
    try:
        if card.is_file():
            check_card(card.read_text(encoding="utf-8-sig"))
            fields = metadata_load(card) or {}
        if settings.is_file():
            text = settings.read_text(encoding="utf-8")
            check_aliases(text)
            fields |= yaml.safe_load(text) or {}
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise DataOptionError(f"the card of {str(folder)!r} is damaged: {' '.join(str(error).split())}") from error
    return fields


def list_configurations(folder: Path) -> Configurations:
    """Returns the configurations that the card of a folder describes.

    Raises:
        DataOptionError: it is damaged.
    """
    found = read_card(folder).get("configs") or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise DataOptionError(
            f"the card of {str(folder)!r} is damaged: its configs are no list of fields, but {found!r}"
        )
    return found


def names_files(configurations: Configurations) -> bool:
    """Returns whether a card says which files its configurations have."""
    return any("data_files" in each or "data_dir" in each for each in configurations)


def check_configurations(folder: Path, configurations: Configurations) -> None:
    """Checks that the card of a folder names files in that folder alone.

    Raises:
        DataOptionError: it names others.
    """
    place = str(folder.resolve())
    for each in configurations:
        for name in _list_texts([each.get("data_files"), each.get("data_dir")]):
            archives, _, file = name.rpartition("::")
            is_ours = "://" not in file and is_inside(os.path.normpath(os.path.join(place, file)), place)
            if not (is_ours and all(link.partition("://")[0] in ARCHIVES for link in archives.split("::") if link)):
                raise DataOptionError(
                    f"the card of {str(folder)!r} names {show_name(name)}, which is no file of that data set. {ADVICE}"
                )


def _list_texts(value: Any) -> Iterator[str]:
    """Yields the files that `data_files` names: one, or a list of them, or of those of splits."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _list_texts(value.get("path"))
    elif isinstance(value, list):
        for each in value:
            yield from _list_texts(each)
