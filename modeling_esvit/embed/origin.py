# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says of what model and images the features in a file are, so that a file is reused for the same ones alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from modeling_esvit.embed.files import Features, OutputError
from modeling_esvit.images.names import show_name
from modeling_esvit.storage.identity import Identity


# Settings that features depend on, and what a message calls them. Limits of size decide only which images there are.
DEPENDED_ON = {
    "weights": "another model",
    "processing": "images prepared in another way or size",
    "exif_orientation": "another --exif_orientation",
    "white_level": "another --white_level",
}
ADVICE = "Name another file, or delete this one to compute the features anew."


def make_origin(settings: dict[str, Any], identity: Identity) -> dict[str, Any]:
    """Returns what a file says of its features: settings of the call, and the identity of the images.

    The folder of the images is left out, so that it may be named from elsewhere. `folder` is its part of the names.
    """
    kept = {name: settings[name] for name in DEPENDED_ON if name in settings}
    images = {"folder": show_name(identity.find_folder()), "images": identity.leave_out_folder().to_json()}
    return json.loads(json.dumps(kept | images))  # as a file gives it back


def check_origin(features: Features, origin: dict[str, Any], file: Path) -> Features:
    """Returns the features of a file by the names that images have in this call, after checking that they are of it.

    Args:
        origin: that of this call, see `make_origin`.

    Raises:
        OutputError: they are of another model or other images, or the file does not say of which.
    """
    if features.origin.keys() != origin.keys():
        raise OutputError(f"{file} does not say of which model and images its features are. {ADVICE}")
    for name, other in DEPENDED_ON.items():
        if name in origin and features.origin[name] != origin[name]:
            raise OutputError(f"{file} holds features of {other}. {ADVICE}")
    try:
        before = Identity.from_json(features.origin["images"])
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{file} is damaged where it says of which images it is. {ADVICE}") from error
    if change := before.describe_change(Identity.from_json(origin["images"])):
        raise OutputError(f"{file} holds features of other images: {change}. {ADVICE}")
    names = [origin["folder"] + name.removeprefix(features.origin["folder"]) for name in features.names]
    return replace(features, names=names)
