# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Replaces files, folders and links at once.

Each is written under a temporary name beside its final one, `NAME.partial`, forced to the disk and renamed. So what has
its final name is whole, also after a kill or a power cut at any instant, and a later call overwrites what a kill left.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modeling_esvit.storage.failed_writes import name_failed_write
from modeling_esvit.storage.locks import InUseError, lock, make_error
from modeling_esvit.storage.manifest import (
    MANIFEST,
    PARTIAL,
    check_own,
    check_replaceable,
    delete_folder,
    describe_content,
    describe_file,
    format_own_record,
    format_record,
    has_damaged_record,
    list_names,
    mark_unfinished,
    name_record,
    read_record,
    remove_folder,
    write_manifest,
)


OPENS_FOLDERS = hasattr(os, "O_DIRECTORY")  # Windows does not, and forces to the disk what is open for writing alone


@contextmanager
def replace_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yields a temporary path to write to; after the block that file takes the place of `path`.

    If the block fails, the temporary file is removed, and `path` stays as it was.

    Args:
        path: The final name.
        shared: Whether several processes may write `path` at the same time. Each then has a temporary file of its own.

    Raises:
        ForeignFilesError: See `check_replaceable`.
        InUseError: Another process is writing the file.
    """
    check_replaceable(path)
    owner = f".{os.getpid()}" if shared else ""
    partial = path.with_name(f"{path.name}{owner}{PARTIAL}")
    with name_failed_write(path):
        partial.touch()
        with lock(partial, path):
            try:
                usual = partial.stat().st_mode
                yield partial
                partial.chmod(usual)  # safetensors writes files that nobody else may read
                force_to_disk(partial)
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            force_to_disk(path.parent)


def write_text(path: Path, text: str, *, shared: bool = False) -> None:
    """Replaces the file `path` by one that holds `text`, in UTF-8."""
    with replace_file(path, shared=shared) as partial:
        partial.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Adds a text, in UTF-8, to the end of a file, or nothing of it.

    Raises:
        OSError: It cannot be written, or not whole.
    """
    content = text.encode()
    with path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(end)
            raise


@contextmanager
def replace_folder(path: Path, later: Iterable[str] = ()) -> Iterator[Path]:
    """Yields an empty temporary folder to write into; after the block it takes the place of `path`.

    What it then holds is recorded (`manifest.py`), with names of files that come `later`. If the block fails, `path`
    stays as it was. The temporary folder, and the parents that were made for it, are removed, since the disk may be
    full.

    Raises:
        ForeignFilesError: `path`, or what a kill left beside it, holds something that was not written in this way.
        InUseError: Another process is writing the folder.
    """
    new_parents = [parent for parent in path.parents if not parent.exists()]
    partial, old = (path.with_name(f"{path.name}{ending}") for ending in (PARTIAL, f".old{PARTIAL}"))
    check_own(path)
    for leftover in (partial, old):
        remove_leftover(leftover, path)
    try:
        with name_failed_write(path), make_locked(partial, path):
            mark_unfinished(partial)
            yield partial
            write_manifest(partial, later)
            give_usual_modes(partial)
            force_tree_to_disk(partial)
            if path.exists():
                check_own(path)
                path.rename(old)
            partial.rename(path)
            force_to_disk(path.parent)
    finally:
        remove_if_empty(new_parents)
    with suppress(InUseError), lock(old, path):
        delete_if_possible(old)


def remove_leftover(folder: Path, final: Path) -> None:
    """Removes what a kill left of an earlier call that wrote `final`.

    Raises:
        ForeignFilesError: It holds something else, too.
        InUseError: Another process is writing it.
    """
    if folder.is_symlink() or not folder.is_dir():
        check_own(folder)
        return
    with lock(folder, final):
        remove_folder(folder)


@contextmanager
def make_locked(partial: Path, final: Path) -> Iterator[None]:
    """Makes a folder and keeps it to this process during the block; if that fails, the folder is deleted.

    Raises:
        InUseError: Another process has made it, too.
    """
    try:
        partial.mkdir(parents=True)
    except FileExistsError as error:
        if not partial.is_dir():
            raise
        raise make_error(final) from error
    with lock(partial, final):
        try:
            yield
        except BaseException:
            delete_if_possible(partial)
            raise


def give_usual_modes(folder: Path) -> None:
    """Lets those read the files of a folder who may read its record: safetensors writes them for their owner alone."""
    usual = (folder / MANIFEST).stat().st_mode
    for name in list_names(folder):
        path = folder / name
        if not path.is_symlink():
            path.chmod(usual | path.stat().st_mode)


def delete_if_possible(folder: Path) -> None:
    """Deletes a folder of ours; what cannot be deleted is left to the next call."""
    with suppress(OSError):
        delete_folder(folder)


def record_file(folder: Path, name: str, *, shared: bool = False) -> None:
    """Records a file that was added to a folder, or replaced.

    Args:
        shared: Whether several processes add files at the same time. Each file then has a record of its own, as also
            beside a damaged record, which would else become a whole one of this file alone.
    """
    if shared or has_damaged_record(folder):
        write_text(folder / name_record(name), format_own_record(describe_file(folder / name)), shared=True)
        return
    record = read_record(folder)
    record["files"][name] = describe_file(folder / name)
    write_text(folder / MANIFEST, format_record(record))


def write_recorded(path: Path, text: str) -> None:
    """Replaces a file that several processes may write, and before it its record: a kill leaves none without one."""
    content = text.replace("\n", os.linesep).encode()
    write_text(path.with_name(name_record(path.name)), format_own_record(describe_content(content)), shared=True)
    write_text(path, text, shared=True)


def rewrite_recorded(path: Path, text: str) -> None:
    """Replaces a file that one process writes, and that has a record of its own: a kill leaves none with another's.

    It may leave the file without one, which is believed until the next call rewrites it.
    """
    path.with_name(name_record(path.name)).unlink(missing_ok=True)
    write_text(path, text)
    record_file(path.parent, path.name, shared=True)


def remove_if_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def replace_link(link: Path, folder: Path) -> None:
    """Makes `link` a relative link to its sibling `folder`; there is no instant without the link."""
    partial = link.with_name(link.name + PARTIAL)
    partial.unlink(missing_ok=True)
    partial.symlink_to(folder.name, target_is_directory=True)
    partial.replace(link)
    force_to_disk(link.parent)


def force_to_disk(path: Path) -> None:
    """Waits until the disk has the content of a file, or the names in a folder, which Windows does by itself."""
    if path.is_dir() and not OPENS_FOLDERS:
        return
    descriptor = os.open(path, os.O_RDONLY if OPENS_FOLDERS else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def force_tree_to_disk(folder: Path) -> None:
    """Forces the files below `folder` to the disk, and then the folders that name them."""
    paths = list(folder.rglob("*"))
    for path in [*(p for p in paths if p.is_file()), *(p for p in paths if p.is_dir()), folder]:
        force_to_disk(path)
