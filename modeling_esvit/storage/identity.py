# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tells data from other data by names, sizes and a sample of the content, and says by name what has changed.

A stopped call is continued over the same data alone: a run, a bank of features, the parts of `embed`. A file whose time
of modification alone has changed, as after a copy, is the same data; it is worth a warning.
"""

import base64
import hashlib
import json
import os
import re
import stat
import unicodedata
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


SAMPLED = 1024  # files or rows whose content is looked at, evenly spread: all of small data
CHUNK = 2**18  # bytes of the beginning and of the end of a sampled content
NAMED = 3  # changes that a message names
SHARED = rf"(.*[/{re.escape(os.sep)}])?"  # folders at the beginning of names; Windows has two separators


class FileState(NamedTuple):
    """Says what is known of a file without reading it; None for what is not known.

    version: what a server says of it, such as an ETag.
    """

    size: int | None = None
    time: int | str | None = None
    version: str | None = None


UNKNOWN = FileState()


@dataclass(frozen=True)
class Identity:
    """Holds what tells data from other data.

    Attributes:
        images: How many there are.
        order: A checksum of the names in their order.
        files: What is known of each file.
        samples: A checksum of the content of some files or rows, by name.
        fingerprint: That of a data set of `datasets` whose files are not known.
        commit: That of a data set of the Hub.
    """

    images: int
    order: str
    files: dict[str, FileState] = field(default_factory=dict)
    samples: dict[str, str | None] = field(default_factory=dict)
    fingerprint: str | None = None
    commit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON holds it. Names and states of files, which may be a million, are packed."""
        return asdict(self) | {"files": pack(self.files), "samples": pack(self.samples)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Identity":
        """Inverts [`to_json`].

        Raises:
            ValueError, TypeError, KeyError: it is damaged.
        """
        files = {name: FileState(*state) for name, state in unpack(content["files"]).items()}
        return cls(**content | {"files": files, "samples": unpack(content["samples"])})

    def find_folder(self) -> str:
        """Returns the beginning that all names share, up to its last slash; nothing if they share none."""
        return re.match(SHARED, os.path.commonprefix([*self.files, *self.samples]), re.DOTALL)[0]  # type: ignore[index]

    def leave_out_folder(self) -> "Identity":
        """Returns the identity by names within the folder, which are the same from wherever it is named."""
        cut = len(self.find_folder())
        files = {name[cut:]: state for name, state in self.files.items()}
        samples = {name[cut:]: content for name, content in self.samples.items()}
        order = compute_checksum(*files) if len(files) == self.images else self.order
        return replace(self, order=order, files=files, samples=samples)

    def compute_key(self) -> str:
        """Returns a short name for exactly this data, times included."""
        return compute_checksum(json.dumps(asdict(self), sort_keys=True))

    def describe_change(self, now: "Identity") -> str | None:
        """Returns in words how the data `now` differ from these, by the first names; None if they are the same."""
        changes = [*list_changed_files(self, now), *list_changed_samples(self, now)]
        if changes:
            more = f" and {len(changes) - NAMED} more changes" if len(changes) > NAMED else ""
            return "; ".join(changes[:NAMED]) + more
        for name in ("images", "commit", "fingerprint", "order"):
            before, after = getattr(self, name), getattr(now, name)
            if before != after:
                return f"the {name} was {before} and is {after}" if name != "images" else f"{before} images are {after}"
        return None

    def describe_times(self, now: "Identity") -> str | None:
        """Returns in words which files have another time of modification, and nothing else that was seen; or None."""
        names = [name for name, state in self.files.items() if now.files.get(name, state).time != state.time]
        return f"{len(names)} of {len(self.files)} files, {names[0]} to begin with" if names else None


def list_changed_files(before: Identity, now: Identity) -> list[str]:
    """Returns a phrase for each file that is missing, new, or has another size or version."""
    missing = [name for name in before.files if name not in now.files]
    added = [name for name in now.files if name not in before.files]
    # A Mac may write an accent as a character of its own. Names in another order give another order of the images.
    composed = {compose(name): name for name in added}
    renamed = {name: composed[compose(name)] for name in missing if compose(name) in composed}
    changes = [f"{name} is written in other code points, as after a copy by a Mac" for name in renamed]
    changes += [f"{name} is missing" for name in missing if name not in renamed]
    changes += [f"{name} is new" for name in added if name not in renamed.values()]
    for name, old in before.files.items():
        new = now.files.get(name, old)
        if new.size != old.size:
            changes.append(f"{name} had {old.size} bytes and has {new.size}")
        elif new.version != old.version:
            changes.append(f"{name} was version {old.version} and is {new.version}")
    return changes


def compose(name: str) -> str:
    """Returns a name with each accent and its letter in one character."""
    return unicodedata.normalize("NFC", name)


def list_changed_samples(before: Identity, now: Identity) -> list[str]:
    """Returns a phrase for each file or row of both whose content has changed, though its size has not."""
    resized = {name for name, state in before.files.items() if now.files.get(name, state).size != state.size}
    return [
        f"{name} has another content"
        for name, content in before.samples.items()
        if name not in resized and now.samples.get(name, content) != content
    ]


def identify_files(names: Sequence[str], folder: Path | None = None) -> Identity:
    """Identifies images that are files of their own, by their paths in `folder`; a URL is known by its name alone."""
    paths = {name: name if folder is None else os.path.join(folder, name) for name in names}
    return Identity(
        images=len(names),
        order=compute_checksum(*names),
        files={name: UNKNOWN if is_url(name) else find_state(path) for name, path in paths.items()},
        samples={name: compute_file_checksum(paths[name]) for name in pick_samples(names) if not is_url(name)},
    )


def identify_contents(names: Sequence[str], read: Callable[[int], bytes | str]) -> Identity:
    """Identifies images in memory by their content, all of them; `read` returns that of a number."""
    contents = [read(number) for number in range(len(names))]
    order = compute_checksum(*names)
    return Identity(len(names), order, samples=dict(zip(names, map(compute_checksum, contents), strict=True)))


def identify_dataset(
    dataset: Any,
    name: Callable[[int], str],
    read: Callable[[int], tuple[bytes | str, Any]],
    named: Mapping[int, str],
) -> Identity:
    """Identifies the rows of a data set of `datasets` by their number and size, the content of some, and the files that
    they name.

    The fingerprint of one that comes from files changes with their times, and counts as such; that of others with the
    content.

    Args:
        name: Returns the name of a row.
        read: Returns the image of a row, as bytes or by its path or URL, and its label.
        named: The local files of the rows that name one, see `find_named_files`.
    """
    from_files = bool(dataset.cache_files)
    files = {f"the file of {name(row)}": path for row, path in named.items()}
    state = FileState(dataset.data.nbytes, time=dataset._fingerprint if from_files else None)
    checksum = cache(compute_file_checksum)  # an archive is the file of many rows

    def checksum_row(row: int) -> str:
        return compute_row_checksum(*read(row), checksum(named[row]) if row in named else None)

    return Identity(
        images=len(dataset),
        order=compute_checksum(str(len(dataset))),
        files={f"the data set of {name(0)}": state, **find_named_states(files)},
        samples={name(row): checksum_row(row) for row in pick_samples(range(len(dataset)))},
        fingerprint=None if from_files else dataset._fingerprint,
    )


def add_named_files(known: Identity, named: Mapping[str, str]) -> Identity:
    """Returns an identity with the local files that rows or images name: what is known of each, the content of some."""
    states = find_named_states(named)
    samples = {name: compute_file_checksum(named[name]) for name in pick_samples([*states])}
    return replace(known, files=known.files | states, samples=known.samples | samples)


def join_identities(parts: Sequence[Identity]) -> Identity:
    """Joins those of several inputs that follow each other."""
    return Identity(
        images=sum(part.images for part in parts),
        order=compute_checksum(*(part.order for part in parts)),
        files={name: state for part in parts for name, state in part.files.items()},
        samples={name: content for part in parts for name, content in part.samples.items()},
        fingerprint=compute_checksum(*(str(part.fingerprint) for part in parts)),
    )


def is_url(name: str) -> bool:
    return "://" in name


def pick_samples(items: Sequence[Any]) -> list[Any]:
    """Returns SAMPLED items, evenly spread, or all of fewer."""
    if len(items) <= SAMPLED:
        return list(items)
    return [items[number * len(items) // SAMPLED] for number in range(SAMPLED)]


def find_state(path: str) -> FileState:
    """Returns size and time of a local file; nothing of one that is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return UNKNOWN
    return FileState(found.st_size, found.st_mtime_ns)


def find_named_states(named: Mapping[str, str]) -> dict[str, FileState]:
    """Returns size and time of each of the files that rows name, under the first row that names it."""
    rows = dict[str, str]()
    for row, path in named.items():
        rows.setdefault(path, row)
    return {row: find_state(path) for path, row in rows.items()}


def compute_file_checksum(path: str) -> str | None:
    """Returns a checksum of the beginning and the end of a file; None for what is no readable regular file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            content = file.read(CHUNK)
            file.seek(max(len(content), os.fstat(file.fileno()).st_size - CHUNK))
            return compute_checksum(content, file.read(CHUNK))
    except OSError:
        return None


def compute_row_checksum(image: bytes | str, label: Any, file: str | None) -> str:
    """Returns a checksum of a row: of the image's content, or of the checksum of the local file that it names."""
    if isinstance(image, str):
        return compute_checksum(image, str(file), str(label))
    return compute_checksum(image[:CHUNK], image[max(CHUNK, len(image) - CHUNK) :], f"{len(image)} {label}")


def compute_checksum(*parts: str | bytes) -> str:
    """Returns a short name for a sequence of texts; each counts with its length."""
    digest = hashlib.sha256()
    for part in parts:
        # Names of files may hold any bytes, which Python keeps as lone surrogates.
        content = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:16]


def pack(content: dict[str, Any]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(content).encode())).decode()


def unpack(text: str) -> dict[str, Any]:
    """Inverts `pack`.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return json.loads(zlib.decompress(base64.b64decode(text)))
    except zlib.error as error:
        raise ValueError(f"the list of files is damaged ({error})") from error
