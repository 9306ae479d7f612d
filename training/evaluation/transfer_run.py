# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluates one model on the data sets of a transfer table, and continues a stopped evaluation."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from modeling_esvit.embed.progress import show_progress
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding_arguments import read_decoding_arguments
from modeling_esvit.images.wording import show_number
from training.evaluation.result_files import write_result_file
from training.evaluation.scores import NO_CLASS, align_labels
from training.evaluation.transfer_metrics import MULTI_LABEL, score
from training.evaluation.transfer_results import (
    Outcome,
    describe_failure,
    describe_set,
    find_differences,
    read_result,
    summarise,
)
from training.evaluation.transfer_search import COARSE, SPANS, Standardisation, choose_l2, fit, split_for_tuning
from training.evaluation.transfer_sets import OpenSplit, TransferSet, open_split, unify_labels
from training.features.bank import FeatureBank, make_bank, name_settings
from training.features.model_arguments import load_named_model


FITS = len(COARSE) + 2 * len(SPANS) + 1  # the most that a data set needs
OpenSplits = dict[str, tuple[OpenSplit, FeatureBank]]  # "train", "test" and maybe "validation"


class Transfer:
    """Evaluates one model. All processes compute the features, then the main one fits the classifiers.

    Args:
        output: receives the result of each data set as soon as it is there. Results that it already holds are reused if
            they come from the same features and settings.
    """

    def __init__(self, options: argparse.Namespace, output: Path) -> None:
        self.options, self.output = options, output
        self.earlier = read_result(output)["datasets"] if output.exists() else {}
        self.model = load_named_model(options, options.n_last_blocks)
        device = self.model.model.device
        self.device = device if device.type == "cuda" else torch.device("cpu")  # some devices lack float64
        self.found: dict[str, OpenSplits | Outcome] = {}

    def make_features(self, sets: Sequence[TransferSet]) -> None:
        self.found = {each.name: self.open_features(each) for each in sets}

    def fit_all(self, sets: Sequence[TransferSet]) -> dict[str, Outcome]:
        results: dict[str, Outcome] = {}
        earlier = {each.name: self.earlier[each.name] for each in sets if self.is_measured(each)}
        with show_progress(f"transfer of {self.model.name}", FITS * len(sets), "fit") as bar:
            for number, each in enumerate(sets):
                bar.set_postfix_str(each.name)
                found = self.found[each.name]
                results[each.name] = found if "status" in found else self.measure(each, found, bar)
                bar.n = FITS * (number + 1)
                bar.refresh()
                self.output.parent.mkdir(parents=True, exist_ok=True)
                kept = summarise(self.options, earlier | results)
                write_result_file(self.output, kept)
        return results

    def open_features(self, each: TransferSet) -> OpenSplits | Outcome:
        """Opens the splits with their features. If that fails, returns the outcome that gives the reason.

        All processes return a failure if one of them fails to open the data.
        """
        splits, failure = {}, None
        try:
            how = (self.options.streaming, read_decoding_arguments(self.options))
            splits = {name: open_split(each, data, *how) for name, data in each.splits.items()}
        except (EsViTError, OSError) as error:
            failure = describe_failure(each, error)
        failures = [found for found in gather_object([failure]) if found is not None]
        if failures:
            return failures[0]
        reading = {name: getattr(self.options, name) for name in ("batch_size", "part_size")}
        reading["num_threads"] = self.options.workers
        try:
            return {
                name: (
                    split,
                    make_bank(self.model, f"{each.name}-{name}", split.source, self.options.features, **reading),
                )
                for name, split in splits.items()
            }
        except (EsViTError, OSError) as error:
            return describe_failure(each, error)

    def compute_key(self, each: TransferSet) -> str:
        """Returns a checksum of the features of a data set and the settings."""
        folders = [bank.parts.folder.name for _, bank in self.found[each.name].values()]
        return name_settings([asdict(each), self.options.seed, *folders])

    def is_measured(self, each: TransferSet) -> bool:
        """Returns whether `output` already holds a result of the same features and settings."""
        return "status" not in self.found[each.name] and self.earlier.get(each.name, {}).get("key") == self.compute_key(
            each
        )

    def measure(self, each: TransferSet, splits: OpenSplits, bar: tqdm) -> Outcome:
        if self.is_measured(each):
            return self.earlier[each.name]
        try:
            return {"key": self.compute_key(each), **describe_set(each), **self.classify(each, splits, bar)}
        except (EsViTError, OSError) as error:
            return describe_failure(each, error)

    def classify(self, each: TransferSet, splits: OpenSplits, bar: tqdm) -> Outcome:
        names = [name for name in ("train", "validation", "test") if name in splits]
        labels = dict(zip(names, unify_labels([splits[name] for name in names]), strict=True))
        targets = torch.cat([labels[name] for name in names[:-1]])
        features = torch.cat([splits[name][1].features() for name in names[:-1]])
        wanted = labels["test"]
        if each.metric == MULTI_LABEL:
            classes = targets.shape[1]
        else:
            targets, wanted, classes = align_labels(targets, wanted, None, None)
        held = len(labels.get("validation", ()))
        tuning = split_for_tuning(targets, held, per_class=each.tune_per_class, seed=self.options.seed)
        standardised = Standardisation.from_features(features)
        features, targets = standardised(features).to(self.device), targets.to(self.device)
        l2, scores = choose_l2(each.metric, features, targets, classes, tuning, bar.update)
        [linear] = fit(each.metric, features, targets, classes, [l2])
        found = score(each.metric, linear.score(standardised(splits["test"][1].features())), wanted)
        unknown = int((wanted == NO_CLASS).sum()) if wanted.ndim == 1 else 0
        counts = {"train_images": len(targets), "test_images": len(wanted), "classes": classes}
        outcome = {"score": found, "l2": l2, **counts, "unknown_class_images": unknown}
        held_out = {f"{value:g}": result for value, result in scores.items()}
        return outcome | {"notes": [*find_differences(each, outcome), *list_left_out(splits)], "held_out": held_out}


def list_left_out(splits: OpenSplits) -> list[str]:
    """Returns a sentence for each split of which something was not read."""
    found = []
    for name, (split, bank) in splits.items():
        count = len(bank.collect_unreadable(len(split.source)).skipped)
        kinds = [split.source.left_out.describe(), show_number(count, "unreadable images") if count else ""]
        found += [f"not read in {name}: {kind}" for kind in kinds if kind]
    return found
