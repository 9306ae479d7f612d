# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Adapts a public backbone to other images, and measures what that is worth, beside the backbone as it comes.

    pip install -e ".[training,examples,demo]"
    python examples/adapt.py adapted
    python examples/adapt.py adapted-dinov2 --backbone facebook/dinov2-small --arms location
    python examples/adapt.py adapted --arms location --own_statistics

The program takes EfficientNet-Lite0 with ImageNet weights (`real_backbone.py`), or another backbone, and patches of the
bundled photographs (`photographs.py`). It adapts by the recipe `adapt`, in small, with the view task and with view +
region by feature and by location, and measures each model by k-NN, a linear classifier and the measures of
`training/correspondence.py`; with `--own_statistics` also with the BatchNorms' statistics of the training patches
(`own_statistics.py`). All is written below the given folder, and finished parts are reused. adapt.md reports
results. Further options go to pretrain.py, for example `--freeze_backbone_epochs 0`; give another folder then.

Declared before the runs: adaptation is shown to help if no measure falls below that of the backbone as it comes by more
than the standard deviation over the seeds, and one rises by more than that, with every seed.
"""

import json
from pathlib import Path
from statistics import mean, stdev

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import torch
from transformers.utils import logging as transformers_logging

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package("pip install -e '.[training,examples,demo]'"):
    import datasets

from examples.compare_tasks import ONE_SEED, format_spread, measure
from examples.demo import keep_settings, pretrain
from examples.own_statistics import OwnStatisticsError, write_own_statistics
from examples.photographs import write_photographs
from examples.real_backbone import write_backbone
from modeling_esvit.backbone_probe import build_on_meta, describe_backbone
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.atomic import write_text
from modeling_esvit.storage.paths import parse_name, parse_path
from training.data.sources import open_source
from training.evaluation.results import format_table
from training.evaluation.stored_features import FitOptions
from training.learning.networks import build_config
from training.learning.running_statistics import list_batch_norms
from training.options.command import parse_seed, run_command
from training.options.pretrain_options import parse_options


BEFORE = "as it comes"
OWN = "own statistics"  # of the BatchNorms
ARMS = {  # the options of each run
    "view": ["--task", "view", "--region_matching", "feature"],
    "feature": ["--region_matching", "feature"],
    "location": [],
}
SMALL = (
    "--global_crop_size 96 --local_crops_numbers 0 --num_prototypes 128 --head_hidden_size 256 "
    "--head_bottleneck_size 64 --batch_size 16 --gradient_accumulation_steps 1 --epochs 3 --warmup_epochs 1 "
    "--lr 0.016 --momentum_teacher 0.97 --tracker none"
).split()
SIDE = 224  # pixels of the views that are measured
LINEAR = FitOptions(solver="ridge", l2=[1e-3, 1e-2, 1e-1, 1.0, 10.0], held_out=0.2, shots=None, seeds=[0])
MEASURES = {
    "k-NN": ("knn", "k20_top1"),
    "linear": ("linear", "top1"),
    "mirrored": ("mirrored", "accuracy"),
    "crops": ("crops", "exact"),
    "crops, within one": ("crops", "within_one"),
    "recoloured": ("recoloured", "exact"),
    "recoloured, within one": ("recoloured", "within_one"),
}
Results = dict[str, dict[str, list[float]]]  # kind of model -> measure -> the value of each seed


def read_values(scores: list[dict]) -> dict[str, list[float]]:
    """Reads the measures of the table from the scores of each seed."""
    return {title: [each[part][name] for each in scores] for title, (part, name) in MEASURES.items()}


def make_table(results: Results) -> str:
    rows = [[name, *(format_spread(values[title]) for title in MEASURES)] for name, values in results.items()]
    return "\n".join(format_table(["%", *MEASURES], rows))


def judge(results: Results) -> list[str]:
    """Returns a line for each kind of adapted model: what it loses and gains by more than the spread."""
    before, lines = results[BEFORE], []
    for name, values in results.items():
        if name == BEFORE:
            continue
        if len(values["k-NN"]) == 1 and not name.startswith(BEFORE):  # which has no seed
            lines.append(f"* {name}: {ONE_SEED}")
            continue
        gains = {title: [value - before[title][0] for value in values[title]] for title in MEASURES}
        spreads = {title: stdev(found) if len(found) > 1 else 0.0 for title, found in gains.items()}
        lost = [title for title, found in gains.items() if mean(found) < -spreads[title]]
        gained = [title for title, found in gains.items() if min(found) > 0 and mean(found) > spreads[title]]
        verdict = "helps" if gained and not lost else "not shown to help"
        lines.append(f"* {name}: {verdict}; gains: {', '.join(gained) or 'none'}; losses: {', '.join(lost) or 'none'}")
    return lines


def require_batch_norms(backbone: str, options: list[str]) -> None:
    """Checks, before anything is trained, that there are statistics to replace.

    Raises:
        OwnStatisticsError: The backbone has no BatchNorms.
    """
    config = build_config(parse_options(["--recipe", "adapt", "--backbone", backbone, *SMALL, *options]))
    if not list_batch_norms(build_on_meta(describe_backbone(config.backbone_config))):
        raise OwnStatisticsError(f"{backbone} has no BatchNorms, and so no statistics: leave out --own_statistics.")


def replace_statistics(folder: Path, data: Path) -> Path:
    """Makes the model with the statistics of the training patches beside `folder`, and returns its folder."""
    own = folder.with_name(f"{folder.name}-own")
    if not own.exists():
        write_own_statistics(str(folder), open_source(str(data), split="train"), own)
    return own


def adapt(
    output: Path, backbone: str, arms: list[str], seeds: list[int], options: list[str], own_statistics: bool = False
) -> Results:
    """Returns the values of the backbone as it comes, and of each kind of adapted model with each seed.

    With `own_statistics`, each kind has a second row: see `replace_statistics`.
    """
    data, results = output / "data", Results()
    for arm in arms:
        given = ["--backbone", backbone, *SMALL, *ARMS[arm], *options]
        runs = [pretrain(data, output / f"{arm}-seed{seed}", seed, "adapt", given) for seed in seeds]
        begun = {} if results else {BEFORE: ([runs[0]], "untrained")}  # all begin with the same backbone
        for kind, (folders, network) in (begun | {arm: (runs, "teacher")}).items():
            models = [folder / network for folder in folders]
            results[kind] = read_values([measure(model, data, SIDE, LINEAR) for model in models])
            if own_statistics:
                own = [replace_statistics(model, data) for model in models]
                results[f"{kind}, {OWN}"] = read_values([measure(model, data, SIDE, LINEAR) for model in own])
    return results


def main(arguments: list[str] | None = None) -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("output", type=parse_path, help="the folder for data, backbone, runs and table")
    parser.add_argument("--backbone", type=parse_name, help="as for pretrain.py (default: EfficientNet-Lite0)")
    parser.add_argument(
        "--arms", nargs="+", default=list(ARMS), choices=list(ARMS), help="ways to adapt (default: all)"
    )
    parser.add_argument("--seeds", nargs="+", type=parse_seed, default=[0, 1, 2], help="seeds of the runs")
    parser.add_argument(
        "--per_photograph",
        nargs=2,
        type=int,
        default=[27, 12],
        metavar=("TRAIN", "TEST"),
        help="training and test patches of each photograph",
    )
    parser.add_argument(
        "--own_statistics", action="store_true", help="also measure with the BatchNorms' statistics of the patches"
    )
    given, options = parser.parse_known_args(arguments)
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    train, test = given.per_photograph
    keep_settings(given.output, options, backbone=given.backbone, per_photograph=given.per_photograph)
    if not (given.output / "data").exists():
        sizes = {"train_per_photograph": train, "test_per_photograph": test}
        write_photographs(given.output / "data", patch_size=144, shards=2, **sizes)
    own = given.output / "lite0"
    if given.backbone is None and not own.exists():
        write_backbone(own, "timm")
    backbone = given.backbone or f"timm:local-dir:{own.resolve()}"
    if given.own_statistics:
        require_batch_norms(backbone, options)
    seeds = [*dict.fromkeys(given.seeds)]
    results = adapt(given.output, backbone, given.arms, seeds, options, given.own_statistics)
    text = "\n".join([make_table(results), "", *judge(results)])
    write_text(given.output / "results.md", f"{text}\n")
    write_text(given.output / "results.json", json.dumps(results, indent=2) + "\n")
    print(text)


if __name__ == "__main__":
    torch.manual_seed(0)
    run_command(main)
