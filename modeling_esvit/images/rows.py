# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the images in the columns of data sets, reads them, and says what the rows may open."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.decoding import DecodingOptions, Record
from modeling_esvit.images.names import show_name
from modeling_esvit.images.places import Access, find_local_file, is_no_path
from modeling_esvit.storage.contents import HEAD, describe_stand_in


if TYPE_CHECKING:
    import datasets
    import pyarrow as pa


BYTES = ("binary", "large_binary", "binary_view")
STRINGS = ("string", "large_string", "string_view")
ReadFeatures: TypeAlias = Callable[[str], "datasets.Features"]  # of a file; who asks several times may keep them


def read_features(schema: "pa.Schema") -> "datasets.Features":
    """Returns the columns of a parquet file with their types, without those of types that `datasets` does not know.

    Raises:
        ValueError: what the file says of its features is damaged.
    """
    import datasets
    import pyarrow as pa

    known, declared = datasets.Features(), _read_declared(schema)
    for field in schema:
        own = {name: each for name, each in declared.items() if name == field.name}
        metadata = {"huggingface": json.dumps({"info": {"features": own}})}
        with suppress(ValueError):
            known.update(datasets.Features.from_arrow_schema(pa.schema([field], metadata)))
    return known


def _read_declared(schema: "pa.Schema") -> dict[str, Any]:
    """Returns what `datasets` wrote into a parquet file of its columns, by name.

    Raises:
        ValueError: it is damaged.
    """
    written = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    return (written.get("info") or {}).get("features") or {}


def read_file_features(file: str | os.PathLike[str]) -> "datasets.Features":
    """Returns the columns of a local parquet file with their types, see `read_features`, for which it is opened.

    Raises:
        DataOptionError: it is no whole parquet file.
        OSError, ValueError: it cannot be opened, or what it says of its features is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return read_features(pq.read_schema(file))
    except pa.ArrowInvalid as error:
        with open(file, "rb") as opened:
            reason = describe_stand_in(opened.read(HEAD)) or error
        raise DataOptionError(f"{show_name(str(file))} is not a whole parquet file: {reason}") from error


def merge_features(found: Sequence["datasets.Features"]) -> "datasets.Features":
    """Returns the columns of all files, with the first type that is not null, of numbers one that takes those of
    all files, and all fields of structs.
    """
    import datasets

    merged = datasets.Features()
    for name, feature in (item for features in found for item in features.items()):
        merged[name] = _merge_types(merged[name], feature) if name in merged else feature
    return merged


def _merge_types(first: Any, other: Any) -> Any:
    import datasets

    if getattr(first, "dtype", None) == "null":
        return other
    fields = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    other = fields if isinstance(other, datasets.Image) else other
    if _is_number(first) and _is_number(other):
        return _widen(first, other)
    if not (isinstance(first, dict) and isinstance(other, dict)):
        return first
    shared = {name: _merge_types(first[name], other[name]) for name in first if name in other}
    return {**first, **other, **shared}


def _widen(first: "datasets.Value", other: "datasets.Value") -> "datasets.Value":
    """Returns the type that takes the numbers of both, as floats where one holds floats."""
    import datasets
    import pyarrow as pa

    schemas = [pa.schema({"number": each.pa_type}) for each in (first, other)]
    both = pa.unify_schemas(schemas, promote_options="permissive")
    return datasets.Features.from_arrow_schema(both)["number"]


def _is_number(feature: Any) -> bool:
    import datasets

    is_value = isinstance(feature, datasets.Value)
    return is_value and feature.dtype.startswith(("int", "uint", "float"))


def describe_parquet(files: Iterable[str], read: ReadFeatures = read_file_features) -> dict[str, Any]:
    """Returns what `load_dataset` must be told of parquet files, of which it asks the first alone: if others have more
    columns or fields, other numbers, or values where that has nulls, all features. Those of a server are not looked at.

    Raises:
        DataOptionError: one is no whole parquet file.
        OSError, ValueError: it cannot be opened, or what it says of its features is damaged.
    """
    found = []
    for file in files:
        found += [] if "://" in file else [read(file)]
    merged = merge_features(found)
    return {"features": merged} if found and merged != found[0] else {}


def find_image_columns(features: "datasets.Features") -> list[str]:
    """Returns the columns that are declared as images or, if there are none, those that are stored like images."""
    import datasets

    declared = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    return declared or [name for name, feature in features.items() if _is_image_struct(feature)]


def _is_image_struct(feature: Any) -> bool:
    """Returns whether a column is stored like the images of `datasets`, with other fields or not, but not declared."""
    if not isinstance(feature, dict):
        return False
    return getattr(feature.get("bytes"), "dtype", None) in BYTES or is_string(feature.get("path"))


def describe_image_lists(features: "datasets.Features") -> str:
    """Returns a sentence about columns whose rows hold several images each, which are not read; nothing without any."""
    import datasets

    inner = {name: getattr(feature, "feature", None) for name, feature in features.items()}
    found = [name for name, each in inner.items() if isinstance(each, datasets.Image) or _is_image_struct(each)]
    return f" {' and '.join(found)} holds lists of images: write a row for each image." if found else ""


def is_string(feature: Any) -> bool:
    """Returns whether a column holds strings."""
    return getattr(feature, "dtype", None) in STRINGS


def is_bytes_or_path(feature: Any) -> bool:
    """Returns whether a column holds plain bytes, or strings, which a user may name as images."""
    return is_string(feature) or getattr(feature, "dtype", None) in BYTES


def describe_columns(features: "datasets.Features") -> str:
    """Returns the columns of a data set with their types, such as "img (Image), fine_label (ClassLabel of 100)"."""
    return ", ".join(f"{name} ({_describe_type(feature)})" for name, feature in features.items())


def _describe_type(feature: Any) -> str:
    names = getattr(feature, "names", None)
    kind = type(feature).__name__
    if names is not None:
        return f"{kind} of {len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    if kind == "Value":
        return feature.dtype
    if isinstance(feature, dict):
        return f"struct of {', '.join(feature)}"
    return kind


def leave_undecoded(dataset: Any, column: str) -> Any:
    """Returns a data set whose rows have the images of a column as bytes or path."""
    import datasets

    dataset = dataset.with_format(None)
    if getattr(dataset.features[column], "dtype", None) == "binary_view":  # of which datasets makes no images
        dataset = dataset.cast_column(column, datasets.Value("large_binary"))
    return dataset.cast_column(column, datasets.Image(decode=False))


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
    name = None if path is None or is_no_path(path) else show_name(path)
    return Record(cell.get("bytes") or path or b"", label, name, options)


def list_places(dataset: Any, column: str) -> list[str | None]:
    """Returns the path or URL of each row whose image is not in the row itself, and None of others.

    Args:
        dataset: With images undecoded, see `leave_undecoded`.
        column: Of the images.
    """
    import pyarrow.compute as pc

    cells = dataset.data.column(column)
    lengths, paths = pc.binary_length(pc.struct_field(cells, "bytes")), pc.struct_field(cells, "path")
    named = pc.if_else(pc.equal(pc.fill_null(lengths, 0), 0), paths, None)  # without reading the images in the rows
    if dataset._indices is not None:
        named = named.take(dataset._indices.column(0))
    return named.to_pylist()


def find_named_files(dataset: Any, column: str, access: Access) -> dict[int, str]:
    """Returns the local file of each row whose image is in one, or in an archive, and not in the row itself.

    Args:
        dataset: With images undecoded, see `leave_undecoded`.
        column: Of the images.
        access: What the rows may open.
    """
    found = {row: find_local_file(place, access) for row, place in enumerate(list_places(dataset, column)) if place}
    return {row: file for row, file in found.items() if file is not None}


def find_access(*folders: str | os.PathLike[str], repository: str | None = None) -> Access:
    """Returns what the rows of a data set may open: files in its folders, or of a data set of the Hub, and the copies
    that `datasets` keeps of files that it downloads or unpacks.
    """
    import datasets
    from huggingface_hub import constants

    copies = (datasets.config.DOWNLOADED_DATASETS_PATH, datasets.config.EXTRACTED_DATASETS_PATH, constants.HF_HUB_CACHE)
    return Access((*(os.path.abspath(folder) for folder in folders), *map(str, copies)), repository)
