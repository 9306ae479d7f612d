# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the linear probe: trains the classifiers epoch by epoch, evaluates them, and continues a stopped run."""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from modeling_esvit.embed.engine import FeatureError, LoadedImage
from modeling_esvit.embed.files import write_or_explain
from modeling_esvit.embed.progress import show_progress
from modeling_esvit.errors import EsViTError
from modeling_esvit.storage.atomic import replace_folder
from modeling_esvit.storage.manifest import remove_folder
from training.data.identity import identify_source
from training.data.shard_stream import ShardStream
from training.data.sources import ImageSource
from training.data.unreadable import SkipLog
from training.evaluation.arguments import choose_columns
from training.evaluation.class_names import check_common, number_classes
from training.evaluation.comparison import find_chance
from training.evaluation.probe_data import ProbeImages, ProbeView
from training.evaluation.probes import LinearProbes, Setting
from training.evaluation.results import NAMED_DATA
from training.evaluation.scores import NO_CLASS, score_top_k
from training.features.bank import FeatureBank, name_settings
from training.features.frozen_models import FrozenModel, choose_block_features, find_training_view
from training.state.checkpoint_folders import find_last_whole
from training.state.checkpoints import save_tensors


IN_RECIPES = ("lr", "n_last_blocks", "epochs", "batch_size", "seed")
BLOCKS = 4  # the last blocks whose features the paper's probe takes
VIEW = 0  # the number of blocks that stands for the view feature
PIECE = 512  # test images that are classified at a time
BATCH_SIZE = 1024  # images of a step, as published
FEWEST_STEPS = 10  # of an epoch, for which batches become smaller
STATE = "state.pt"  # in the folder of an epoch


class ProbeError(EsViTError, ValueError):
    """Raised when an option of a linear probe cannot be used, or another probe has begun in the output folder."""


def check_probe_options(options: argparse.Namespace, world: int) -> None:
    """Checks the options of a linear probe.

    Raises:
        ProbeError: an option has an impossible value.
    """
    if options.epochs < 1 or not all(0 < lr < math.inf for lr in options.lr) or min(options.n_last_blocks) < 0:
        given = f"got {options.epochs}, {options.lr} and {options.n_last_blocks}"
        raise ProbeError(
            f"epochs must be at least 1, each lr positive and finite, each n_last_blocks at least 0; {given}."
        )
    if VIEW in options.n_last_blocks and len(set(options.n_last_blocks)) > 1:
        raise ProbeError("n_last_blocks 0, the view feature, stands alone. Beside other numbers use 1, the last block.")
    if options.batch_size is not None and options.batch_size % world:
        raise ProbeError(f"batch_size {options.batch_size} must be a multiple of the {world} processes.")


def fit_batch_size(images: int, world: int) -> int:
    """Returns the images of a step of all processes: BATCH_SIZE, or fewer for FEWEST_STEPS steps an epoch."""
    return max(min(BATCH_SIZE, images // FEWEST_STEPS) // world, 1) * world


@torch.no_grad()
def make_settings(options: argparse.Namespace, model: FrozenModel) -> list[Setting]:
    """Makes a classifier for each number of blocks and learning rate. Fewer blocks are the last columns."""
    (height, width), numbers = ProbeView(*find_training_view(model)).size, sorted(set(options.n_last_blocks))
    image = torch.zeros(1, 3, height, width, device=model.model.device, dtype=model.model.dtype)
    widths = {n: choose_block_features(model.model, n or None)(image).shape[1] for n in numbers}
    return [Setting(f"n{n}_lr{lr:g}", widths[n], lr) for n in numbers for lr in sorted(set(options.lr))]


def number_labels(source: ImageSource, bank: FeatureBank, num_classes: int | None) -> tuple[Tensor, int]:
    """Numbers the test labels as the training data do, or as NO_CLASS; also returns the number of classes.

    Raises:
        ProbeError: the training data name no classes, and `num_classes` is None.
        ClassNameError: the classes cannot be compared, or none is in both.
    """
    names = source.class_names
    places, test_places = number_classes([names, bank.class_names])
    if names is None and num_classes is None:
        raise ProbeError(
            "the classes of the training data have no names. Give the number of classes with --num_classes."
        )
    count = len(names) if names is not None else int(num_classes or 0)
    labels = bank.labels if test_places is None else test_places[bank.labels]
    known = torch.arange(count) if places is None else places
    check_common(known, labels, names, bank.class_names)
    matches = labels[:, None] == known
    return matches.int().argmax(dim=1).where(matches.any(dim=1), NO_CLASS), count


def find_probe_chance(source: ImageSource, labels: Tensor, num_classes: int) -> float:
    """Returns the accuracy, in 0..1, of naming the most frequent training class for each of the test `labels`.

    The labels of a stream are not known without reading it all: then it is that of naming any class.
    """
    if isinstance(source, ShardStream):
        return 1 / num_classes
    return find_chance(torch.tensor(source.list_labels()), labels)


class ProbeRun:
    """Holds the state of a linear probe: classifiers, images, and the accuracies of the epochs so far."""

    def __init__(self, options: argparse.Namespace, model: FrozenModel, source: ImageSource, bank: FeatureBank) -> None:
        self.options, self.model, self.source, self.bank = options, model, source, bank
        self.process = PartialState()
        self.labels, self.num_classes = number_labels(source, bank, options.num_classes)
        rules = {"batch_size": options.batch_size, "seed": options.seed}
        places = {"rank": self.process.process_index, "world": self.process.num_processes}
        self.images = ProbeImages(source, model, **rules, **places)
        settings, device = make_settings(options, model), model.model.device
        self.probes = LinearProbes(settings, self.num_classes, epochs=options.epochs, device=device, **rules)
        self.skipped = SkipLog(len(source))
        self.history: list[dict[str, dict[str, Any]]] = []
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self.key = {name: getattr(options, name) for name in (*IN_RECIPES, "num_classes")} | {
            "model": name_settings(model.settings),
            "train": identify_source(source).compute_key(),
            "test": name_settings([self.labels.tolist(), str(bank.parts.folder.name)]),
            "processes": places["world"] if isinstance(source, ShardStream) else None,
        }

    def run(self) -> None:
        self.resume()
        steps = self.images.count_steps()
        total, done = steps * self.options.epochs, steps * len(self.history)
        self.model.forward.expect((total - done) * self.images.share, self.images.share)
        with show_progress("linear probe", total, "step", shown=self.on_main, initial=done) as bar:
            for epoch in range(len(self.history), self.options.epochs):
                losses = self.train(epoch, bar)
                scores = self.evaluate()
                self.history.append({name: {"loss": losses[name]} | scores[name] for name in losses})
                self.probes.end_epoch()
                self.save()
                name, best = max(scores.items(), key=lambda score: score[1]["top1"])
                bar.set_postfix_str(f"epoch {epoch + 1}: {name} {best['top1']:.2%}")

    @property
    def on_main(self) -> bool:
        return self.process.is_main_process

    def train(self, epoch: int, bar: tqdm) -> dict[str, float | None]:
        """Trains for an epoch; returns the mean loss of each classifier, or None for one that diverged.

        Raises:
            FeatureError: the model gave NaN or infinity for a crop.
        """
        losses = []
        for batch in self.images.load_epoch(epoch, self.options.workers):
            losses.append(self.probes.step(*self.compute_features(batch)))
            bar.update()
        if not self.finite:
            raise FeatureError(
                f"the feature of a crop of epoch {epoch + 1} is not finite. Either the model's weights are broken, or "
                f"the model overflows in {self.model.model.dtype}."
            )
        mean = torch.stack(losses).mean(dim=0).tolist()
        named = zip(self.probes.settings, mean, strict=True)
        return {setting.name: loss if math.isfinite(loss) else None for setting, loss in named}

    @torch.no_grad()
    def compute_features(self, batch: list[LoadedImage]) -> tuple[Tensor, Tensor]:
        """Computes features `[b, C]` of the images that could be read; returns them with their labels `[b]`.

        Raises:
            ProbeError: a label is not one of the classes.
            TooManyUnreadableImagesError: more than `SkipLog` allows.
        """
        model = self.model.model
        self.skipped.add({image.name: image.unreadable for image in batch if image.pixels is None})
        readable = [image for image in batch if image.pixels is not None]
        for image in readable:
            assert image.label is not None  # `LabelledImages` refuses data without labels
            if image.label >= self.num_classes:
                raise ProbeError(f"{image.name} has the label {image.label}, but there are {self.num_classes} classes.")
        labels = torch.tensor([image.label for image in readable], dtype=torch.int64, device=model.device)
        if not readable:
            return torch.empty(0, max(setting.width for setting in self.probes.settings), device=model.device), labels
        pixels = torch.stack([image.pixels for image in readable if image.pixels is not None])
        features = self.model.features(pixels.to(model.device, model.dtype)).float()
        self.finite &= features.isfinite().all()
        return features, labels

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Returns {"top1": share in 0..1, "top5": ...} of each classifier. The processes share the test images."""
        pieces = self.bank.pieces(PIECE)
        mine = range(len(pieces))[self.process.process_index :: self.process.num_processes]
        found = [(number, self.probes.rank(pieces[number])) for number in mine]
        rankings = torch.cat([ranking for _, ranking in sorted(gather_object(found), key=lambda each: each[0])], dim=1)
        return {
            setting.name: score_top_k(ranking, self.labels, self.num_classes)
            for setting, ranking in zip(self.probes.settings, rankings, strict=True)
        }

    def list_states(self) -> list[Path]:
        """Returns the folders of states, oldest first: two, of which one is whole while the other is written."""
        return sorted(self.options.output.glob("state-*[0-9]"))

    def resume(self) -> None:
        """Continues from the newest state in the output folder that is as it was written, if there is one.

        Raises:
            ProbeError: the state is that of a probe with other options, another model or other data.
        """
        folder = find_last_whole(self.list_states())
        if folder is None:
            return
        state = torch.load(folder / STATE, map_location=self.model.model.device, weights_only=True)
        changed = [name for name, value in self.key.items() if state["key"].get(name) != value]
        if changed:
            raise ProbeError(
                f"{self.options.output} holds a probe with other {', '.join(changed)}. Repeat that "
                "command, or name another --output."
            )
        self.history = state["history"]
        self.probes.load_state(state["probes"])

    def save(self) -> None:
        """Writes the state, from which the same command continues.

        Raises:
            OutputError: it cannot be written; the one before it stays.
        """
        if self.on_main:
            write_or_explain(self.write_state, self.options.output)
        self.process.wait_for_everyone()

    def write_state(self) -> None:
        with replace_folder(self.options.output / f"state-{len(self.history):06d}") as folder:
            save_tensors({"key": self.key, "history": self.history, "probes": self.probes.state()}, folder / STATE)
        for old in self.list_states()[:-2]:
            remove_folder(old)

    def summarise(self) -> dict[str, Any]:
        """Returns the result: for each classifier the scores of its best and last epoch, and the best classifier."""
        classifiers = {}
        for setting in self.probes.settings:
            epochs = [scores[setting.name] for scores in self.history]
            best = max(range(len(epochs)), key=lambda epoch: epochs[epoch]["top1"])
            classifiers[setting.name] = {
                "best": epochs[best] | {"epoch": best + 1},
                "last": epochs[-1] | {"epoch": len(epochs)},
            }
        about = {name: getattr(self.options, name) for name in (*NAMED_DATA, *IN_RECIPES)}
        about |= {name: value for name, value in choose_columns(self.options).items() if value is not None}
        counts = {"test_images": len(self.labels), "classes": self.num_classes}
        chance = {"chance": find_probe_chance(self.source, self.labels, self.num_classes)}
        unknown = {"unknown_class_images": int((self.labels == NO_CLASS).sum())}
        winner = max(classifiers, key=lambda name: classifiers[name]["best"]["top1"])
        return about | counts | unknown | chance | {"best": winner, "classifiers": classifiers, "history": self.history}
