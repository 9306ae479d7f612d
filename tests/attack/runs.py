# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Attacks what this project reads back of its own: checkpoints, records and models of a run, the parts of features."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch

from modeling_esvit.embed.files import Features
from modeling_esvit.embed.parts import Parts, cut_rows, make_parts
from modeling_esvit.storage.run_log import LOG, read_log
from tests.attack.outcomes import Attack, Surface, WrongError
from tests.helpers.tiny_runs import tiny, train, write_images, write_labelled_images
from training.features.frozen_models import load_frozen
from training.learning.init_from import find_origin
from training.publishing.source import find_source, load_model
from training.state.checkpoint_folders import find_newest_whole, list_checkpoints
from training.state.checkpoints import read_progress, read_saved_options, read_scores
from training.state.data_record import DataRecord
from training.state.provenance_record import find_weights_record, read_options, read_provenances


PARTS = 3
PICTURES = {".png", ".lock"}  # files of a run from which nothing is read


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


def publish(run: Path, checkpoint: str | None) -> str:
    """Returns what would be published of a run."""
    source = find_source(run, checkpoint)
    return repr((source, describe_weights(load_model(source.model))))


def continue_run(run: Path) -> str:
    """Returns what a continued run reads of its folder."""
    newest, record = find_newest_whole(list_checkpoints(run / "checkpoints")), DataRecord(str(run))
    if newest is None:
        raise WrongError("no checkpoint is taken for whole")
    read = read_saved_options(str(run)), read_options(run / "options.yaml"), read_provenances(run), vars(record)
    return repr((newest, *read, read_progress(newest), read_scores(newest), read_log(run / LOG)))


def describe_weights(model: torch.nn.Module) -> dict[str, float]:
    return {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()}


def use_model(run: Path) -> str:
    """Returns what `knn.py` and `embed` compute with the model of a run."""
    with torch.inference_mode():
        return repr(load_frozen(str(run)).features(torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)))


USES: list[Callable[[Path], str]] = [
    continue_run,
    use_model,
    *(partial(publish, checkpoint=checkpoint) for checkpoint in ("final", "best", "last")),
    lambda run: repr(find_origin(str(run))),
    lambda run: repr(find_weights_record(str(run))),
]


@contextmanager
def listen() -> Iterator[list[str]]:
    """Collects the warnings of this project, which `run.py` switches off."""
    before = logging.root.manager.disable
    handler, said = logging.Handler(logging.WARNING), list[str]()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("modeling_esvit", "training")]
    for logger in loggers:
        logger.addHandler(handler)
    logging.disable(logging.NOTSET)
    try:
        yield said
    finally:
        logging.disable(before)
        for logger in loggers:
            logger.removeHandler(handler)


def prepare_run(folder: Path) -> Attack:
    """Damages any file of a run, and uses the run as programs do: they read the same, or say that it is damaged."""
    output = folder / "run"
    scores = write_labelled_images(folder)
    train(tiny(folder / "train", output, f"--save_every 1 --keep_checkpoints 2 {scores}"))
    files = sorted(path.relative_to(output) for path in list_files(output))
    shutil.copytree(output, folder / "whole", symlinks=True)
    expected = [use(output) for use in USES]

    def attack(random: Random) -> None:
        file, other, number = random.choice(files), random.choice(files), random.randrange(len(USES))
        damage(random, output / file, folder / "whole" / other)
        try:
            with listen() as said:
                found = USES[number](output)
        finally:
            shutil.copy(folder / "whole" / file, output / file)
        if found != expected[number] and not said:
            raise WrongError(f"use {number} of a run takes a damaged {file} without a word")

    return attack


def list_files(run: Path) -> list[Path]:
    """Returns the files of a run, each once: `best` and `last` are links."""
    files = [path for path in run.rglob("*") if path.is_file() and path.suffix not in PICTURES]
    return [path for path in files if path.resolve() == path.absolute() and path.name not in PICTURES]


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
    Surface("any file of a run, likewise, continued, published and used", prepare_run, 3),
    Surface("parts of features, likewise", prepare_parts, 1),
]
