# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says where data or a model came from, and by what name others may know it: only a name on the Hub is public.

Whether `patients/ada` is a folder or a name on the Hub depends on the current folder. So it is decided where the data
are opened or the model is loaded, and a run records it.
"""

import os
import re
from typing import Literal, NamedTuple

from modeling_esvit.storage.paths import expand_home
from modeling_esvit.storage.weights_record import WeightsRecord
from training.options.hub_names import is_hub_name


TIMM = re.compile(r"timm:[\w.]+")  # a network of timm by its name; timm:local-dir:FOLDER names a folder
HUB_FILES = re.compile(r"hf://datasets/(?P<name>[^/@]+/[^/@]+)(@[^/]*)?(/.*)?")
USUAL_SPLITS = ("train", "training", "validation", "valid", "val", "test")
KINDS = ("folder", "hub", "url")
PLACEHOLDERS = {"folder": "FOLDER", "url": "URL"}


class Provenance(NamedTuple):
    """Holds where something came from, and what of its name is public.

    Attributes:
        kind: A folder of this machine, the Hub (or timm), or another URL.
        name: The name on the Hub; None for everything else.
        split: The split of DATA:SPLIT if it is one on the Hub or has a usual name; a folder's may be anything.
        weights: Of a model in a folder, what is recorded there of its weights.
    """

    kind: Literal["folder", "hub", "url"]
    name: str | None = None
    split: str | None = None
    weights: WeightsRecord | None = None

    @property
    def public_data(self) -> str:
        """Returns what a text says of the data."""
        return self.name or {"folder": "a folder of images", "url": "images at a URL"}[self.kind]

    @property
    def public_model(self) -> str:
        """Returns what a text says of the model."""
        return self.name or {"folder": "a local model", "url": "a model at a URL"}[self.kind]

    @property
    def word(self) -> str:
        """Returns what stands for it in a command that others see: DATA or DATA:SPLIT."""
        return (self.name or PLACEHOLDERS[self.kind]) + (f":{self.split}" if self.split else "")


def find_provenance(text: str) -> Provenance:
    """Returns where data (DATA or DATA:SPLIT) or a model came from that were loaded by this text in this folder."""
    place, colon, split = text.rpartition(":")
    if os.path.exists(expand_home(text)) or not colon or "/" in split:
        place, split = text, ""
    usual = split if split in USUAL_SPLITS else None
    if TIMM.fullmatch(text) and not os.path.exists(text):
        return Provenance("hub", text)
    if os.path.exists(expand_home(place)):
        return Provenance("folder", split=usual)
    if files := HUB_FILES.fullmatch(place):
        return Provenance("hub", files["name"], usual)
    if "://" in text:
        return Provenance("url", split=usual)
    if is_hub_name(place):
        return Provenance("hub", place, split or None)
    return Provenance("folder", split=usual)  # a glob, or a list in braces
