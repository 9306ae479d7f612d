# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads recipes: YAML files that map names of options to values."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from modeling_esvit.storage.manifest import describe_change
from modeling_esvit.storage.paths import expand_home
from modeling_esvit.storage.url_secrets import hide_secrets
from modeling_esvit.storage.yaml_aliases import check_aliases
from training.options.errors import OptionError


class RecipeLoader(yaml.SafeLoader):
    """Takes only `true` and `false` for booleans, as YAML 1.2 does: in `mixed_precision: no`, "no" is a word."""


BOOLEAN = "tag:yaml.org,2002:bool"
RecipeLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != BOOLEAN or letter in "tTfF"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_recipe(recipe: str, folder: Path) -> dict[str, Any]:
    """Reads a recipe by its path, or by its name among those of `folder`.

    Raises:
        OptionError: There is no such recipe, it is not a mapping of options, or not as its run wrote it.
    """
    path = expand_home(recipe) if Path(recipe).suffix in (".yaml", ".yml") else folder / f"{recipe}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.yaml")))
        hint = " It is a folder; images are `data`." if Path(recipe).is_dir() else ""
        nearest = difflib.get_close_matches(recipe, [each.stem for each in folder.glob("*.yaml")], n=1)
        meant = f"did you mean {nearest[0]!r}? Otherwise " if nearest else ""
        raise OptionError(f"There is no recipe {recipe!r}; {meant}give a YAML file or one of: {known}.{hint}")
    values = read_yaml(path) or {}
    if change := describe_change(path):
        raise OptionError(f"The recipe {str(path)!r} is damaged or was changed: {change}, or give a copy of the file.")
    if not isinstance(values, dict):
        raise OptionError(f"The recipe {str(path)!r} must be a mapping of option names to values.")
    return values


def read_yaml(path: Path) -> Any:
    """Returns what a YAML file of a user holds.

    Raises:
        OptionError: It is no YAML, or no text in UTF-8.
        OSError: There is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        check_aliases(text)
        return yaml.load(text, RecipeLoader)  # noqa: S506  (a safe loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise OptionError(f"{str(path)!r} is not valid YAML: {hide_secrets(str(error))}") from error


def spell(name: str, value: Any) -> list[str]:
    """Writes an option as on the command line, in one word where it has one value, which may begin with a dash.

    Arrays and tensors are taken as lists.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str | os.PathLike) or not isinstance(value, Iterable):
        return [f"--{name}={spell_value(value)}"]
    return [f"--{name}", *map(spell_value, value)]


def spell_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
