# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""How well do the features of a model serve other data sets? The transfer table of the paper: 18 data sets, a linear
classifier on frozen features each, the average of their metrics, and the number of wins against a second model.

    python training/transfer.py MODEL --output results/mine.json
    python training/transfer.py MODEL --output results/mine.json --datasets cifar10 dtd voc2007
    python training/transfer.py MODEL --output results/mine.json --against timm:swin_tiny_patch4_window7_224.ms_in1k
    python training/transfer.py MODEL --output results/mine.json --against results/other.json
    python training/transfer.py MODEL --output results/own.json --data birds=my/birds --data signs=my/signs:train:val
    python training/transfer.py MODEL --output results/own.json --table my_data_sets.yaml

MODEL is as for `knn.py`. The data sets are those of `transfer_datasets.yaml`, or of a table of one's own of the same
form (validation splits, columns, several classes an image), or `NAME=DATA[:TRAIN[:TEST]]`, where DATA is as for
`knn.py` and the splits are "train" and "test" unless named.

The penalty of each classifier is chosen automatically (see `transfer_search.py`), on the validation split or a fifth of
the training images; then it is trained on both together. Features stay beside the result (`--features`), results of
single data sets in it: the same command continues a stopped one. Several processes (`torchrun`, `accelerate launch`)
share the images.

A data set that is missing, gated or cannot be used stands in the result with the reason; the exit code is then 3
(1 under `torchrun` and `accelerate launch`, which have no other).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from modeling_esvit.images.devices import open_device
from modeling_esvit.storage.atomic import write_text
from training.evaluation.command import (
    COMMON_ERRORS,
    NO_CLASS,
    CardFigure,
    add_feature_arguments,
    add_model_arguments,
    align_labels,
    card_figures,
    checked,
    checked_output,
    run_command,
    write_result,
)
from training.evaluation.linear_fit import HeldOutError
from training.evaluation.scores import METRICS, MULTI_LABEL, MetricError, score
from training.evaluation.transfer_search import COARSE, SPANS, Standardisation, choose_l2, fit, tuning_parts
from training.evaluation.transfer_sets import (
    TABLE,
    Part,
    TransferSet,
    TransferTableError,
    common_labels,
    open_part,
    read_table,
    why_unavailable,
)
from training.features.bank import PART_SIZE, FeatureBank, checksum, make_bank
from training.features.frozen_models import load_frozen
from training.figures.transfer import draw


INCOMPLETE = 3  # exit code: not all data sets were measured
MEASURED = "measured"
FITS = len(COARSE) + 2 * len(SPANS) + 1  # of one data set, at most

DATA_ERRORS = (*COMMON_ERRORS, HeldOutError, MetricError)
USER_ERRORS = (*DATA_ERRORS, TransferTableError)

Parts = dict[str, tuple[Part, FeatureBank]]  # "train", "test" and maybe "validation"
Outcome = dict[str, Any]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    add_feature_arguments(parser)
    parser.add_argument(
        "--table", type=Path, default=TABLE, help="YAML file of data sets (default: those of the paper)"
    )
    parser.add_argument("--datasets", nargs="+", help="names in the table (default: all, or none if there is --data)")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DATA[:TRAIN[:TEST]]", help="one more")
    parser.add_argument("--metric", choices=METRICS, default="accuracy", help="of each --data (default: %(default)s)")
    parser.add_argument("--against", metavar="MODEL|JSON", help="a second model, or the result of one")
    parser.add_argument("--features", type=Path, metavar="FOLDER", help="where they stay (default: beside the result)")
    parser.add_argument("--part_size", type=int, default=PART_SIZE, help="images between two saves (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what is held out (default: %(default)s)")
    arguments = checked_output(parser, checked(parser))
    if arguments.output is None:
        parser.error("--output is needed: a JSON file for the result")
    arguments.features = arguments.features or arguments.output.parent / "features"
    return arguments


def chosen_sets(options: argparse.Namespace) -> list[TransferSet]:
    """Raises:
    TransferTableError: the table, or a name, cannot be.
    """
    own = [own_set(given, options.metric) for given in options.data]
    table = read_table(options.table)
    names = options.datasets or ([] if own else list(table))
    unknown = [name for name in names if name not in table]
    if unknown:
        raise TransferTableError(f"--datasets {' '.join(unknown)}: the table has {', '.join(table)}.")
    chosen = [table[name] for name in dict.fromkeys(names)] + own
    if len({each.name for each in chosen}) < len(chosen):
        raise TransferTableError("two data sets have the same name: give --data another one.")
    return chosen


def own_set(given: str, metric: str) -> TransferSet:
    """Of NAME=DATA[:TRAIN[:TEST]].

    Raises:
        TransferTableError: it is not of that form.
    """
    name, equals, data = given.partition("=")
    if not (name and equals and data):
        raise TransferTableError(f"--data {given!r}: write NAME=DATA, such as birds=my/birds.")
    head, splits = data, list[str]()
    while ":" in head and len(splits) < 2 and not Path(head).exists() and "/" not in head.rpartition(":")[2]:
        head, _, split = head.rpartition(":")
        splits.insert(0, split)
    train, test = [*splits, *("train", "test")[len(splits) :]]
    return TransferSet(name, f"{head}:{train}", f"{head}:{test}", metric=metric)


class Transfer:
    """The evaluation of one model: all processes make the features, then the main one fits the classifiers.

    output: has the results of data sets as they come. Those that it has already are not made again if they are of the
    same features and settings.
    """

    def __init__(self, options: argparse.Namespace, output: Path) -> None:
        self.options, self.output = options, output
        self.earlier = read_result(output)["datasets"] if output.exists() else {}
        self.model = load_frozen(
            options.model,
            n_last_blocks=options.n_last_blocks,
            device=options.device or PartialState().device,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
        )
        device = self.model.model.device
        self.device = device if device.type == "cuda" else torch.device("cpu")  # float64, which not every device has
        self.found: dict[str, Parts | Outcome] = {}

    def make_features(self, sets: Sequence[TransferSet]) -> None:
        self.found = {each.name: self.features(each) for each in sets}

    def fit_all(self, sets: Sequence[TransferSet]) -> dict[str, Outcome]:
        results: dict[str, Outcome] = {}
        earlier = {each.name: self.earlier[each.name] for each in sets if self.is_measured(each)}
        with tqdm(desc=f"transfer of {self.model.name}", total=FITS * len(sets), unit="fit", dynamic_ncols=True) as bar:
            for number, each in enumerate(sets):
                bar.set_postfix_str(each.name)
                found = self.found[each.name]
                results[each.name] = found if "status" in found else self.measure(each, found, bar)
                bar.n = FITS * (number + 1)
                bar.refresh()
                self.output.parent.mkdir(parents=True, exist_ok=True)
                kept = summary(self.options, earlier | results)
                write_text(self.output, json.dumps(kept, indent=2))
        return results

    def features(self, each: TransferSet) -> Parts | Outcome:
        """The parts with their features; or, if they cannot be had, the outcome that says why. For all processes."""
        parts, failure = {}, None
        try:
            parts = {name: open_part(each, data, self.options.streaming) for name, data in each.parts.items()}
        except DATA_ERRORS as error:
            failure = unavailable(each, error)
        failures = [found for found in gather_object([failure]) if found is not None]
        if failures:
            return failures[0]
        reading = {name: getattr(self.options, name) for name in ("batch_size", "part_size")}
        reading["num_threads"] = self.options.workers
        try:
            return {
                name: (
                    part,
                    make_bank(self.model, f"{each.name}-{name}", part.source, self.options.features, **reading),
                )
                for name, part in parts.items()
            }
        except DATA_ERRORS as error:
            return unavailable(each, error)

    def key(self, each: TransferSet) -> str:
        """Of the features of its parts and the settings."""
        folders = [bank.parts.folder.name for _, bank in self.found[each.name].values()]
        return checksum([asdict(each), self.options.seed, *folders])

    def is_measured(self, each: TransferSet) -> bool:
        """Whether `output` has the result of these features and settings, not of another model's, say."""
        return "status" not in self.found[each.name] and self.earlier.get(each.name, {}).get("key") == self.key(each)

    def measure(self, each: TransferSet, parts: Parts, bar: tqdm) -> Outcome:
        if self.is_measured(each):
            return self.earlier[each.name]
        try:
            return {"key": self.key(each), **described(each), **self.classify(each, parts, bar)}
        except DATA_ERRORS as error:
            return unavailable(each, error)

    def classify(self, each: TransferSet, parts: Parts, bar: tqdm) -> Outcome:
        names = [name for name in ("train", "validation", "test") if name in parts]
        labels = dict(zip(names, common_labels([parts[name] for name in names]), strict=True))
        targets = torch.cat([labels[name] for name in names[:-1]])
        features = torch.cat([parts[name][1].features() for name in names[:-1]])
        wanted = labels["test"]
        if each.metric == MULTI_LABEL:
            classes = targets.shape[1]
        else:
            targets, wanted, classes = align_labels(targets, wanted, None, None)
        held = len(labels.get("validation", ()))
        tuning = tuning_parts(targets, held, per_class=each.tune_per_class, seed=self.options.seed)
        standardised = Standardisation.of(features)
        features, targets = standardised(features).to(self.device), targets.to(self.device)
        l2, scores = choose_l2(each.metric, features, targets, classes, tuning, bar.update)
        [linear] = fit(each.metric, features, targets, classes, [l2])
        found = score(each.metric, linear.scores(standardised(parts["test"][1].features())), wanted)
        unknown = int((wanted == NO_CLASS).sum()) if wanted.ndim == 1 else 0
        counts = {"train_images": len(targets), "test_images": len(wanted), "classes": classes}
        outcome = {"score": found, "l2": l2, **counts, "unknown_class_images": unknown}
        held_out = {f"{value:g}": result for value, result in scores.items()}
        return outcome | {"notes": differences(each, outcome), "held_out": held_out}


def described(each: TransferSet) -> Outcome:
    return {"status": MEASURED, "metric": each.metric, **each.parts}


def unavailable(each: TransferSet, error: Exception) -> Outcome:
    reason = " ".join(str(error).split()).replace("|", "/")  # it stands in a table
    return described(each) | {"status": why_unavailable(error), "reason": reason}


def differences(each: TransferSet, found: Outcome) -> list[str]:
    """What of the data is not as the table says, and test images that no answer can be right for."""
    sizes = each.sizes or (found["train_images"], found["test_images"])
    stated = {"training images": sizes[0], "test images": sizes[1], "classes": each.classes or found["classes"]}
    counts = dict(zip(stated, (found["train_images"], found["test_images"], found["classes"]), strict=True))
    notes = [f"{counts[name]:,} {name}, not {stated[name]:,}" for name in stated if counts[name] != stated[name]]
    unknown = found["unknown_class_images"]
    return notes + ([f"{unknown:,} test images of no training class, which count as wrong"] if unknown else [])


# -- the result --------------------------------------------------------------------------------------------------------


def measured(results: dict[str, Outcome]) -> dict[str, float]:
    return {name: result["score"] for name, result in results.items() if result["status"] == MEASURED}


def summary(options: argparse.Namespace, results: dict[str, Outcome]) -> dict[str, Any]:
    scores = measured(results)
    return {
        "model": options.model,
        "data": f"{len(scores)} of {len(results)} data sets",
        "n_last_blocks": options.n_last_blocks,
        "average": mean(scores.values()) if scores else None,
        "measured": len(scores),
        "asked_for": len(results),
        "datasets": results,
    }


def comparison(results: dict[str, Outcome], name: str, others: dict[str, Outcome]) -> dict[str, Any]:
    """Over the data sets that both were measured on, in the same metric; what another metric measured is left out."""
    others = {each: found for each, found in others.items() if found["metric"] == results.get(each, found)["metric"]}
    ours, theirs = measured(results), measured(others)
    both = [each for each in ours if each in theirs]
    return {
        "model": name,
        "compared": len(both),
        "wins": sum(ours[each] > theirs[each] for each in both),
        "ties": sum(ours[each] == theirs[each] for each in both),
        "average": mean(theirs[each] for each in both) if both else None,
        "average_of_model": mean(ours[each] for each in both) if both else None,
        "datasets": others,
    }


def figures(result: dict[str, Any]) -> list[CardFigure]:
    """The score of each data set, for a model card."""
    outcomes = {name: found for name, found in result["datasets"].items() if found["status"] == MEASURED}
    return [
        figure
        for name, found in outcomes.items()
        for figure in card_figures(
            {f"transfer to {name} ({found['metric']})": found["score"]}, found["test"], found["metric"]
        )
    ]


def read_result(path: Path) -> dict[str, Any]:
    """Raises:
    TransferTableError: the file is not what this command writes.
    """
    try:
        result = json.loads(path.read_text())
        measured(result["datasets"])
        return {"model": result["model"], "datasets": result["datasets"]}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise TransferTableError(f"{path} is not a result of transfer.py ({error!r}).") from error


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def table(result: dict[str, Any]) -> str:
    """In Markdown. Scores are in percent, in bold where the model wins."""
    other = result.get("against")
    theirs = measured(other["datasets"]) if other else {}
    header = ["data set", "metric", "score", *(["against"] if other else []), "l2", "train", "test", "notes"]
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    for name, found in result["datasets"].items():
        rival = theirs.get(name)
        if found["status"] != MEASURED:
            cells = [name, found["metric"], found["status"], *([percent(rival)] if other else []), "", "", ""]
            lines.append(f"| {' | '.join(cells)} | {found['reason']} |")
            continue
        bold = "**" if rival is not None and found["score"] > rival else ""
        counts = [f"{found['l2']:.1e}", f"{found['train_images']:,}", f"{found['test_images']:,}"]
        cells = [name, found["metric"], f"{bold}{percent(found['score'])}{bold}", *([percent(rival)] if other else [])]
        lines.append(f"| {' | '.join([*cells, *counts, '; '.join(found['notes'])])} |")
    return "\n".join([*lines, "", *conclusions(result)])


def conclusions(result: dict[str, Any]) -> list[str]:
    lines = [f"Average of {result['data']}: {percent(result['average']) or 'none'}."]
    other = result.get("against")
    if other:
        averages = (
            f"{percent(other['average_of_model'])} and {percent(other['average'])}" if other["compared"] else "none"
        )
        lines.append(
            f"Against {other['model']}: {other['wins']} wins and {other['ties']} ties in {other['compared']} data "
            f"sets; averages over these: {averages}."
        )
    return lines


# -- the command -------------------------------------------------------------------------------------------------------


def second_model(options: argparse.Namespace) -> argparse.Namespace:
    """The options with the model of `--against`."""
    return argparse.Namespace(**vars(options) | {"model": options.against, "revision": None})


def transfer_command() -> None:
    options = parse_arguments()
    state = open_device(options.device)
    sets = chosen_sets(options)
    against, rivals = options.against, dict[str, Outcome]()
    transfers = [Transfer(options, options.output)]
    if against and Path(against).suffix == ".json":
        against, rivals = read_result(Path(against)).values()
    elif against:
        transfers.append(Transfer(second_model(options), options.output.with_suffix(".against.json")))
    for transfer in transfers:
        transfer.make_features(sets)
    if not state.is_main_process:
        return
    results, *others = [transfer.fit_all(sets) for transfer in transfers]
    result = summary(options, results)
    if against:
        result["against"] = comparison(results, against, *(others or [rivals]))
    write_result(result, f"Transfer of {options.model}", table(result), options.output, figures(result), draw)
    state.destroy_process_group()
    if result["measured"] < result["asked_for"]:
        sys.exit(INCOMPLETE)


if __name__ == "__main__":
    run_command(transfer_command, USER_ERRORS)
