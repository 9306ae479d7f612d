# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Options of a pretraining run: one dataclass <-> command line <-> YAML recipe.

A recipe is a YAML file of the same names; the command line goes on top of it. The defaults are the recipe that gave the
published Swin-T W7 (view + region, 300 epochs; arXiv 2106.09785, section 4.1).
"""

import difflib
import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from transformers import HfArgumentParser

from modeling_esvit.errors import EsViTError
from modeling_esvit.families import ARCHITECTURES


RECIPES = Path(__file__).resolve().parents[1] / "recipes"


class OptionError(EsViTError, ValueError):
    """An option that does not exist, or has a value that cannot work."""


# Options that a continued run may give another value: they decide how it runs, not (but for rounding) what comes out.
FREE_TO_CHANGE = (
    *(
        "output_dir",
        "tar_index",
        "cache",
        "stream_retry_seconds",
        "max_unreadable",
        "max_skipped_steps",
        "gradient_checkpointing",
        "compile",
        "attn_implementation",
        "num_workers",
        "max_steps",
    ),
    *(
        "log_every",
        "save_every",
        "keep_checkpoints",
        "knn_every",
        "knn_train",
        "knn_test",
        "knn_k",
        "tracker",
        "push_to_hub",
        "dry_run",
    ),
)
# What is read if `data` is not given, as a stream.
DEFAULT_DATA = "ILSVRC/imagenet-1k"
DEFAULT_ARCHITECTURE = "swin-tiny"
# What says how to read `data`: a recipe's do not apply to other data.
ABOUT_DATA = ("data", "split", "revision", "image_column", "streaming", "samples_per_epoch")
# Smallest and largest value of options that have them.
RANGES = {
    **dict.fromkeys(
        ("epochs", "batch_size", "gradient_accumulation_steps", "log_every", "keep_checkpoints", "max_skipped_steps"),
        (1, math.inf),
    ),
    "shuffle_window": (1, math.inf),
    **dict.fromkeys(
        ("num_workers", "max_steps", "stream_retry_seconds", "save_every", "knn_every", "freeze_last_layer"),
        (0, math.inf),
    ),
    **dict.fromkeys(("lr", "min_lr", "weight_decay", "weight_decay_end", "clip_grad"), (0, math.inf)),
    **dict.fromkeys(("mixup", "cutmix"), (0, math.inf)),
    **dict.fromkeys(("momentum_teacher", "center_momentum", "max_unreadable", "vil_mode_switch"), (0, 1)),
    **dict.fromkeys(("student_temp", "teacher_temp", "warmup_teacher_temp"), (1e-3, math.inf)),
    "seed": (0, 2**31 - 1),  # each process adds its number, and NumPy takes 32 bits
}


@dataclass
class DataSection:
    _argument_group_name = "data"

    data: str | None = field(
        default=None,
        metadata={
            "help": "Folder of images, folder or glob of parquet or tar files, or data set name on the Hub "
            f"({DEFAULT_DATA}, streamed)."
        },
    )
    split: str | None = field(default=None, metadata={"help": "Split of a data set (train), or subfolder of a folder."})
    revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a data set on the Hub; a run stays with its commit."}
    )
    image_column: str | None = field(default=None, metadata={"help": "Column of images, where there are several."})
    streaming: bool = field(default=False, metadata={"help": "Stream the data set instead of downloading it first."})
    samples_per_epoch: int | None = field(
        default=None, metadata={"help": "Images an epoch of a stream, if not all of it."}
    )
    shuffle_window: int = field(
        default=1000, metadata={"help": "Images of a stream that are shuffled, and in memory, at a time; twice that."}
    )


@dataclass
class ModelSection:
    _argument_group_name = "model"

    architecture: str | None = field(
        default=None,
        metadata={
            "help": f"One of: {', '.join(ARCHITECTURES)}; or the original's string for a ViL, 'l1,h3,d96,...'. "
            f"Default: that of --init_from, else {DEFAULT_ARCHITECTURE}."
        },
    )
    backbone: str | None = field(
        default=None,
        metadata={
            "help": "With --architecture auto: model that transformers has an AutoBackbone of, by its name on the Hub, "
            "its folder, or a config.json; or timm:NAME."
        },
    )
    backbone_weights: bool = field(
        default=False, metadata={"help": "Start from the weights of --backbone, not from random ones."}
    )
    window_size: int | None = field(
        default=None,
        metadata={"help": "Attention window, tokens a side: 7 (but for --init_from), or 14: more cost, more accuracy."},
    )
    image_size: int | None = field(
        default=None,
        metadata={"help": "Pixels a side (224, but for --init_from); fixes windows and shifts at construction."},
    )
    patch_size: int | None = field(default=None, metadata={"help": "Instead of the architecture's."})
    embed_dim: int | None = field(default=None, metadata={"help": "Instead of the architecture's."})
    stage_dims: list[int] | None = field(
        default=None, metadata={"help": "Width of each stage where it does not double (CvT); the first is embed_dim."}
    )
    depths: list[int] | None = field(default=None, metadata={"help": "Instead of the architecture's."})
    num_heads: list[int] | None = field(default=None, metadata={"help": "Instead of the architecture's."})
    drop_path_rate: float | None = field(
        default=None, metadata={"help": "Of the student, instead of the architecture's."}
    )
    vil_mode: int | None = field(
        default=None,
        metadata={"help": "ViL: chunks that a token sees: 0 all 9, -1 its own, 1 its own and one of 8 that is drawn."},
    )
    vil_mode_switch: float = field(
        default=0.75, metadata={"help": "Share of the epochs after which a vil_mode above 0 becomes 0."}
    )
    num_prototypes: int = field(
        default=65536, metadata={"help": "K, the heads' output dimension; fewer for few images, as in the demo."}
    )
    head_hidden_size: int = field(default=2048, metadata={"help": "Width of the heads' MLPs."})
    head_bottleneck_size: int = field(default=256, metadata={"help": "Dimension in front of the prototypes."})
    norm_last_layer: bool = field(default=False, metadata={"help": "Keep the prototypes' norms at 1."})
    init_from: str | None = field(
        default=None, metadata={"help": "Run, model folder or model on the Hub to start from; default: random weights."}
    )


@dataclass
class TaskSection:
    _argument_group_name = "task"

    task: Literal["view", "view+region"] = field(default="view+region", metadata={"help": "Level of the losses."})
    region_weight: float = field(default=0.5, metadata={"help": "Share of the region loss; the rest is the view loss."})
    student_temp: float = field(
        default=0.1, metadata={"help": "tau_s, constant; above tau_t, so that targets are the sharper ones."}
    )
    warmup_teacher_temp: float = field(
        default=0.04, metadata={"help": "tau_t of the first epoch; low, since a high one can collapse at first."}
    )
    teacher_temp: float = field(default=0.07, metadata={"help": "tau_t after its warm-up."})
    warmup_teacher_temp_epochs: int = field(default=30, metadata={"help": "Epochs of that warm-up; 0 for none."})
    center_momentum: float = field(
        default=0.9, metadata={"help": "Momentum of the centres a step; nearer 1 for small batches."}
    )


@dataclass
class ViewSection:
    _argument_group_name = "views"

    global_crop_size: int = field(default=224, metadata={"help": "Pixels of the two global crops."})
    global_crops_scale: list[float] = field(
        default_factory=lambda: [0.4, 1.0], metadata={"help": "Smallest and largest share of the image's area."}
    )
    local_crop_sizes: list[int] = field(default_factory=lambda: [96], metadata={"help": "Pixels, one value a set."})
    local_crops_numbers: list[int] = field(
        default_factory=lambda: [8], metadata={"help": "Crops of each set; 0: none."}
    )
    local_crops_scale: list[float] = field(
        default_factory=lambda: [0.05, 0.4], metadata={"help": "As for global crops."}
    )
    augmentation: Literal["dino", "mocov2", "basic", "deit"] = field(
        default="dino", metadata={"help": "Colours, blur and so on: dino as published; basic is none; see views.py."}
    )
    mixup: float = field(default=0.0, metadata={"help": "Of the student's views: alpha, 0.8 say; view task alone."})
    cutmix: float = field(default=0.0, metadata={"help": "The same: alpha, 1 say. Both: each half of the time."})
    augment_on: Literal["auto", "workers", "device"] = field(
        default="auto", metadata={"help": "Who does jitter, blur and so on; auto: the device, unless it is a CPU."}
    )


@dataclass
class OptimizationSection:
    _argument_group_name = "optimization"

    epochs: int = field(default=300, metadata={"help": "Length of all schedules."})
    batch_size: int = field(default=32, metadata={"help": "Images a process takes at a time."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches of each process to one step."})
    lr: float = field(
        default=5e-4, metadata={"help": "Peak learning rate for 256 images a step; times the images of a step / 256."}
    )
    min_lr: float = field(default=1e-6, metadata={"help": "Learning rate at the end of the cosine."})
    warmup_epochs: int = field(default=10, metadata={"help": "Epochs of linear learning rate warm-up."})
    weight_decay: float = field(default=0.04, metadata={"help": "At the start of its cosine."})
    weight_decay_end: float = field(default=0.4, metadata={"help": "At its end."})
    momentum_teacher: float = field(
        default=0.996, metadata={"help": "EMA momentum a step, rising to 1 by a cosine; nearer 1 for small batches."}
    )
    clip_grad: float = field(
        default=3.0, metadata={"help": "Largest L2 norm of each parameter's gradient; 0: no clipping."}
    )
    freeze_last_layer: int = field(
        default=1, metadata={"help": "First epochs in which the prototypes stay as they are, against early collapse."}
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = field(
        default="no", metadata={"help": "Autocast of both networks; fp16 as published, bf16 without a loss scale."}
    )
    seed: int = field(default=0, metadata={"help": "Of weights, order and views."})


@dataclass
class RunSection:
    _argument_group_name = "the run"

    output_dir: str = field(default="runs/esvit", metadata={"help": "Everything is written below this folder."})
    tar_index: str | None = field(
        default=None, metadata={"help": "Folder for the index of tar shards (OUTPUT_DIR/tar_index)."}
    )
    cache: str | None = field(
        default=None, metadata={"help": "Folder for copies of a stream's shards, read in later epochs; default: none."}
    )
    stream_retry_seconds: float = field(
        default=300, metadata={"help": "Seconds for which a server of shards may fail before the run stops."}
    )
    max_unreadable: float = field(
        default=0.01, metadata={"help": "Share of unreadable images above which the run stops."}
    )
    max_skipped_steps: int = field(
        default=20, metadata={"help": "Steps in a row without a finite loss and gradient after which the run stops."}
    )
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Recompute blocks in the backward pass."})
    compile: bool = field(default=False, metadata={"help": "Networks by torch.compile: minutes, then faster steps."})
    attn_implementation: Literal["auto", "sdpa", "eager"] = field(
        default="auto",
        metadata={"help": "Attention of transformers, sdpa or eager; auto: eager on a CPU, whose sdpa stores more."},
    )
    num_workers: int = field(default=4, metadata={"help": "Processes that decode and crop; 0: the training process."})
    max_steps: int = field(
        default=0, metadata={"help": "Stop (and save) at this step; schedules stay. 0: run to the end."}
    )
    log_every: int = field(default=10, metadata={"help": "Steps between two readings of loss and entropy."})
    save_every: int = field(default=0, metadata={"help": "Steps between checkpoints; 0: one after each epoch."})
    keep_checkpoints: int = field(default=2, metadata={"help": "Newest checkpoints to keep."})
    knn_every: int = field(default=0, metadata={"help": "Epochs between k-NN evaluations of the teacher; 0: none."})
    knn_train: str | None = field(
        default=None, metadata={"help": "Labelled data of the k-NN bank, DATA or DATA:SPLIT (default: --data)."}
    )
    knn_test: str | None = field(default=None, metadata={"help": "Labelled data to be classified, DATA or DATA:SPLIT."})
    knn_k: list[int] = field(default_factory=lambda: [10, 20], metadata={"help": "Numbers of neighbours."})
    push_to_hub: str | None = field(
        default=None,
        metadata={"help": "Repository (user/name) for each best teacher by k-NN; without k-NN, for the final one."},
    )
    tracker: list[str] = field(
        default_factory=lambda: ["tensorboard"],
        metadata={"help": "One or more trackers of Accelerate (tensorboard, wandb, trackio, ...), or none."},
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Print the plan, its memory and arithmetic, check all that the run needs, and do not train."},
    )


@dataclass
class PretrainOptions(RunSection, OptimizationSection, ViewSection, TaskSection, ModelSection, DataSection):
    """All of them. Values are checked by `problems`."""

    def __post_init__(self) -> None:
        if self.data is None:
            self.data, self.streaming = DEFAULT_DATA, True
        if self.architecture is None and self.init_from is None:
            self.architecture = DEFAULT_ARCHITECTURE
        if isinstance(self.tracker, str):
            self.tracker = [self.tracker]

    def problems(self) -> list[str]:
        """What is wrong with the values, all of it."""
        return [*self.out_of_range(), *self.crop_problems(), *self.contradictions()]

    def out_of_range(self) -> Iterator[str]:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not (low <= value <= high and math.isfinite(value)):
                limits = f"finite and at least {low:g}" if value == math.inf else f"at least {low:g}"
                limits = limits if high == math.inf else f"between {low:g} and {high:.10g}"
                yield f"{name} must be {limits}, got {getattr(self, name)}."
        for name in ("warmup_epochs", "warmup_teacher_temp_epochs"):
            if not 0 <= getattr(self, name) <= self.epochs:
                yield f"{name} is {getattr(self, name)}, but must lie between 0 and epochs ({self.epochs})."
        if not 0 < self.region_weight <= 1:
            yield f"region_weight must lie in (0, 1], got {self.region_weight}; for none use --task view."

    def crop_problems(self) -> Iterator[str]:
        for name in ("global_crops_scale", "local_crops_scale"):
            share = getattr(self, name)
            if len(share) != 2 or not 0 < share[0] <= share[1] <= 1:
                yield f"{name} must be two shares with 0 < low <= high <= 1, got {share}."
        if len(self.local_crop_sizes) != len(self.local_crops_numbers):
            yield (
                f"local_crop_sizes {self.local_crop_sizes} and local_crops_numbers {self.local_crops_numbers} must "
                "have one entry for each set of local crops."
            )

    def contradictions(self) -> Iterator[str]:
        if (self.mixup or self.cutmix) and (self.task != "view" or self.batch_size % 2):
            yield (
                f"mixup and cutmix are for --task view (here {self.task}) and an even batch_size (here "
                f"{self.batch_size}), whose images they mix in pairs."
            )
        if self.augmentation == "deit" and self.augment_on == "device":
            yield "augmentation deit is done by the workers: use --augment_on workers, or auto."
        if (self.architecture == "auto") != (self.backbone is not None):
            yield "architecture auto and backbone go together: any backbone of transformers, and which."
        if self.backbone_weights and self.backbone is None:
            yield "backbone_weights needs a backbone, whose weights these are."
        if bool(self.knn_every) != bool(self.knn_test):
            yield "knn_every and knn_test go together: how often to evaluate, and on which labelled data."
        if "none" in self.tracker and len(self.tracker) > 1:
            yield f"tracker is {' '.join(self.tracker)}: give names of trackers, or none alone."

    def differences(self, other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Result-changing options whose value in `other` (a saved run) is another: name -> (there, here)."""
        return {
            name: (other.get(name), value)
            for name, value in asdict(self).items()
            if name not in FREE_TO_CHANGE and other.get(name) != value
        }


SECTIONS: Any = (DataSection, ModelSection, TaskSection, ViewSection, OptimizationSection, RunSection)


def unknown_option(name: str) -> OptionError:
    names = [f.name for f in fields(PretrainOptions)]
    nearest = difflib.get_close_matches(name.replace("-", "_"), names, n=1, cutoff=0.5)
    return OptionError(
        f"Unknown option {name!r}; {f'did you mean {nearest[0]!r}?' if nearest else '--help lists all.'}"
    )


def recipe_arguments(recipe: str, left_out: Collection[str] = ()) -> list[str]:
    """A recipe, by path or by its name in `recipes/`, as command line arguments: both are checked in one way. Without the
    options `left_out`.
    """
    path = Path(recipe) if Path(recipe).suffix in (".yaml", ".yml") else RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise OptionError(f"There is no recipe {str(path)!r}; give a YAML file or one of: {known}.")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise OptionError(f"The recipe {str(path)!r} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise OptionError(f"The recipe {str(path)!r} must be a mapping of option names to values.")
    arguments = []
    for name, value in values.items():
        if name not in {f.name for f in fields(PretrainOptions)}:
            raise unknown_option(str(name))
        if value is not None and name not in left_out:
            arguments += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return arguments


def read_options(arguments: list[str]) -> PretrainOptions:
    """Defaults, then `--recipe`, then the rest of the command line. `--data` there replaces all that the recipe says about
    data (ABOUT_DATA): a folder is not streamed because the recipe's data set is. Values are not checked yet.

    Raises:
        OptionError: an unknown name (with the nearest valid one), or a recipe that cannot be read.
    """
    parser = HfArgumentParser(SECTIONS, allow_abbrev=False, description="Pretrain an EsViT backbone.")
    parser.add_argument("--recipe", help="YAML file of these options, or the name of one in recipes/.")
    given = parser.parse_known_args(arguments)[0]
    left_out = () if given.data is None else ABOUT_DATA
    in_order = (recipe_arguments(given.recipe, left_out) if given.recipe else []) + arguments
    *sections, _, rest = parser.parse_args_into_dataclasses(in_order, return_remaining_strings=True)
    if rest and rest[0].startswith("-"):
        raise unknown_option(rest[0].lstrip("-").split("=")[0])
    if rest:
        raise OptionError(f"{rest[0]!r} is not the value of any option.")
    return PretrainOptions(**{name: value for section in sections for name, value in vars(section).items()})


def parse_options(arguments: list[str]) -> PretrainOptions:
    """As `read_options`, and checked.

    Raises:
        OptionError: also for impossible values, of which it names all.
    """
    options = read_options(arguments)
    if problems := options.problems():
        raise OptionError("\n".join(problems))
    return options


def save_options(options: PretrainOptions, path: Path) -> None:
    """The resolved options as a recipe that reproduces the run."""
    path.write_text(yaml.safe_dump(asdict(options), sort_keys=False))
