# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the images in the rows of data sets, and says what these rows may open."""

import os
from typing import Any

import numpy as np
from PIL import Image

from modeling_esvit.images.decoding import DecodingOptions, Record
from modeling_esvit.images.names import show_name
from modeling_esvit.images.places import Access


def read_cell(cell: Any, label: int | None, options: DecodingOptions) -> Record:
    """Returns the record of an image in a row, whose name is its path, if it has one.

    Args:
        cell: The encoded image, its path or URL, a struct of `bytes` and `path`, pixels in memory, or None. An image
            that is missing becomes empty bytes, which cannot be decoded.
        label: Of the row.
        options: How it is decoded, and what it may open.
    """
    if isinstance(cell, Image.Image | np.ndarray):
        return Record(cell, label, None, options)
    if not isinstance(cell, dict):
        cell = {"bytes": cell, "path": None} if isinstance(cell, bytes) else {"bytes": None, "path": cell}
    path = cell.get("path")
    return Record(cell.get("bytes") or path or b"", label, None if path is None else show_name(path), options)


def find_access(*folders: str | os.PathLike[str], repository: str | None = None) -> Access:
    """Returns what the rows of a data set may open: files in its folders, or of a data set of the Hub, and the copies
    that `datasets` keeps of files that it downloads or unpacks.
    """
    import datasets
    from huggingface_hub import constants

    copies = (datasets.config.DOWNLOADED_DATASETS_PATH, datasets.config.EXTRACTED_DATASETS_PATH, constants.HF_HUB_CACHE)
    return Access((*(os.path.abspath(folder) for folder in folders), *map(str, copies)), repository)
