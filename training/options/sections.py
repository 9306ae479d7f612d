# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines every option of a pretraining run, with its default and its help text, in six sections.

A section declares which of its options may be published, in a model card for example (`_public`). Options that it does
not declare are private. Those that name data or models are public if these came from the Hub (`_named_data`,
`_named_models`), and some others together with them (`_public_with`).

The defaults are the recipe of the published Swin-T W7 (view + region, 300 epochs; arXiv 2106.09785, section 4.1), but
for `exif_orientation`: the original ignored it.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from modeling_esvit.families import ARCHITECTURES
from modeling_esvit.images.decoding import MAX_PIXELS
from modeling_esvit.images.decoding_arguments import HELP


DEFAULT_DATA = "ILSVRC/imagenet-1k"  # streamed, if `data` is not given
DEFAULT_ARCHITECTURE = "swin-tiny"


@dataclass
class DataSection:
    """Holds the options about the images that a run reads."""

    _argument_group_name = "data"
    _public: ClassVar[tuple[str, ...]] = (
        *("exif_orientation", "white_level", "max_pixels", "allow_paths"),
        *("streaming", "samples_per_epoch", "shuffle_window"),
    )
    _named_data: ClassVar[tuple[str, ...]] = ("data",)
    _public_with: ClassVar[dict[str, tuple[str, ...]]] = {"data": ("split", "revision", "config_name", "image_column")}

    data: str | None = field(
        default=None,
        metadata={
            "help": "Folder of images, folder or glob of parquet or tar files, or data set name on the Hub "
            f"(default: {DEFAULT_DATA}, streamed)."
        },
    )
    split: str | None = field(
        default=None,
        metadata={"help": "Split of a data set, or subfolder of a folder (default: train, or the whole folder)."},
    )
    revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a data set on the Hub; a run stays with its commit."}
    )
    config_name: str | None = field(default=None, metadata={"help": "Configuration of a data set that has several."})
    image_column: str | None = field(
        default=None,
        metadata={"help": "Column of the images, if there are several; of tar files, the extension of the images."},
    )
    label_column: str | None = field(
        default=None, metadata={"help": "Column of the classes, for the k-NN evaluation; of tar files, the extension."}
    )
    exif_orientation: Literal["apply", "ignore"] = field(default="apply", metadata={"help": HELP["exif_orientation"]})
    white_level: float | None = field(default=None, metadata={"help": HELP["white_level"]})
    max_pixels: int = field(default=MAX_PIXELS, metadata={"help": HELP["max_pixels"]})
    allow_paths: bool = field(default=False, metadata={"help": HELP["allow_paths"]})
    streaming: bool = field(default=False, metadata={"help": "Stream the data set instead of downloading it first."})
    samples_per_epoch: int | None = field(
        default=None, metadata={"help": "Images of a stream that make an epoch (default: all)."}
    )
    shuffle_window: int = field(
        default=1000,
        metadata={"help": "Images of a stream that are shuffled together; up to twice as many are in memory."},
    )


@dataclass
class ModelSection:
    """Holds the options about the network."""

    _argument_group_name = "model"
    _public: ClassVar[tuple[str, ...]] = (
        *("architecture", "backbone_weights", "window_size", "image_size", "patch_size", "embed_dim", "stage_dims"),
        *("depths", "num_heads", "drop_path_rate", "vil_mode", "vil_mode_switch", "num_prototypes"),
        *("head_hidden_size", "head_bottleneck_size", "norm_last_layer"),
    )
    _named_models: ClassVar[tuple[str, ...]] = ("backbone", "init_from")

    architecture: str | None = field(
        default=None,
        metadata={
            "help": f"One of: {', '.join(ARCHITECTURES)}; or the original's string for a ViL, 'l1,h3,d96,...' "
            f"(default: that of --init_from, else {DEFAULT_ARCHITECTURE})."
        },
    )
    backbone: str | None = field(
        default=None,
        metadata={
            "help": "With --architecture auto (the recipe adapt sets that): a model for which transformers has an "
            "AutoBackbone, by its name on the Hub, its folder or a config.json; or timm:NAME."
        },
    )
    backbone_weights: bool = field(
        default=False, metadata={"help": "Start from the weights of --backbone, not from random ones."}
    )
    window_size: int | None = field(
        default=None,
        metadata={
            "help": "Side of the attention window in tokens; 14 is slower, more accurate (default: that of "
            "--init_from, else 7)."
        },
    )
    image_size: int | None = field(
        default=None,
        metadata={
            "help": "Side in pixels for which windows and shifts are built (default: that of --init_from, else 224)."
        },
    )
    patch_size: int | None = field(
        default=None, metadata={"help": "Side of a patch in pixels (default: the architecture's)."}
    )
    embed_dim: int | None = field(
        default=None, metadata={"help": "Width of the tokens in the first stage (default: the architecture's)."}
    )
    stage_dims: list[int] | None = field(
        default=None,
        metadata={
            "help": "Width of each stage where it does not double (CvT); the first is embed_dim (default: the "
            "architecture's)."
        },
    )
    depths: list[int] | None = field(
        default=None, metadata={"help": "Number of blocks in each stage (default: the architecture's)."}
    )
    num_heads: list[int] | None = field(
        default=None, metadata={"help": "Number of attention heads in each stage (default: the architecture's)."}
    )
    drop_path_rate: float | None = field(
        default=None, metadata={"help": "Stochastic depth of the student (default: the architecture's)."}
    )
    vil_mode: int | None = field(
        default=None,
        metadata={
            "help": "ViL: chunks a token attends to: 0 all 9, -1 its own, 1 its own and a random one of the others."
        },
    )
    vil_mode_switch: float = field(
        default=0.75, metadata={"help": "ViL: share of the epochs after which a vil_mode above 0 becomes 0."}
    )
    num_prototypes: int = field(
        default=65536,
        metadata={"help": "K, the number of prototypes of each head; use fewer for few images, as the demo does."},
    )
    head_hidden_size: int = field(default=2048, metadata={"help": "Width of the heads' MLPs."})
    head_bottleneck_size: int = field(
        default=256, metadata={"help": "Dimension of the vectors that are compared with the prototypes."}
    )
    norm_last_layer: bool = field(default=False, metadata={"help": "Keep the prototypes' norms at 1."})
    init_from: str | None = field(
        default=None,
        metadata={"help": "Run, model folder or model on the Hub to start from (default: random weights)."},
    )


@dataclass
class TaskSection:
    """Holds the options about the losses."""

    _argument_group_name = "task"
    _public: ClassVar[tuple[str, ...]] = (
        *("task", "region_weight", "region_matching", "region_matching_switch", "student_temp"),
        *("warmup_teacher_temp", "teacher_temp", "warmup_teacher_temp_epochs", "center_momentum"),
    )

    task: Literal["view", "view+region"] = field(default="view+region", metadata={"help": "Which losses are used."})
    region_weight: float = field(default=0.5, metadata={"help": "Share of the region loss; the rest is the view loss."})
    region_matching: Literal["feature", "location", "location_then_feature"] = field(
        default="feature",
        metadata={
            "help": "Which region of the teacher's view is the target of a region: the most similar one (feature, as "
            "published), or the one at the same place of the image (location, for networks that begin untrained or "
            "have few images); location_then_feature changes at --region_matching_switch."
        },
    )
    region_matching_switch: float = field(
        default=0.5,
        metadata={"help": "Share of the epochs after which location_then_feature matches by feature."},
    )
    student_temp: float = field(
        default=0.1, metadata={"help": "tau_s, constant; higher than tau_t, so that the targets are sharper."}
    )
    warmup_teacher_temp: float = field(
        default=0.04, metadata={"help": "tau_t of the first epoch; low, because a high one can collapse at first."}
    )
    teacher_temp: float = field(default=0.07, metadata={"help": "tau_t after its warm-up."})
    warmup_teacher_temp_epochs: int = field(default=30, metadata={"help": "Epochs of that warm-up; 0 for none."})
    center_momentum: float = field(
        default=0.9, metadata={"help": "Momentum of the centres at each step; nearer 1 for small batches."}
    )


@dataclass
class ViewSection:
    """Holds the options about crops and augmentation."""

    _argument_group_name = "views"
    _public: ClassVar[tuple[str, ...]] = (
        *("global_crop_size", "global_crops_scale", "local_crop_sizes", "local_crops_numbers", "local_crops_scale"),
        *("augmentation", "mixup", "cutmix", "augment_on"),
    )

    global_crop_size: int = field(default=224, metadata={"help": "Pixels of the two global crops."})
    global_crops_scale: list[float] = field(
        default_factory=lambda: [0.4, 1.0],
        metadata={"help": "Smallest and largest share of the image's area in global crops."},
    )
    local_crop_sizes: list[int] = field(
        default_factory=lambda: [96], metadata={"help": "Side in pixels of each set of local crops."}
    )
    local_crops_numbers: list[int] = field(
        default_factory=lambda: [8], metadata={"help": "Number of crops in each set; 0: none."}
    )
    local_crops_scale: list[float] = field(
        default_factory=lambda: [0.05, 0.4],
        metadata={"help": "Smallest and largest share of the image's area in local crops."},
    )
    augmentation: str = field(
        default="dino",
        metadata={
            "help": "Colours, blur and so on, by a policy of views/draw.py: dino (the published one), mocov2, deit, or "
            "basic (none)."
        },
    )
    mixup: float = field(
        default=0.0,
        metadata={"help": "Mixup of the student's views, for the view task only: alpha, for example 0.8; 0: none."},
    )
    cutmix: float = field(
        default=0.0,
        metadata={"help": "CutMix, likewise: alpha, for example 1. With both, each is used half of the time."},
    )
    augment_on: Literal["auto", "workers", "device"] = field(
        default="auto",
        metadata={"help": "Where jitter, blur and so on are done; auto: on the device, unless it is a CPU."},
    )


@dataclass
class OptimizationSection:
    """Holds the options about steps and schedules."""

    _argument_group_name = "optimization"
    _public: ClassVar[tuple[str, ...]] = (
        *("epochs", "first_epoch", "batch_size", "gradient_accumulation_steps", "lr", "min_lr", "warmup_epochs"),
        *("weight_decay", "weight_decay_end", "momentum_teacher", "clip_grad", "freeze_last_layer"),
        *("freeze_backbone_epochs", "freeze_batch_norm", "layer_decay", "mixed_precision", "matmul_precision", "seed"),
    )

    epochs: int = field(default=300, metadata={"help": "Epochs of training, over which all schedules run."})
    first_epoch: int = field(
        default=0,
        metadata={
            "help": "Epoch of the schedules at which the run begins, when --init_from has trained for those before it."
        },
    )
    batch_size: int = field(default=32, metadata={"help": "Images that a process takes at a time."})
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "Batches of each process that make one step."}
    )
    lr: float = field(
        default=5e-4,
        metadata={"help": "Peak learning rate for 256 images a step; it is scaled by (images a step) / 256."},
    )
    min_lr: float = field(default=1e-6, metadata={"help": "Learning rate at the end of the cosine."})
    warmup_epochs: int = field(default=10, metadata={"help": "Epochs of linear learning rate warm-up."})
    weight_decay: float = field(default=0.04, metadata={"help": "Weight decay at the start of its cosine."})
    weight_decay_end: float = field(default=0.4, metadata={"help": "Weight decay at the end of its cosine."})
    momentum_teacher: float = field(
        default=0.996,
        metadata={"help": "Momentum of the teacher at each step, rising to 1 by a cosine; nearer 1 for small batches."},
    )
    clip_grad: float = field(
        default=3.0, metadata={"help": "Largest L2 norm of each parameter's gradient; 0: no clipping."}
    )
    freeze_last_layer: int = field(
        default=1,
        metadata={"help": "Number of first epochs in which the prototypes are frozen, against early collapse."},
    )
    freeze_backbone_epochs: int = field(
        default=0,
        metadata={
            "help": "Number of first epochs in which only the heads learn: with --backbone_weights or --init_from, new "
            "heads would otherwise spoil what the backbone knows. Its BatchNorms keep their statistics meanwhile."
        },
    )
    freeze_batch_norm: bool = field(
        default=False,
        metadata={
            "help": "Keep the running statistics of the backbone's BatchNorms for the whole run, and normalise by "
            "them: those of small, augmented crops would replace what --backbone_weights or --init_from bring."
        },
    )
    layer_decay: float = field(
        default=1.0,
        metadata={
            "help": "Factor of the learning rate from each block of the backbone to the one before it, as in BEiT and "
            "timm: 1.0 is off, 0.65 to 0.9 suit a pretrained backbone. Heads have the full rate."
        },
    )
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = field(
        default="auto",
        metadata={
            "help": "Autocast of both networks; fp16 as published, bf16 without a loss scale; auto: what a continued "
            "run began with, else what Accelerate's launcher says, else bf16 where the device computes it natively "
            "(GPU from Ampere, CPU with AMX or AVX-512 BF16), else no."
        },
    )
    matmul_precision: Literal["auto", "highest", "high", "medium"] = field(
        default="auto",
        metadata={
            "help": "Precision of float32 matrix products, by the names of torch.set_float32_matmul_precision; medium: "
            "bf16 products on a CPU with AMX; auto: highest, but beside autocast high on a GPU, medium on such a CPU."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of weights, order and views."})


@dataclass
class RunSection:
    """Holds the options about everything around the steps."""

    _argument_group_name = "the run"
    _public: ClassVar[tuple[str, ...]] = (
        "gradient_checkpointing",
        "compile",
        "attn_implementation",
        "max_steps",
        "knn_every",
        "knn_k",
    )
    _named_data: ClassVar[tuple[str, ...]] = ("knn_train", "knn_test")

    output: str = field(default="runs/esvit", metadata={"help": "Folder of the run; everything is written below it."})
    tar_index: str | None = field(
        default=None, metadata={"help": "Folder for the index of tar shards (default: OUTPUT/tar_index)."}
    )
    cache: str | None = field(
        default=None,
        metadata={"help": "Folder for copies of a stream's shards, which later epochs read (default: none)."},
    )
    stream_retry_seconds: float = field(
        default=300, metadata={"help": "Seconds for which a server may fail to deliver a shard before the run stops."}
    )
    max_unreadable: float = field(
        default=0.01,
        metadata={
            "help": "Share of unreadable images above which the run stops; ten are always allowed, unless it is 0."
        },
    )
    max_skipped_steps: int = field(
        default=20, metadata={"help": "Steps in a row without a finite loss and gradient, after which the run stops."}
    )
    process_timeout: float = field(
        default=30,
        metadata={"help": "Minutes that a process waits for the others, or for its workers, before the run ends."},
    )
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Recompute blocks in the backward pass."})
    compile: Literal["auto", "on", "off", "true", "false", "True", "False"] = field(
        default="auto",
        metadata={
            "help": "Use torch.compile: minutes at the start, then faster steps; auto: on a GPU. Alone it means on.",
            **{"nargs": "?", "const": "on", "metavar": "{auto,on,off}"},
        },
    )
    attn_implementation: Literal["auto", "sdpa", "eager"] = field(
        default="auto",
        metadata={"help": "Implementation of attention; auto: sdpa, but eager on a CPU, where sdpa stores more."},
    )
    workers: int | None = field(
        default=None,
        metadata={
            "help": "Processes that decode and crop for each training process, and threads of an evaluation; 0: the "
            "training process does it (default: one for each core of its share, at most 16)."
        },
    )
    max_steps: int = field(
        default=0, metadata={"help": "Save and stop after this step, with unchanged schedules. 0: run to the end."}
    )
    log_every: int = field(default=10, metadata={"help": "Steps between two lines of the log."})
    save_every: int = field(default=0, metadata={"help": "Steps between checkpoints; 0: one after each epoch."})
    keep_checkpoints: int = field(default=2, metadata={"help": "Number of newest checkpoints that are kept."})
    knn_every: int = field(default=0, metadata={"help": "Epochs between k-NN evaluations of the teacher; 0: none."})
    knn_train: str | None = field(
        default=None,
        metadata={"help": "Labelled training images of the k-NN evaluation, DATA or DATA:SPLIT (default: --data)."},
    )
    knn_test: str | None = field(
        default=None,
        metadata={
            "help": "Labelled images that the k-NN evaluation classifies, DATA or DATA:SPLIT (default: a fifth of each "
            "class of --knn_train, or else of --data, whose images the run has seen without labels)."
        },
    )
    knn_k: list[int] = field(default_factory=lambda: [10, 20], metadata={"help": "Numbers of neighbours."})
    push_to_hub: str | None = field(
        default=None,
        metadata={
            "help": "Repository (user/name) that gets each best teacher by k-NN; without k-NN, the final teacher."
        },
    )
    tracker: list[str] = field(
        default_factory=lambda: ["tensorboard"],
        metadata={"help": "One or more trackers of Accelerate (tensorboard, wandb, trackio, ...), or none."},
    )
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Print the plan, its memory and arithmetic, and check all that the run needs, without training."
        },
    )


SECTIONS: Any = (DataSection, ModelSection, TaskSection, ViewSection, OptimizationSection, RunSection)
