# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the images in folders and among files, in a fixed order, and counts by kind what it leaves out.

Links are followed, and no folder is read twice: it is read where it lies, or else by the first link to it. Hidden files
and folders are left out, such as the copies that notebooks and file managers keep, and so are files of other types.
"""

import glob
import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from modeling_esvit.images.formats import ADVICE, list_image_extensions
from modeling_esvit.images.names import show_name
from modeling_esvit.images.wording import show_number
from modeling_esvit.storage.manifest import RECORD
from modeling_esvit.storage.paths import measure_existing


# Folders that systems and archivers make, with thumbnails or deleted files.
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found")
HIDDEN_FILES, HIDDEN_FOLDERS, REPEATED = "hidden files", "hidden folders", "folders linked to again"
MATCHED_FOLDERS = "folders that the pattern matches (name them without a pattern, or use **)"
BESIDE_ROWS = "images beside the parquet files (read where rows name them)"
BESIDE_SHARDS = "zip files beside the shards (read where rows name them; else unpack them)"
ARCHIVES = {
    **dict.fromkeys((".zip", ".tgz", ".gz", ".7z", ".rar"), "unpack them"),
    ".tar": "unpack them, or name them by a glob, as FOLDER/*.tar, which pretraining and evaluation read",
}
SEPARATOR = rf"[/{re.escape(os.sep)}]"  # Windows has two
ANY_DEPTH = re.compile(rf"(?:^|{SEPARATOR})\*\*(?:{SEPARATOR}|$)")
PARQUET_COPY = re.compile(r".*(\.parquet\.\w+)")  # as pandas names one with gzip inside, or an editor its copy
EXTENSION = re.compile(r"\.[a-z0-9]+")  # at the start of kinds such as .jpg?width=200 and .jpg_large
MOST_KINDS = 8  # that are named


class LeftOut(Counter[str]):
    """Counts what was left out, by kind: an extension such as ".heic", or one of the kinds above."""

    def describe(self) -> str:
        """Returns what was left out in words, such as "30 .heic: pip install pillow-heif; 2 .txt", or nothing."""
        shown = [show_number(number, show_kind(kind)) for kind, number in self.most_common(MOST_KINDS)]
        if others := self.total() - sum(number for _, number in self.most_common(MOST_KINDS)):
            shown.append(f"{others} of {show_number(len(self) - MOST_KINDS, 'more kinds')}")
        return "; ".join(shown)


def show_kind(kind: str) -> str:
    """Returns a kind, with what to do about it."""
    advice = ADVICE.get(kind) or ARCHIVES.get(kind, "")
    if PARQUET_COPY.fullmatch(kind):
        advice = "if pandas wrote them, rename them to .parquet"
    if not advice and (start := EXTENSION.match(kind)) and start[0] in list_image_extensions():
        advice = f"rename them to {start[0]}"
    return f"{show_name(kind)}: {advice}" if advice else show_name(kind)


def find_ending(name: str) -> str:
    """Returns what a name ends in, in lower case: an extension, or two of what may be a parquet file."""
    copy = PARQUET_COPY.fullmatch(name.lower())
    return os.path.splitext(name)[1].lower() if copy is None else copy[1]


@dataclass
class FoundImages:
    """Holds the paths of images, sorted, and what was left out beside them."""

    paths: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    def add(self, folder: str, name: str) -> None:
        """Adds the file `name` of a folder, or counts it as left out, but for this project's own record of a folder."""
        if RECORD.fullmatch(name):
            return
        extension = find_ending(name)
        if name.startswith("."):
            self.left_out[HIDDEN_FILES] += 1
        elif extension in list_image_extensions():
            self.paths.append(os.path.join(folder, name))
        else:
            self.left_out[extension or "files without an extension"] += 1


def find_in_folder(root: str | os.PathLike[str]) -> FoundImages:
    """Finds the images below a folder; paths are relative to it.

    Raises:
        OSError: A folder cannot be listed.
    """
    found = FoundImages()
    for _ in add_folders(root, found):
        pass
    found.paths.sort()
    return found


def has_images(root: str | os.PathLike[str]) -> bool:
    """Returns whether there is an image below a folder.

    Raises:
        OSError: A folder cannot be listed.
    """
    found = FoundImages()
    return any(found.paths for _ in add_folders(root, found))


def add_folders(root: str | os.PathLike[str], found: FoundImages) -> Iterator[None]:
    """Adds the files of each folder below `root` to what was found, and stops after each."""
    for folder, names in walk(os.fspath(root), found.left_out):
        for name in names:
            found.add(folder, name)
        yield


def is_hidden_folder(name: str) -> bool:
    """Returns whether a folder of this name is left out: it is hidden, or one of a system."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def is_hidden_member(parts: Sequence[str]) -> bool:
    """Returns whether a member of an archive is left out as in a folder: it is hidden, or lies in such a folder.

    `parts` are its folders, of which ".." hides nothing, and its own name.
    """
    *folders, base = parts or [""]
    return base.startswith(".") or any(is_hidden_folder(folder) for folder in folders if folder != "..")


def walk(root: str, left_out: LeftOut) -> Iterator[tuple[str, list[str]]]:
    """Yields each folder below `root`, relative to it and once, with the names of its files.

    Links come after all folders that lie there, so that none takes the name of a folder.
    """

    def refuse(error: OSError) -> None:
        raise error

    visited, starts = set(), deque([root])
    while starts:
        for folder, subfolders, files in os.walk(starts.popleft(), followlinks=True, onerror=refuse):
            real = os.path.realpath(folder)
            if real in visited:
                left_out[REPEATED] += 1
                subfolders.clear()
                continue
            visited.add(real)
            shown = sorted(name for name in subfolders if not is_hidden_folder(name))
            if len(shown) < len(subfolders):
                left_out[HIDDEN_FOLDERS] += len(subfolders) - len(shown)
            links = [name for name in shown if os.path.islink(os.path.join(folder, name))]
            starts += [os.path.join(folder, name) for name in links]
            subfolders[:] = [name for name in shown if name not in links]
            yield "" if folder == root else os.path.relpath(folder, root), files


def expand_pattern(pattern: str, left_out: LeftOut | None = None) -> list[str]:
    """Returns the paths that a pattern matches, like `glob` with `**` for folders of any depth, sorted.

    There each folder is entered once, whatever links lead to it: `glob` takes for ever where two of them make loops.
    Folders of systems are left out, unless the pattern has their names. Brackets in the names of existing folders and
    files stand for themselves.
    """
    end = measure_existing(pattern)
    return _expand(glob.escape(pattern[:end]) + pattern[end:], LeftOut() if left_out is None else left_out)


def _expand(pattern: str, left_out: LeftOut) -> list[str]:
    before, *rest = ANY_DEPTH.split(pattern, maxsplit=1)
    if not rest:
        return match_in_depth(pattern, left_out)
    roots = match_in_depth(before, left_out) if before else [os.sep if pattern.startswith(os.sep) else ""]
    paths = list[str]()
    for root in [root for root in roots if not root or os.path.isdir(root)]:
        for folder, _ in walk(root or os.curdir, left_out):
            inside = glob.escape(os.path.join(root, folder))
            paths += _expand(os.path.join(inside, rest[0] or "*"), LeftOut())  # what is left out there is counted here
    return sorted(set(paths))


def match_in_depth(pattern: str, left_out: LeftOut) -> list[str]:
    """Returns the paths that a pattern without `**` matches, sorted; its wildcards match no folder of a system."""
    wild = [index for index, part in enumerate(PurePath(pattern).parts) if glob.has_magic(part)]
    paths, hidden = list[str](), set[tuple[str, ...]]()
    for path in sorted(glob.glob(pattern)):
        parts = PurePath(path).parts
        found = [parts[: index + 1] for index in wild if parts[index] in SYSTEM_FOLDERS]
        paths += [] if found else [path]
        hidden.update(found[:1])
    left_out.update({HIDDEN_FOLDERS: len(hidden)} if hidden else {})
    return paths


def find_matching(pattern: str) -> FoundImages:
    """Finds the images among the paths that a pattern matches."""
    left_out = LeftOut()
    paths = expand_pattern(pattern, left_out)
    found = find_among(paths)
    found.left_out.update(left_out)
    if not ANY_DEPTH.search(pattern) and (folders := sum(map(os.path.isdir, paths))):
        found.left_out[MATCHED_FOLDERS] += folders
    return found


def find_among(paths: Iterable[str]) -> FoundImages:
    """Finds the images among paths, such as those of a pattern, which may come to a folder several times by links."""
    found, chosen = FoundImages(), dict[str, str]()
    files = [os.path.split(path) for path in sorted(paths) if not os.path.isdir(path)]
    for folder in sorted({folder for folder, _ in files}, key=lambda folder: (count_links(folder), folder)):
        chosen.setdefault(os.path.realpath(folder), folder)
    names = set(chosen.values())
    for folder, name in files:
        if folder in names:
            found.add(folder, name)
        else:
            found.left_out["files linked to again"] += 1
    return found


def count_links(path: str) -> int:
    """Returns how many links a path goes through."""
    return sum(map(os.path.islink, (path, *map(str, PurePath(path).parents))))
