# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Selects the options of a run that may be published, as the sections that define them declare it.

An option that no section declares is private. One that names data or a model is public if that came from the Hub; else
its place is taken by words that tell nothing of the machine.
"""

from collections.abc import Mapping
from typing import Any

from training.options.provenance import Provenance, find_provenance
from training.options.sections import SECTIONS


PUBLIC = frozenset(name for section in SECTIONS for name in section._public)
# Options that name data or models, and the others whose meaning depends on one of them, such as its split.
NAMED_DATA = frozenset(name for section in SECTIONS for name in getattr(section, "_named_data", ()))
NAMED_MODELS = frozenset(name for section in SECTIONS for name in getattr(section, "_named_models", ()))
PUBLIC_WITH: dict[str, str] = {
    name: owner
    for section in SECTIONS
    for owner, names in getattr(section, "_public_with", {}).items()
    for name in names
}
UNKNOWN = Provenance("folder")


def find_provenances(options: Mapping[str, Any]) -> dict[str, Provenance]:
    """Returns where the data and models came from that the options name, by the options that were given."""
    names = sorted(NAMED_DATA | NAMED_MODELS)
    return {name: find_provenance(options[name]) for name in names if options.get(name) is not None}


def select_public_options(options: Mapping[str, Any], provenances: Mapping[str, Provenance]) -> dict[str, Any]:
    """Returns the public ones of `options`. What `provenances` do not know counts as private."""
    public = {}
    for name, value in options.items():
        if name in PUBLIC:
            public[name] = value
        elif value is not None and name in NAMED_DATA:
            public[name] = provenances.get(name, UNKNOWN).public_data
        elif value is not None and name in NAMED_MODELS:
            public[name] = provenances.get(name, UNKNOWN).public_model
        elif name in PUBLIC_WITH and provenances.get(PUBLIC_WITH[name], UNKNOWN).kind == "hub":
            public[name] = value
    return public
