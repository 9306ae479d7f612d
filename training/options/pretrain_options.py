# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Holds the options of a pretraining run, and reads them from the command line, a YAML recipe or Python.

A recipe is a YAML file of the options' names. The command line, or what Python gives, goes on top of it.
"""

import difflib
import itertools
import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

from modeling_esvit.images.decoding import DecodingOptions
from modeling_esvit.programs.parser import HelpOfOneScreen, check_name
from modeling_esvit.storage.atomic import rewrite_recorded
from modeling_esvit.storage.paths import describe_url, is_same_place
from modeling_esvit.storage.url_secrets import hide_secrets
from training.options.errors import OptionError
from training.options.recipes import load_recipe, spell
from training.options.sections import (
    DEFAULT_ARCHITECTURE,
    DEFAULT_DATA,
    SECTIONS,
    DataSection,
    ModelSection,
    OptimizationSection,
    RunSection,
    TaskSection,
    ViewSection,
)


RECIPES = Path(__file__).resolve().parents[1] / "recipes"
TEXT = """Pretrains an EsViT backbone on images without labels.

    python training/pretrain.py --recipe own_images_small --data photographs/ --output runs/mine
    python training/pretrain.py --recipe adapt --data photographs/ --backbone NAME --output runs/adapted
    python training/pretrain.py --recipe own_images_small --data photographs/ --output runs/mine --dry_run
    torchrun --nproc_per_node 8 training/pretrain.py --recipe swin_tiny_w7 --data imagenet/train

The same command again continues a stopped run. Recipes are in training/recipes/; options go on top of them."""
FIRST = (  # of --help
    *(
        "recipe",
        "data",
        "output",
        "epochs",
        "batch_size",
        "lr",
        "backbone",
        "init_from",
        "knn_every",
        "knn_test",
        "dry_run",
    ),
)


# Options that may be a path in the home folder, as in `~/photographs`.
PATHS = ("data", "output", "init_from", "backbone", "cache", "tar_index", "knn_train", "knn_test")

# Options that name folders in which the run writes.
WRITTEN = ("output", "cache", "tar_index")

# Options that a continued run may change: they decide how it runs, not (except for rounding) what comes out.
FREE_TO_CHANGE = {
    *("output", "tar_index", "cache", "stream_retry_seconds", "max_unreadable", "max_skipped_steps"),
    "process_timeout",
    *("gradient_checkpointing", "compile", "attn_implementation", "workers", "max_steps", "log_every"),
    *(
        "save_every",
        "keep_checkpoints",
        "knn_every",
        "knn_train",
        "knn_test",
        "knn_k",
        "label_column",
        "tracker",
        "push_to_hub",
    ),
    "dry_run",
}
# Options that say how processes share the images of a step: a continued run may change them if a step keeps its images.
SHARES_OF_A_STEP = ("batch_size", "gradient_accumulation_steps")
# Other spellings of the values of `compile`. In YAML, on and off are true and false.
COMPILE: dict[Any, Any] = {True: "on", False: "off", "true": "on", "false": "off", "True": "on", "False": "off"}
# Options that say how to read `data`: those of a recipe do not apply to other data.
ABOUT_DATA = (
    *("data", "split", "revision", "config_name", "image_column", "label_column", "streaming"),
    *("samples_per_epoch", "white_level", "allow_paths"),
)
WARMUPS = ("warmup_epochs", "warmup_teacher_temp_epochs")
LARGEST_SEED = 2**31 - 1  # each process of a run adds its number, and NumPy and scikit-learn take 32 bits
# The smallest and the largest value of an option.
RANGES = {
    **dict.fromkeys(
        ("epochs", "batch_size", "gradient_accumulation_steps", "log_every", "keep_checkpoints", "max_skipped_steps"),
        (1, math.inf),
    ),
    **dict.fromkeys(("shuffle_window", "max_pixels"), (1, math.inf)),
    "white_level": (1e-6, 2**31),
    "num_prototypes": (1, 10**8),  # the paper has 65536
    **dict.fromkeys(("head_hidden_size", "head_bottleneck_size", "global_crop_size"), (1, 10**6)),
    **dict.fromkeys(
        ("workers", "max_steps", "stream_retry_seconds", "save_every", "knn_every", "freeze_last_layer", *WARMUPS),
        (0, math.inf),
    ),
    **dict.fromkeys(("lr", "min_lr", "weight_decay", "weight_decay_end", "clip_grad"), (0, math.inf)),
    **dict.fromkeys(("mixup", "cutmix"), (0, math.inf)),
    **dict.fromkeys(
        ("momentum_teacher", "center_momentum", "max_unreadable", "vil_mode_switch", "region_matching_switch"), (0, 1)
    ),
    **dict.fromkeys(("student_temp", "teacher_temp", "warmup_teacher_temp"), (1e-3, math.inf)),
    "process_timeout": (0.01, 10**6),
    "seed": (0, LARGEST_SEED),
}


@dataclass
class PretrainOptions(RunSection, OptimizationSection, ViewSection, TaskSection, ModelSection, DataSection):
    """Holds all options of a run. `problems` checks their values."""

    def __post_init__(self) -> None:
        if self.data is None:
            self.data, self.streaming = DEFAULT_DATA, True
        if self.architecture is None and self.init_from is None:
            self.architecture = DEFAULT_ARCHITECTURE
        if isinstance(self.tracker, str):
            self.tracker = [self.tracker]
        self.compile = COMPILE.get(self.compile, self.compile)
        for name in PATHS:
            if value := getattr(self, name):
                setattr(self, name, os.path.expanduser(value))

    @property
    def decoding(self) -> DecodingOptions:
        """Returns how images are decoded."""
        return DecodingOptions(self.exif_orientation, self.white_level, self.max_pixels, self.allow_paths)

    @property
    def training_data(self) -> str:
        """Returns the training images as DATA or DATA:SPLIT."""
        return f"{self.data}:{self.split}" if self.split else str(self.data)

    def loss_weights(self) -> dict[str, float]:
        """Returns the weights of the losses, as arguments of `esvit_loss`."""
        return {"region_weight": self.region_weight if self.task == "view+region" else 0.0}

    def cut_warmup(self, name: str) -> int:
        """Returns the epochs of a warm-up, one of WARMUPS; of one longer than the run, half of the run's."""
        epochs = getattr(self, name)
        return epochs if epochs <= self.epochs else self.epochs // 2

    def find_feature_epoch(self) -> int | None:
        """Returns the first epoch in which the region task matches by feature; None if it never does."""
        if self.task == "view" or self.region_matching == "location":
            return None
        return 0 if self.region_matching == "feature" else math.ceil(self.region_matching_switch * self.epochs)

    def problems(self) -> list[str]:
        """Returns a sentence for each value that is not possible."""
        found = (
            self.find_empty(),
            self.find_urls(),
            self.find_out_of_range(),
            self.find_crop_problems(),
            self.find_contradictions(),
        )
        return [*itertools.chain.from_iterable(found)]

    def find_empty(self) -> Iterator[str]:
        """Yields a sentence for each empty text. As a path it would mean the current folder.

        `data` may be empty, in recipes for images of one's own: who opens it asks for it.
        """
        for name, value in asdict(self).items():
            if (value == "" and name != "data") or (isinstance(value, list) and "" in value):
                yield f"{name} is empty: give a value, or leave the option out (is a variable of the shell not set?)."

    def find_urls(self) -> Iterator[str]:
        """Yields a sentence for each folder to write to that is a URL."""
        for name in WRITTEN:
            if (value := getattr(self, name)) and (problem := describe_url(value)):
                yield f"{name}: {problem}."

    def find_out_of_range(self) -> Iterator[str]:
        """Yields a sentence for each value outside its range."""
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not (low <= value <= high and math.isfinite(value)):
                limits = f"finite and at least {low:g}" if value == math.inf else f"at least {low:g}"
                limits = limits if high == math.inf else f"between {low:g} and {high:.10g}"
                yield f"{name} must be {limits}, got {getattr(self, name)}."
        if not 0 <= self.freeze_backbone_epochs < self.epochs:
            yield (
                f"freeze_backbone_epochs is {self.freeze_backbone_epochs}, but must lie between 0 and epochs - 1 "
                f"({self.epochs - 1})."
            )
        if not 0 < self.layer_decay <= 1:
            yield f"layer_decay must lie in (0, 1], got {self.layer_decay}; 1.0 is off."
        if not 0 < self.region_weight <= 1:
            yield f"region_weight must lie in (0, 1], got {self.region_weight}; for none use --task view."

    def find_crop_problems(self) -> Iterator[str]:
        """Yields a sentence for each list about crops that is not possible."""
        for name in ("global_crops_scale", "local_crops_scale"):
            share = getattr(self, name)
            if len(share) != 2 or not 0 < share[0] <= share[1] <= 1:
                yield f"{name} must be two shares with 0 < low <= high <= 1, got {share}."
        for name, least in (("local_crop_sizes", 1), ("local_crops_numbers", 0)):
            if min(getattr(self, name), default=least) < least:
                yield f"{name} must be numbers from {least} on, got {getattr(self, name)}."
        if len(self.local_crop_sizes) != len(self.local_crops_numbers):
            yield (
                f"local_crop_sizes {self.local_crop_sizes} and local_crops_numbers {self.local_crops_numbers} must "
                "have one entry for each set of local crops."
            )

    def find_contradictions(self) -> Iterator[str]:
        """Yields a sentence for options that contradict each other."""
        if (self.mixup or self.cutmix) and (self.task != "view" or self.batch_size % 2):
            yield (
                f"mixup and cutmix are for --task view (here {self.task}) and an even batch_size (here "
                f"{self.batch_size}), because they mix images in pairs."
            )
        if not 0 <= self.first_epoch < self.epochs:
            yield f"first_epoch is {self.first_epoch}, but must lie between 0 and epochs - 1 ({self.epochs - 1})."
        if self.first_epoch and self.init_from is None:
            yield f"first_epoch {self.first_epoch} goes on in another run's schedules: give its model as init_from."
        if self.freeze_backbone_epochs and not (self.init_from or self.backbone_weights):
            yield (
                f"freeze_backbone_epochs {self.freeze_backbone_epochs} would keep random weights: it is for "
                "--backbone_weights or --init_from."
            )
        if self.freeze_batch_norm and not (self.init_from or self.backbone_weights):
            yield "freeze_batch_norm would keep statistics of nothing: it is for --backbone_weights or --init_from."
        if 0 < self.freeze_backbone_epochs <= self.first_epoch:
            yield (
                f"freeze_backbone_epochs {self.freeze_backbone_epochs} counts the epochs of the schedules, and the run "
                f"begins at first_epoch {self.first_epoch}: leave it out, or give more."
            )
        if self.region_matching != "feature" and self.task == "view":
            yield f"region_matching {self.region_matching} is for --task view+region; the view task has no regions."
        if self.augmentation == "deit" and self.augment_on == "device":
            yield "augmentation deit is done by the workers: use --augment_on workers, or auto."
        if (self.architecture == "auto") != (self.backbone is not None):
            yield "architecture auto and backbone go together: give both, or neither."
        if self.backbone_weights and self.backbone is None:
            yield "backbone_weights needs a backbone: name the one whose weights they are."
        if not self.knn_every and (self.knn_test or self.knn_train):
            yield "knn_train and knn_test are for the k-NN evaluation: give knn_every, how often to evaluate."
        if self.label_column is not None and not self.knn_every:
            yield "label_column is for the k-NN evaluation: give knn_every, or leave it out."
        if "none" in self.tracker and len(self.tracker) > 1:
            yield f"tracker is {' '.join(self.tracker)}: give names of trackers, or only none."

    def differences(self, other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Returns the options that change the result and differ from those of a saved run: name -> (there, here).

        What shares the images of a step among batches is none of them, nor are more epochs, which lengthen a run. Nor
        does an option differ that the saved run did not have yet, if it has its default, nor another name of a folder.
        """
        before = asdict(PretrainOptions()) | other
        return {
            name: (before[name], value)
            for name, value in asdict(self).items()
            if name not in FREE_TO_CHANGE
            and name not in SHARES_OF_A_STEP
            and before[name] != value
            and not (name == "epochs" and value > before[name])
            and not (name in PATHS and value and before[name] and is_same_place(before[name], value))
        }


class PretrainParser(HelpOfOneScreen, HfArgumentParser):
    """Parses the command line of a run, with help of one screen."""

    text = TEXT
    first = FIRST


def make_unknown_option_error(name: str) -> OptionError:
    """Returns the error for an option that does not exist; it names the nearest one."""
    names = [f.name for f in fields(PretrainOptions)]
    nearest = difflib.get_close_matches(name.replace("-", "_"), names, n=1, cutoff=0.5)
    return OptionError(
        f"Unknown option {name!r}; {f'did you mean {nearest[0]!r}?' if nearest else '--help_all lists all.'}"
    )


def to_arguments(values: Mapping[str, Any]) -> list[str]:
    """Turns values by name into command-line arguments, so that they are checked as these are, without those of None.

    Raises:
        OptionError: There is no option of this name, or it takes one value and has several.
        OldNameError: It has another name by now.
    """
    arguments, types = [], {f.name: str(f.type) for f in fields(PretrainOptions)}
    for name, value in values.items():
        check_name(str(name), list(types))
        if name not in types:
            raise make_unknown_option_error(str(name))
        if value is None:
            continue
        words = spell(name, value)
        if len(words) > 1 and "list" not in types[name]:
            raise OptionError(f"{name} takes one value, got {hide_secrets(repr(value))}.")
        arguments += words
    return arguments


def read_recipe(recipe: str, left_out: Collection[str] = ()) -> list[str]:
    """Reads a recipe, by its path or by its name in `recipes/`, as command-line arguments, without those `left_out`.

    Raises:
        OptionError: See `load_recipe`; or it has a name that no option has.
    """
    values = load_recipe(recipe, RECIPES)
    return to_arguments({name: value for name, value in values.items() if name not in left_out})


def read_options(
    arguments: list[str], parser_class: type[HfArgumentParser] = PretrainParser, left_out: Collection[str] = ()
) -> PretrainOptions:
    """Reads the defaults, then `--recipe`, then the rest of the command line. Values are not checked yet.

    `--data` on the command line replaces everything that the recipe says about data (ABOUT_DATA): a folder is not
    streamed because the recipe's data set is. What else the recipe says is `left_out`. Passwords and signatures are
    taken out of every word that has URLs, before any message could quote it.

    Raises:
        OptionError: A name is unknown (the message gives the nearest valid one), or a recipe cannot be read.
    """
    arguments = [*map(hide_secrets, arguments)]
    parser = parser_class(SECTIONS, allow_abbrev=False)
    parser.add_argument("--recipe", help="YAML file of these options, or the name of one in recipes/.")
    given = parser.parse_known_args(arguments)[0]
    left_out = {*left_out, *(() if given.data is None else ABOUT_DATA)}
    in_recipe = [] if given.recipe is None else read_recipe(given.recipe, left_out)
    in_order = [*map(hide_secrets, in_recipe), *arguments]
    *sections, _, rest = parser.parse_args_into_dataclasses(in_order, return_remaining_strings=True)
    if rest and rest[0].startswith("-"):
        raise make_unknown_option_error(rest[0].lstrip("-").split("=")[0])
    if rest:
        raise OptionError(f"{rest[0]!r} is not the value of any option.")
    return PretrainOptions(**{name: value for section in sections for name, value in vars(section).items()})


def parse_options(arguments: list[str]) -> PretrainOptions:
    """Reads the options as `read_options` does, and checks them.

    Raises:
        OptionError: See `read_options`; or values cannot be, all of which the message names.
    """
    options = read_options(arguments)
    if problems := options.problems():
        raise OptionError("\n".join(problems))
    return options


class PythonParser(PretrainParser):
    """Raises an error for a value of a wrong type, where the command line would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(message)


def make_options(recipe: str | os.PathLike[str] | None = None, **values: Any) -> PretrainOptions:
    """Returns the options that Python gives by name, on top of a recipe, read as the command line is.

    None stands for the default of an option, whatever the recipe says.

    Raises:
        OptionError: See `read_options`; or a value has the wrong type.
    """
    arguments = [*([] if recipe is None else spell("recipe", os.fspath(recipe))), *to_arguments(values)]
    return read_options(arguments, PythonParser, {name for name, value in values.items() if value is None})


def save_options(options: PretrainOptions, path: Path) -> None:
    """Writes the resolved options as a recipe that reproduces the run."""
    rewrite_recorded(path, yaml.safe_dump(asdict(options), sort_keys=False))
