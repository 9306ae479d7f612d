# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Attacks what this project reads back of its own: the checkpoints of a run, the parts of features."""

import shutil
from pathlib import Path
from random import Random

import numpy as np

from modeling_esvit.embed.files import Features
from modeling_esvit.embed.parts import Parts, cut_rows, make_parts
from tests.attack.outcomes import Attack, Surface, WrongError
from tests.helpers.tiny_runs import tiny, train, write_images
from training.learning.init_from import find_origin
from training.state.checkpoint_folders import find_newest_whole, list_checkpoints
from training.state.checkpoints import read_saved_options


PARTS = 3


def damage(random: Random, path: Path, other: Path) -> None:
    """Flips one bit of a file, or now and then cuts, lengthens, removes or exchanges it."""
    content = path.read_bytes()
    kind = random.choice(["bit"] * 12 + ["cut", "longer", "gone", "other"])
    if kind == "bit" and content:
        place = random.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :])
    elif kind == "cut" and content:
        path.write_bytes(content[: random.randrange(len(content))])
    elif kind == "gone":
        path.unlink()
    elif kind == "other" and other.read_bytes() != content:
        shutil.copy(other, path)
    else:
        path.write_bytes(content + b"\0")


def prepare_checkpoint(folder: Path) -> Attack:
    output = folder / "run"
    train(tiny(write_images(folder / "images"), output, "--save_every 1 --keep_checkpoints 3"))
    *_, before, newest = list_checkpoints(output / "checkpoints")
    shutil.copytree(newest, folder / "whole")
    files = sorted(path.relative_to(newest) for path in newest.rglob("*") if path.is_file())

    def attack(random: Random) -> None:
        file = random.choices(files, [(newest / each).stat().st_size for each in files])[0]
        if random.random() < 0.5:
            file = random.choice(files)
        damage(random, newest / file, before / file)
        try:
            if find_newest_whole(list_checkpoints(output / "checkpoints")) != before:
                raise WrongError(f"a checkpoint with a damaged {file} is continued")
            if random.random() < 0.1:  # they take the same way
                if find_origin(str(output)).training_state != before / "training_state":
                    raise WrongError(f"a run starts from one with a damaged {file}")
                read_saved_options(str(output))
        finally:
            shutil.copy(folder / "whole" / file, newest / file)

    return attack


def prepare_parts(folder: Path) -> Attack:
    values = {number: np.full((2, 4), number, np.float32) for number in range(PARTS)}
    rows, made = cut_rows(2 * PARTS, 2), list[int]()

    def make_all() -> list[Features]:
        """Makes the parts as `embed` does."""
        parts = Parts(folder / "x.npz", {"model": "m"})
        parts.begin()
        made.clear()
        make_parts(parts, rows, iter, make_part, description="parts")
        return [parts.read(number) for number in range(PARTS)]

    def make_part(images, after_batch) -> Features:
        first, second = images
        made.append(first // 2)
        return Features([str(first), str(second)], values[first // 2], None, {})

    make_all()
    whole = folder / "x.npz.parts"
    shutil.copytree(whole, folder / "whole")

    def attack(random: Random) -> None:
        file = random.choice(sorted(whole.iterdir()))
        damage(random, file, random.choice(sorted((folder / "whole").iterdir())))
        try:
            found = make_all()
        finally:
            shutil.rmtree(whole)
            shutil.copytree(folder / "whole", whole)
        if any(not np.array_equal(part.view, values[number]) for number, part in enumerate(found)):
            raise WrongError(f"features of a damaged {file.name} are used")

    return attack


SURFACES = [
    Surface("checkpoint of a run, one bit flipped, or a file cut or exchanged", prepare_checkpoint, 3),
    Surface("parts of features, likewise", prepare_parts, 1),
]
