# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shares the features of many images among processes, in parts on disk.

`OUTPUT.parts/part-00000000.safetensors` and so on hold the next `part_size` images each. One process makes each part,
so the content does not depend on the number of processes. If a call is stopped, the next call makes the missing parts,
of the same images alone: `data.json` beside the parts tells them from others.
"""

import itertools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from modeling_esvit.embed.engine import LoadedImage
from modeling_esvit.embed.files import (
    Features,
    OutputError,
    concatenate,
    format_unreadable,
    name_report,
    write_arrays,
    write_or_explain,
    write_parquet,
)
from modeling_esvit.embed.origin import make_origin
from modeling_esvit.embed.progress import show_progress
from modeling_esvit.storage.atomic import record_file, replace_file, write_recorded, write_text
from modeling_esvit.storage.identity import Identity
from modeling_esvit.storage.locks import lock
from modeling_esvit.storage.manifest import find_damage, name_record, remove_own_files


logger = logging.getLogger(__name__)


class Parts:
    """Holds the parts of one output. A call whose `settings` or images differ does not continue them.

    identity: that of the images, for a folder whose name does not tell them.
    """

    def __init__(self, output: Path, settings: dict[str, Any], identity: Identity | None = None):
        self.folder = output.with_name(output.name + ".parts")
        self.settings = json.loads(json.dumps(settings))
        self.identity = identity

    def begin(self, anew: bool = False) -> None:
        """Makes the folder, or checks that its parts can be continued. All processes call it.

        Args:
            anew: make parts anew that cannot be continued.

        Raises:
            OutputError: the folder holds parts of other settings or images, or somebody else's files of these names.
            InUseError: the parts that would be made anew are those that another call is making.
        """
        with PartialState().main_process_first():
            self.refuse_foreign()
            if self.settings_file.exists() and (damage := self.find_damage()):
                logger.warning("%s is begun anew, since it is damaged: %s.", self.folder, "; ".join(damage))
                self.delete_unused()
            change = self.find_change() if self.settings_file.exists() else None
            if change is not None and not anew:
                raise OutputError(
                    f"{self.folder} holds features of another call: {change}. Call as before, name another output, "
                    "or begin anew: delete the folder, or let embed do it by --overwrite."
                )
            if change is not None:
                logger.warning("%s is begun anew, since its features are of another call: %s.", self.folder, change)
                self.delete_unused()
            if not self.settings_file.exists():
                write_or_explain(self.write_call, self.folder)

    def write_call(self) -> None:
        """Makes the folder, with what it says of this call."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path, content in self.describe_call().items():
            write_recorded(path, content)

    def refuse_foreign(self) -> None:
        """Refuses files that say of which call parts are, but were not written by one.

        Raises:
            OutputError: There are some.
        """
        foreign = [path.name for path in self.describe_call() if path.exists()]
        foreign = [name for name in foreign if not (self.folder / name_record(name)).exists()]
        if foreign:
            raise OutputError(
                f"{self.folder} holds {' and '.join(foreign)}, which embed has no record of writing: move the folder "
                "away, or name another output."
            )

    @property
    def settings_file(self) -> Path:
        return self.folder / "settings.json"

    @property
    def data_file(self) -> Path:
        return self.folder / "data.json"

    def describe_call(self) -> dict[Path, str]:
        """Returns what the folder says of this call, by its files; the one that is looked for comes last."""
        data = {} if self.identity is None else {self.data_file: json.dumps(self.identity.to_json())}
        return {**data, self.settings_file: json.dumps(self.settings, indent=2)}

    def describe_origin(self) -> dict[str, Any]:
        """Returns what the output says of its model and images, see `make_origin`."""
        return {} if self.identity is None else make_origin(self.settings, self.identity)

    def find_damage(self) -> list[str]:
        return find_damage(self.folder, [path.name for path in self.describe_call()])

    def find_change(self) -> str | None:
        """Returns in words what differs from the call that began the parts; None if nothing does."""
        found = json.loads(self.settings_file.read_text(encoding="utf-8"))
        before = None
        if self.identity is not None:
            before = Identity.from_json(json.loads(self.data_file.read_text(encoding="utf-8")))
        changed = [f"{name} was {found.get(name)!r} and is {value!r}" for name, value in self.settings.items()
                   if found.get(name) != value]  # fmt: skip
        if before is not None and self.identity is not None:
            changed += filter(None, [before.describe_change(self.identity)])
            if times := before.describe_times(self.identity):
                logger.warning("Taken for the same images, but modified at other times than before: %s.", times)
        return "; ".join(changed) or None

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:08d}.safetensors"

    def is_done(self, number: int) -> bool:
        """Returns whether a part is there as it was written; one that is damaged is made anew."""
        if not self.path(number).exists():
            return False
        damage = find_damage(self.folder, [self.path(number).name])
        if damage:
            logger.warning("A part of %s is made anew: %s.", self.folder, damage[0])
        return not damage

    def write(self, number: int, features: Features) -> None:
        """Writes a part.

        Raises:
            OutputError: it cannot be written; the parts before it are whole.
        """
        metadata = {"names": json.dumps(features.names), "unreadable": json.dumps(features.unreadable)}

        def write() -> None:
            with replace_file(self.path(number)) as partial:
                save_file(features.arrays() if features.names else {}, partial, metadata=metadata)
            record_file(self.folder, self.path(number).name, shared=True)

        write_or_explain(write, self.folder)

    @contextmanager
    def open(self, number: int, framework: str) -> Iterator[Any]:
        """Opens the file of a part.

        Raises:
            OutputError: the file is missing or damaged.
        """
        path = self.path(number)
        try:
            with safe_open(path, framework=framework) as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise OutputError(f"{path} is damaged ({error}). The same call makes it anew.") from error

    def read(self, number: int) -> Features:
        """Reads a part into memory.

        Raises:
            OutputError: the file is missing or damaged.
        """
        with self.open(number, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            metadata = file.metadata()
        names, unreadable = json.loads(metadata["names"]), json.loads(metadata["unreadable"])
        return Features(names, arrays.get("view", np.empty((0, 0))), arrays.get("regions"), unreadable)

    def delete_unused(self) -> None:
        """Deletes the files that are recorded, unless another call of `embed` is writing them.

        Raises:
            InUseError: one is.
        """
        with lock(self.folder, self.folder):
            self.delete()

    def delete(self) -> None:
        """Deletes the files that are recorded, and the folder if nothing else is in it."""
        remove_own_files(self.folder)


def cut_rows(count: int, part_size: int) -> list[range]:
    """Returns the rows of each part of `count` images."""
    return [range(start, min(start + part_size, count)) for start in range(0, count, part_size)]


def make_parts(
    parts: Parts,
    rows: Sequence[range],
    read: Callable[[range], Iterator[LoadedImage]],
    make_part: Callable[[Iterator[LoadedImage], Callable[[int], object]], Features],
    *,
    expect: Callable[[int], object] = lambda images: None,
    description: str,
) -> None:
    """Makes the missing parts, of `rows` each. All processes call it after `parts.begin()`, and share the work.

    Args:
        read: returns the images of neighbouring rows, in order.
        make_part: takes the images of a part, and a function that it calls with the number of images of each batch.
        expect: is told first how many images this process computes in all.
        description: names the work on the progress bar.
    """
    state = PartialState()
    own = find_own_parts(parts, len(rows), state)
    total = sum(len(rows[number]) for number in own)
    expect(total)
    with show_progress(description, total, "image", shown=state.is_main_process) as bar:
        for span in find_spans(own):
            images = read(range(rows[span[0]].start, rows[span[-1]].stop))
            for number in span:
                parts.write(number, make_part(itertools.islice(images, len(rows[number])), bar.update))


def find_own_parts(parts: Parts, count: int, state: PartialState) -> list[int]:
    """Returns the missing parts that this process makes: neighbours, so that a stream is read in one go."""
    share = -(-count // state.num_processes)
    mine = range(count)[state.process_index * share : (state.process_index + 1) * share]
    return [number for number in mine if not parts.is_done(number)]


def find_spans(numbers: list[int]) -> Iterator[range]:
    """Yields increasing numbers as ranges of neighbours."""
    for _, group in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        neighbours = [number for _, number in group]
        yield range(neighbours[0], neighbours[-1] + 1)


def merge_parts(parts: Parts, count: int, output: Path) -> dict[str, str]:
    """Writes `output` from parts 0 .. count - 1. Parquet is written part by part; the other formats pass through memory
    as a whole. Returns what could not be read, and lists it beside the output (`OUTPUT.unreadable.txt`).

    Raises:
        OutputError: it cannot be written, or a part is missing or damaged.
    """
    return write_or_explain(lambda: write_merged(parts, count, output), output.parent)


def write_merged(parts: Parts, count: int, output: Path) -> dict[str, str]:
    with replace_file(output) as partial:
        if output.suffix == ".parquet":
            each = (parts.read(number) for number in range(count))
            unreadable = write_parquet(each, partial, parts.describe_origin())
        else:
            features = concatenate([parts.read(number) for number in range(count)])
            features.origin = parts.describe_origin()
            unreadable = features.unreadable
            write_arrays(features, partial, output.suffix)
    report = name_report(output)
    report.unlink(missing_ok=True)
    if unreadable:
        write_text(report, format_unreadable(unreadable))
    return unreadable
