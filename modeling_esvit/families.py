# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists the families of architectures.

A new family is a file with its encoder and its row, a [`Family`], and a line here. Fields that no other family has go
to `configuration_esvit.py`.
"""

from collections.abc import Iterable
from typing import Any

from .auto_backbone import AUTO
from .cvt import CVT
from .family import EsViTArchitectureError, Family
from .swin import SWIN
from .vil import VIL
from .vit import VIT


FAMILIES: dict[str, Family] = {}
ARCHITECTURES: dict[str, dict[str, Any]] = {}  # fields of each published architecture, by its name


def register_family(family: Family) -> None:
    """Makes a family known to configurations, models and programs."""
    FAMILIES[family.key] = family
    ARCHITECTURES.update({name: {"architecture": family.key, **fields} for name, fields in family.variants.items()})


for row in (SWIN, CVT, VIL, VIT, AUTO):
    register_family(row)
ARCHITECTURES["auto"] = {"architecture": "auto"}  # needs a backbone_config


def find_owners(option: str) -> list[Family]:
    """Returns the families that take an option; none for a field that all take."""
    return [family for family in FAMILIES.values() if option in family.options]


def list_options() -> list[str]:
    """Returns the names of the fields that not every family takes."""
    return list(dict.fromkeys(name for family in FAMILIES.values() for name in family.options))


def require_fields(architecture: str, names: Iterable[str]) -> None:
    """Checks that networks of a family have these fields.

    Raises:
        EsViTArchitectureError: they lack one; the message names the families that have it.
    """
    family = FAMILIES[architecture]
    owners = {name: find_owners(name) for name in names if name not in family.options}
    strange = {name: found for name, found in owners.items() if found}
    if strange:
        known = "; ".join(f"{name} is for a {' or '.join(f.name for f in found)}" for name, found in strange.items())
        hint = " Those of a backbone of transformers stand in its backbone_config." if family.wraps_backbone else ""
        raise EsViTArchitectureError(f"{known}; not for a {family.name}.{hint}")
