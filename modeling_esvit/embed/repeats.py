# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds images that are named more than once, as a list may do, and folders beside files of them.

Each of them has a row for each time, so that the rows of a list are those of its lines.
"""

import os
from collections.abc import Iterator
from functools import cache

from modeling_esvit.embed.inputs import ImageFiles, ManyImages
from modeling_esvit.images.names import show_name
from modeling_esvit.images.wording import show_number
from modeling_esvit.storage.identity import is_url


SHOWN = 3  # that are named


def describe_repeated(images: ManyImages) -> str:
    """Returns a sentence on images that come again; nothing if there are none."""
    found = find_repeated(images)
    if not found:
        return ""
    named = [show_name(name) for name in dict.fromkeys(found)]
    more = ", ..." if len(named) > SHOWN else ""
    return (
        f"Named again: {', '.join(named[:SHOWN])}{more}, {show_number(len(found), 'times in all')}; each time is a row."
    )


def find_repeated(images: ManyImages) -> list[str]:
    """Returns the path, URL or name of each image that was there before."""
    seen, again = set[str](), list[str]()
    for place in list_places(images):
        if place in seen:
            again.append(place)
        seen.add(place)
    return again


def list_places(images: ManyImages) -> Iterator[str]:
    """Yields where each image is; a file is in the same place whatever links lead to its folder."""
    find_folder = cache(os.path.realpath)
    for part in images.parts:
        for index in range(len(part)):
            path = part.paths[index] if isinstance(part, ImageFiles) else part.name(index)
            folder, name = os.path.split(path)
            is_file = isinstance(part, ImageFiles) and not is_url(path)
            yield os.path.join(find_folder(folder), name) if is_file else path
