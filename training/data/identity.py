# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tells the images of one data source from those of another."""

import hashlib
from typing import Any

from training.data.shard_names import commit_of
from training.data.shard_stream import ShardStream
from training.data.sources import FolderSource, ImageSource


def identify_source(source: ImageSource) -> dict[str, Any]:
    """Returns what distinguishes the data of `source` from other data, as JSON holds it.

    That is the number of images; for a stream also its shards with their lengths, sizes and versions, and the commit of
    a data set on the Hub; for a folder also a hash of its paths.
    """
    if isinstance(source, ShardStream):
        files = [(shard.file, len(shard)) for shard in source.shards]
        shards = {file.url: [rows, file.size, file.version] for file, rows in files}
        return {"images": sum(rows for _, rows in files), "commit": commit_of([*shards]), "shards": shards}
    if isinstance(source, FolderSource):
        return {"images": len(source), "paths": hashlib.sha256("\n".join(source.paths()).encode()).hexdigest()}
    return {"images": len(source)}
