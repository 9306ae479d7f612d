# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says in a card how a model came about, as far as a record tells it: a run's, or that of its weights.

Of a model without a record, a card says once that there is none, and nothing that only a record could tell.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from modeling_esvit.images.wording import show_number
from training.options.provenance import Provenance
from training.options.public_options import NAMED_MODELS, UNKNOWN
from training.publishing.folder import OPTIONS
from training.publishing.source import Source
from training.state.provenance_record import describe_start
from training.views.draw import POLICIES, Policy


# Options that a reader of the card wants to see, in this order.
RECIPE = (
    *("task", "region_matching", "data", "split", "epochs", "max_steps", "batch_size"),
    *("gradient_accumulation_steps", "lr", "min_lr"),
    *("warmup_epochs", "weight_decay", "weight_decay_end", "momentum_teacher", "clip_grad", "freeze_last_layer"),
    *("freeze_backbone_epochs", "freeze_batch_norm", "layer_decay"),
    *("student_temp", "warmup_teacher_temp", "teacher_temp", "warmup_teacher_temp_epochs", "num_prototypes"),
    *("norm_last_layer", "augmentation", "mixup", "cutmix", "global_crop_size", "global_crops_scale"),
    *("local_crop_sizes", "local_crops_numbers", "local_crops_scale", "drop_path_rate", "mixed_precision", "seed"),
    *("backbone", "backbone_weights", "init_from"),
)
TASKS = {"view": "the view task", "view+region": "the view and the region task"}
WITHOUT_RECORD = "An image backbone, which computes a feature of an image and one of each of its regions."
NO_RECORD = "Where the weights came from, and how and on which images they were trained, is not recorded."
UNKNOWN_TRAINING = "How the weights were trained is not recorded."
MATCHES = ("accuracy", "chance", "distinct")
PUBLISHED = "crops, flips, colour jitter and greyscale"  # how views differ in the method as it was published


class History(NamedTuple):
    """Holds what a card says of how a model came about.

    Attributes:
        summary: The first sentences of the card.
        training: The first paragraph on its training.
        by_esvit: Whether EsViT trained it, so that the card explains and cites it.
        is_teacher: Whether it is the teacher.
        images: What it learnt from, as the end of a sentence; None if that stands elsewhere or is not recorded.
        views: How the views of an image differed, in words; None if that is not recorded.
        recoloured: Whether they differed in colour, too.
    """

    summary: str
    training: str
    by_esvit: bool = False
    is_teacher: bool = False
    images: str | None = None
    views: str | None = None
    recoloured: bool = False


def describe_history(source: Source, base_model: str | None) -> History:
    """Returns what is recorded of a model; `base_model` is the one that the publisher names, if any."""
    named = f" The publisher names `{base_model}` as the model that it was trained from." if base_model else ""
    weights = source.weights
    if weights is None:
        return History(WITHOUT_RECORD, NO_RECORD + named)
    if source.options:
        return describe_run(source, named)
    training = f"The weights were trained {weights.training}." if weights.training else UNKNOWN_TRAINING
    license = f"Their licence is {weights.license}, as stated there." if weights.license else None
    return History(
        f"An image backbone with the weights of {weights.source}.",
        " ".join(filter(None, [training, weights.changes, license])) + named,
        weights.by_esvit,
        weights.is_teacher,
    )


def describe_run(source: Source, named: str) -> History:
    """Says what a run's folder tells of its teacher."""
    options, start = source.public_options(), source.find_start()
    first, recolouring = describe_start(start), list_recolouring(POLICIES[options["augmentation"]])
    trained = "pretrained" if start is None else "trained further"
    return History(
        f"An image backbone, {trained} without labels on {options['data']}, by {TASKS[options['task']]} of EsViT.",
        f"The run started from {first}.{named} {describe_steps(source)}The main options, of which `{OPTIONS}` has all:",
        by_esvit=True,
        is_teacher=True,
        images=options["data"]
        if start is None
        else f"{options['data']}, and from what its first weights had learnt from",
        views=describe_list(["crops", "flips", *recolouring]),
        recoloured=bool(recolouring),
    )


def describe_steps(source: Source) -> str:
    """Says how long a run was; nothing if its checkpoints, which tell it, are gone."""
    if source.step is None:
        return ""
    where = f", in {source.processes} processes" if source.processes != 1 else ""
    steps = show_number(source.step, "steps")
    return f"It took {steps} of {source.images_per_step} images{where}. {describe_matches(source)}"


def describe_matches(source: Source) -> str:
    """Says how many regions found their own place while training; nothing if that was not measured."""
    named = [[record.get(f"region_match_{name}") for name in MATCHES] for record in source.records]
    measured = [values for values in named if None not in values]
    if not measured:
        return ""
    right, chance, distinct = measured[-1]
    return (
        f"At the end, the most similar region of another view was at the same place for {right:.1%} of the regions "
        f"(chance {chance:.1%}), and {distinct:.0%} of the regions were chosen. "
    )


def list_recolouring(policy: Policy) -> list[str]:
    """Returns what changes the colours of some views; basic augmentation does nothing."""
    names = {"jitter": "colour jitter", "grayscale": "greyscale", "rand_augment": "RandAugment"}
    return [name for field, name in names.items() if any(getattr(view, field) for view in policy)]


def describe_list(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def make_run_again(options: Mapping[str, Any], provenances: Mapping[str, Provenance]) -> str:
    """Returns the command that trains by the published recipe; capitals stand for what only the publisher has."""
    own = [name for name in sorted(NAMED_MODELS) if options.get(name) and provenances.get(name, UNKNOWN).name is None]
    words = [f"--recipe {OPTIONS}", "--data DATA", *(f"--{name} {name.upper()}" for name in own), "--output runs/again"]
    return f"python training/pretrain.py {' '.join(words)}"


def select_recipe(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that say how a model came about, without those that are off."""
    off = {name for name in RECIPE if options.get(name) in (None, 0, 0.0, "", [])}
    off |= {"region_matching"} if options.get("task") == "view" else set()
    return {name: options[name] for name in RECIPE if name not in off}
