# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shares the features of many images among processes, in parts on disk.

`OUTPUT.parts/part-00000000.safetensors` and so on hold the next `part_size` images each. One process makes each part,
so the content does not depend on the number of processes. If a call is stopped, the next call makes the missing parts.
"""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from modeling_esvit.embed.engine import LoadedImage
from modeling_esvit.embed.files import Features, OutputError, concatenate, write_arrays, write_parquet
from modeling_esvit.storage.atomic import replace_file, write_text


class Parts:
    """Holds the parts of one output. A call whose `settings` differ does not continue them."""

    def __init__(self, output: Path, settings: dict[str, Any]):
        self.folder = output.with_name(output.name + ".parts")
        self.settings = json.loads(json.dumps(settings))

    def begin(self) -> None:
        """Makes the folder, or checks that its parts can be continued. All processes call it.

        Raises:
            OutputError: the folder holds parts that were made with other settings.
        """
        with PartialState().main_process_first():
            file = self.folder / "settings.json"
            if file.exists():
                self.check_settings(json.loads(file.read_text()))
            else:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_text(file, json.dumps(self.settings, indent=2), shared=True)

    def check_settings(self, found: dict[str, Any]) -> None:
        changed = [f"{name} was {found.get(name)!r} and is {value!r}" for name, value in self.settings.items()
                   if found.get(name) != value]  # fmt: skip
        if changed:
            raise OutputError(
                f"{self.folder} holds features of another call: {'; '.join(changed)}. Call as before, delete the "
                "folder, or name another output."
            )

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:08d}.safetensors"

    def is_done(self, number: int) -> bool:
        return self.path(number).exists()

    def write(self, number: int, features: Features) -> None:
        metadata = {"names": json.dumps(features.names), "unreadable": json.dumps(features.unreadable)}
        with replace_file(self.path(number)) as partial:
            save_file(features.arrays() if features.names else {}, partial, metadata=metadata)

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
            raise OutputError(f"{path} is damaged ({error}). Delete it; the same call makes it anew.") from error

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

    def delete(self) -> None:
        shutil.rmtree(self.folder)


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
    hidden = not state.is_main_process
    with tqdm(desc=description, total=total, unit="image", disable=hidden, dynamic_ncols=True) as bar:
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
    """
    with replace_file(output) as partial:
        if output.suffix == ".parquet":
            unreadable = write_parquet((parts.read(number) for number in range(count)), partial)
        else:
            features = concatenate([parts.read(number) for number in range(count)])
            unreadable = features.unreadable
            write_arrays(features, partial, output.suffix)
    report = output.with_name(output.name + ".unreadable.txt")
    report.unlink(missing_ok=True)
    if unreadable:
        write_text(report, "".join(f"{name}\t{reason}\n" for name, reason in unreadable.items()))
    return unreadable
