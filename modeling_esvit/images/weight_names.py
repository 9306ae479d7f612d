# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the names of stored tensors, which messages and transformers' report of a model show, before it is loaded.

Without unpickling anything, it also finds tensors that have no values.
"""

import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from safetensors import SafetensorError, safe_open

from modeling_esvit.errors import EsViTError


WEIGHTS = re.compile(r".*\.safetensors|pytorch_model.*\.bin")  # what transformers reads of a folder, beside an index
LARGEST_PICKLE = 2**26  # bytes of an archive's names; those of 20,000 tensors take 5 MB
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # which torch reads
LONGEST_SHOWN = 100  # characters of a name in a message
WITHOUT_VALUES = "_rebuild_meta_tensor"  # what a pickle makes of a tensor on torch's device meta
IN_A_ROW = 5  # pickles at the beginning of a file of torch before 1.6: the fourth has the names
UNREADABLE = (
    *(EOFError, LookupError, MemoryError, OSError, OverflowError, RuntimeError, SafetensorError, ValueError),
    *(zipfile.BadZipFile, zlib.error),
)


class WeightNameError(EsViTError, ValueError):
    """Raised when a stored tensor has a name that would change a terminal, or forge a line, or no values."""


def find_strange(names: Iterable[object]) -> str | None:
    """Returns the first name with control characters or line ends, as a message may show it; None if there is none."""
    strange = next((str(name) for name in names if not str(name).isprintable()), None)
    return None if strange is None else repr(strange[:LONGEST_SHOWN])


def check_names(names: Iterable[object], file: str) -> None:
    """Checks the names that a file holds.

    Raises:
        WeightNameError: one has control characters or line ends.
    """
    if (strange := find_strange(names)) is not None:
        raise WeightNameError(f"{file} has a tensor with the name {strange}: it is damaged.")


def check_stored_names(file: Path) -> None:
    """Checks the names of the tensors in a file of weights; what is wrong with a damaged one, its reader says.

    Raises:
        WeightNameError: see `check_names`; or a tensor has no values, for which transformers would take any memory.
    """
    try:
        names = list_names(file) if file.suffix == ".safetensors" else [*list_texts(file)]
    except UNREADABLE:
        return
    check_names(names, file.name)
    if any(WITHOUT_VALUES in name for name in names):
        raise WeightNameError(f"{file.name} has a tensor without values (on torch's device meta): save the real one.")


def list_names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as weights:
        return [*weights.keys()]


def list_texts(file: Path) -> Iterator[str]:
    """Yields all texts in a file that torch.save wrote, the names of its tensors among them, and executes nothing."""
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            for _ in range(IN_A_ROW):
                yield from list_pickled(stream)
        return
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.endswith("data.pkl") and member.compress_type in COMPRESSIONS:
                if member.file_size > LARGEST_PICKLE:
                    raise WeightNameError(f"{file.name} holds more than names and tensors: it is damaged.")
                with archive.open(member) as stream:
                    yield from list_pickled(stream)


def list_pickled(stream: IO[bytes]) -> Iterator[str]:
    """Yields the texts of one pickle; GLOBAL names its type by one with a blank in place of its line end."""
    for _, value, _ in pickletools.genops(stream):
        if isinstance(value, str):
            yield value
