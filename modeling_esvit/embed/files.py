# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes features into one file, and loads them: parquet, npz or safetensors, as the suffix says.

A file has a checksum of what it holds, which is compared when it is loaded.
"""

import hashlib
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
from modeling_esvit.images.places import open_regular_file
from modeling_esvit.images.wording import show_number, show_reasons
from modeling_esvit.storage.failed_writes import repeat_writing
from modeling_esvit.storage.manifest import check_replaceable
from modeling_esvit.storage.paths import describe_file_in_place


Result = TypeVar("Result")

FORMATS = (".parquet", ".npz", ".safetensors")
ORIGIN = "origin"  # the entry of a file that says of what model and images the features are
CHECKSUM = "checksum"  # the entry of a file that has that of its names, features and origin
REPORT = ".unreadable.txt"  # the ending of the list of images that could not be read, beside the output
# What a damaged file raises in the libraries that read it.
DAMAGE = (ValueError, KeyError, EOFError, OSError, RuntimeError, TypeError, BadZipFile, SafetensorError)


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


def make_unreadable_error(unreadable: Mapping[str, str]) -> OutputError:
    """Returns the error that says that no image can be read, and each reason why."""
    return OutputError(f"0 of {show_number(len(unreadable), 'images')} can be read: {show_reasons(unreadable)}")


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


class ContentChecksum:
    """Computes the checksum of features, part by part."""

    def __init__(self, origin: dict[str, Any]) -> None:
        self.digests = {ORIGIN: hashlib.sha256(json.dumps(origin, sort_keys=True).encode()), "names": hashlib.sha256()}
        self.kinds: dict[str, str] = {}

    def add(self, features: Features) -> None:
        for name in features.names:
            self.digests["names"].update(f"{json.dumps(name)}\n".encode())
        for name, array in features.arrays().items():
            self.kinds[name] = f"{array.dtype} {array.shape[1:]}"
            self.digests.setdefault(name, hashlib.sha256()).update(np.ascontiguousarray(array).data)

    def finish(self) -> str:
        lines = [f"{name} {self.kinds.get(name)} {self.digests[name].hexdigest()}" for name in sorted(self.digests)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def compute_checksum(features: Features) -> str:
    """Returns the checksum of features that are in memory as a whole."""
    checksum = ContentChecksum(features.origin)
    checksum.add(features)
    return checksum.finish()


def concatenate(parts: list[Features]) -> Features:
    """Joins parts into one.

    Raises:
        OutputError: no image could be read.
    """
    with_images = [part for part in parts if part.names]
    unreadable = {name: reason for part in parts for name, reason in part.unreadable.items()}
    if not with_images:
        raise make_unreadable_error(unreadable)
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
        OutputError: the suffix names no format, it is a folder, a file is where its folder has to be, or the file, or
            the list of what could not be read beside it, exists and is not to be overwritten.
    """
    if output.suffix not in FORMATS:
        raise OutputError(f"{output} must end in one of {', '.join(FORMATS)}, which names the format.")
    if output.is_dir():
        raise OutputError(f"{output} is a folder; name a file in it.")
    if problem := describe_file_in_place(output.parent):
        raise OutputError(f"{output}: {problem}.")
    for path in (output, name_report(output)):
        check_replaceable(path)
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists already: name another file, or pass --overwrite.")


def name_report(output: Path) -> Path:
    """Returns the path of the list of images that could not be read."""
    return output.with_name(output.name + REPORT)


def write_arrays(features: Features, path: Path, suffix: str) -> None:
    names = np.frombuffer(json.dumps(features.names).encode(), dtype=np.uint8)
    said = {ORIGIN: json.dumps(features.origin), CHECKSUM: compute_checksum(features)}
    if suffix == ".npz":
        with path.open("wb") as file:
            named = {"names": np.array(features.names)} | {name: np.array(text) for name, text in said.items()}
            np.savez(file, allow_pickle=False, **named, **features.arrays())
    else:
        save_file({"names": names, **features.arrays()}, path, metadata=said)


def write_parquet(parts: Iterator[Features], path: Path, origin: dict[str, Any]) -> dict[str, str]:
    """Writes the columns `name`, `view` and, if there are any, `regions` (a list of T lists of C numbers).

    Raises:
        OutputError: no image could be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer, unreadable, checksum = None, dict[str, str](), ContentChecksum(origin)
    for features in parts:
        unreadable |= features.unreadable
        if not features.names:
            continue
        table = pa.table({"name": features.names} | {name: nest(a) for name, a in features.arrays().items()})
        table = table.replace_schema_metadata({ORIGIN: json.dumps(origin)})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        checksum.add(features)
    if writer is None:
        raise make_unreadable_error(unreadable)
    writer.add_key_value_metadata({CHECKSUM: checksum.finish()})
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
        OutputError: the suffix names no format, or the file cannot be read, is not what `embed` writes, or damaged.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise OutputError(f"{path} must end in one of {', '.join(FORMATS)}.")
    try:
        open_regular_file(str(path)).close()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        features, checksum = READERS[path.suffix](path)
        check_form(features)
        found = compute_checksum(features)
    except DAMAGE as error:
        raise OutputError(f"{path} holds no features that embed wrote ({error}).") from error
    if checksum != found:
        raise OutputError(f"{path} is damaged: its features are not as embed wrote them. Delete it, and embed again.")
    return features


def check_form(features: Features) -> None:
    """Checks that what was read has a name and as many numbers for each image.

    Raises:
        ValueError: It has not.
    """
    if not all(isinstance(name, str) for name in features.names) or not isinstance(features.origin, dict):
        raise ValueError("its names are not text, or its origin is not a mapping")
    for (name, array), sides in zip(features.arrays().items(), (2, 3), strict=False):
        if array.ndim != sides or array.dtype.kind != "f" or len(array) != len(features.names):
            kind = f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"{name} of {len(features.names)} images is {kind}, not floats of {sides} dimensions")


def read_npz(path: Path) -> tuple[Features, str]:
    with np.load(path, allow_pickle=False) as file:
        regions = file["regions"] if "regions" in file else None
        said = {name: str(file[name]) for name in (ORIGIN, CHECKSUM) if name in file}
        return Features(file["names"].tolist(), file["view"], regions, origin=read_origin(said)), said[CHECKSUM]


def read_safetensors(path: Path) -> tuple[Features, str]:
    with safe_open(path, framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = file.metadata() or {}
    names = json.loads(arrays["names"].tobytes())
    return Features(names, arrays["view"], arrays.get("regions"), origin=read_origin(said)), said[CHECKSUM]


def read_parquet(path: Path) -> tuple[Features, str]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table, said = file.read(), file.metadata.metadata or {}
    arrays = {}
    for name in set(table.column_names) - {"name"}:
        column, shape = table[name].combine_chunks(), [len(table)]
        while hasattr(column.type, "list_size"):
            shape.append(column.type.list_size)
            column = column.flatten()
        arrays[name] = column.to_numpy(zero_copy_only=False).reshape(shape)
    names = table["name"].to_pylist()
    texts = {name: said[name.encode()].decode() for name in (ORIGIN, CHECKSUM) if name.encode() in said}
    return Features(names, arrays["view"], arrays.get("regions"), origin=read_origin(texts)), texts[CHECKSUM]


def read_origin(said: Mapping[str, str]) -> dict[str, Any]:
    return json.loads(said.get(ORIGIN, "{}"))


READERS = {".parquet": read_parquet, ".npz": read_npz, ".safetensors": read_safetensors}
