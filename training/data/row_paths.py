# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the image files that rows of a parquet file name, beside that file and nowhere else.

A parquet file may come from a stranger. Its rows must not make a program read what lies elsewhere on this machine.
"""

import os

from modeling_esvit.images.decoding import Record
from training.data.shard_files import ShardFile


def locate_image(record: Record, folder: str | None) -> Record:
    """Returns a record whose path, if it has one, is that of a file in `folder`, to which relative paths belong.

    Where there is no such file, or no folder (None: the parquet file is remote), the record is an unreadable image, and
    its name says why. URLs are left as they are.
    """
    path = record.image
    if isinstance(path, bytes) or "://" in path:
        return record
    if folder is None:
        return _refuse(record, f"the path {path!r} in a remote file, from which no other files are fetched")
    root = os.path.abspath(folder)
    found = os.path.normpath(os.path.join(root, path))  # links stay: the cache of the Hub is made of them
    if os.path.commonpath([root, found]) != root:
        return _refuse(record, f"the path {path!r} leads out of the folder {folder!r} of its parquet file")
    return record._replace(image=found)


def _refuse(record: Record, reason: str) -> Record:
    return record._replace(image=b"", name=f"{record.name} ({reason})" if record.name else reason)


def find_folder(file: ShardFile) -> str | None:
    """Returns the folder of a local file; None for a remote one."""
    return os.path.dirname(os.path.abspath(file.url)) if file.is_local else None
