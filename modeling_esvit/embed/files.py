# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes features into one file, and loads them: parquet, npz or safetensors, as the suffix says."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from modeling_esvit.errors import EsViTError
from modeling_esvit.storage.failed_writes import repeat_writing


Result = TypeVar("Result")

FORMATS = (".parquet", ".npz", ".safetensors")
ORIGIN = "origin"  # the entry of a file that says of what model and images the features are


class OutputError(EsViTError, ValueError):
    """Raised when the output cannot be written, or not continued, as asked."""


def write_or_explain(action: Callable[[], Result], folder: Path) -> Result:
    """Calls what writes into a folder, a few times if need be.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        return repeat_writing(action)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error}. Free space on that disk, or make the folder writable; then the same "
            "call goes on from what is finished."
        ) from error


@dataclass
class Features:
    """Holds the features of images.

    names: of the images that could be read, in order.
    view: `[N, C]`.
    regions: `[N, T, C]`, row by row, if they were asked for.
    unreadable: name of every other image -> why.
    origin: what a file says of the model and the images, see `make_origin`.
    """

    names: list[str]
    view: np.ndarray
    regions: np.ndarray | None = None
    unreadable: dict[str, str] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"view": self.view} | ({} if self.regions is None else {"regions": self.regions})


def concatenate(parts: list[Features]) -> Features:
    """Joins parts into one.

    Raises:
        OutputError: no image could be read.
    """
    with_images = [part for part in parts if part.names]
    unreadable = {name: reason for part in parts for name, reason in part.unreadable.items()}
    if not with_images:
        raise OutputError(f"None of the {len(unreadable)} images can be read: {next(iter(unreadable.values()), '')}")
    regions = [part.regions for part in with_images if part.regions is not None]
    return Features(
        names=[name for part in with_images for name in part.names],
        view=np.concatenate([part.view for part in with_images]),
        regions=np.concatenate(regions) if regions else None,
        unreadable=unreadable,
    )


def format_unreadable(unreadable: Mapping[str, str]) -> str:
    """Returns a line for each image, in their order: its name, a tab, and why it cannot be read."""
    return "".join(f"{name}\t{reason.removeprefix(f'{name}: ')}\n" for name, reason in unreadable.items())


def check_output(output: Path, overwrite: bool) -> None:
    """Checks that an output can be written.

    Raises:
        OutputError: the suffix names no format, it is a folder, or the file exists and is not to be overwritten.
    """
    if output.suffix not in FORMATS:
        raise OutputError(f"{output} must end in one of {', '.join(FORMATS)}, which names the format.")
    if output.is_dir():
        raise OutputError(f"{output} is a folder; name a file in it.")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists already: name another file, or pass --overwrite.")


def write_arrays(features: Features, path: Path, suffix: str) -> None:
    names = np.frombuffer(json.dumps(features.names).encode(), dtype=np.uint8)
    origin = json.dumps(features.origin)
    if suffix == ".npz":
        with path.open("wb") as file:
            named = {"names": np.array(features.names), ORIGIN: np.array(origin)}
            np.savez(file, allow_pickle=False, **named, **features.arrays())
    else:
        save_file({"names": names, **features.arrays()}, path, metadata={ORIGIN: origin})


def write_parquet(parts: Iterator[Features], path: Path, origin: dict[str, Any]) -> dict[str, str]:
    """Writes the columns `name`, `view` and, if there are any, `regions` (a list of T lists of C numbers)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer, unreadable = None, dict[str, str]()
    for features in parts:
        unreadable |= features.unreadable
        if not features.names:
            continue
        table = pa.table({"name": features.names} | {name: nest(a) for name, a in features.arrays().items()})
        table = table.replace_schema_metadata({ORIGIN: json.dumps(origin)})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is None:
        raise OutputError(f"None of the {len(unreadable)} images can be read: {next(iter(unreadable.values()), '')}")
    writer.close()
    return unreadable


def nest(array: np.ndarray) -> Any:
    """Returns `[N, ..., C]` as an arrow array of N lists of fixed size."""
    import pyarrow as pa

    result = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        result = pa.FixedSizeListArray.from_arrays(result, size)
    return result


def load_features(path: str | Path) -> Features:
    """Loads features that `embed` wrote, in any of its formats.

    Raises:
        OutputError: the suffix names no format, or the file is not what `embed` writes.
        OSError: there is no such file.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise OutputError(f"{path} must end in one of {', '.join(FORMATS)}.")
    try:
        return READERS[path.suffix](path)
    except (ValueError, KeyError, EOFError, BadZipFile, SafetensorError) as error:
        raise OutputError(f"{path} holds no features that embed wrote ({error}).") from error


def read_npz(path: Path) -> Features:
    with np.load(path, allow_pickle=False) as file:
        regions = file["regions"] if "regions" in file else None
        origin = read_origin(str(file[ORIGIN]) if ORIGIN in file else None)
        return Features(file["names"].tolist(), file["view"], regions, origin=origin)


def read_safetensors(path: Path) -> Features:
    with safe_open(path, framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        origin = read_origin((file.metadata() or {}).get(ORIGIN))
    return Features(json.loads(arrays["names"].tobytes()), arrays["view"], arrays.get("regions"), origin=origin)


def read_parquet(path: Path) -> Features:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    arrays = {}
    for name in set(table.column_names) - {"name"}:
        column, shape = table[name].combine_chunks(), [len(table)]
        while hasattr(column.type, "list_size"):
            shape.append(column.type.list_size)
            column = column.flatten()
        arrays[name] = column.to_numpy(zero_copy_only=False).reshape(shape)
    origin = read_origin((table.schema.metadata or {}).get(ORIGIN.encode()))
    return Features(table["name"].to_pylist(), arrays["view"], arrays.get("regions"), origin=origin)


def read_origin(text: str | bytes | None) -> dict[str, Any]:
    return {} if text is None else json.loads(text)


READERS = {".parquet": read_parquet, ".npz": read_npz, ".safetensors": read_safetensors}
