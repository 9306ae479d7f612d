# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the parts of a run from its options: accelerator, student, teacher and optimizer, crops and loader."""

import copy
import os
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import (
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    parse_flag_from_env,
    set_seed,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import AutoModelForPreTraining

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.batch_norm import join_batches
from modeling_esvit.cross_entropy import Method, compute_chunk
from modeling_esvit.errors import EsViTError
from modeling_esvit.families import ARCHITECTURES, require_fields
from modeling_esvit.images.precision import has_native_bfloat16
from modeling_esvit.tokens import EsViTDropPath
from training.data.batch_order import BatchOrder
from training.data.loader import Batch, make_loader
from training.data.shared_memory import SharedMemory, count_shared_memory
from training.data.sources import ImageSource
from training.data.workers import count_workers
from training.learning.backbones import (
    check_backbone,
    check_crop_sizes,
    load_backbone_weights,
    make_backbone_overrides,
    remove_stochastic_depth,
)
from training.learning.compiling import STATIC, is_compiled
from training.learning.init_from import find_origin, initialise, read_configuration
from training.learning.optimizer import group_parameters
from training.learning.plan import Plan
from training.learning.precision import choose_matmul_precision
from training.monitoring.trackers import list_trackers
from training.options.pretrain_options import PretrainOptions
from training.views.draw import ViewOptions
from training.views.locations import make_locator


class ShardingError(EsViTError, ValueError):
    """Raised when Accelerate is configured to split the model over processes."""


class DynamoError(EsViTError, ValueError):
    """Raised when Accelerate is configured to compile the model."""


# The variable by which `accelerate launch` names a compiler, "no" if there is none.
DYNAMO = "ACCELERATE_DYNAMO_BACKEND"
# Variables that `accelerate launch` sets for it. On a CPU Accelerate itself silently ignores them.
SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}


def refuse_sharding() -> None:
    """Raises a ShardingError if Accelerate is configured to split the model."""
    for variable, name in SHARDING.items():
        if parse_flag_from_env(variable):
            raise ShardingError(
                f"Accelerate is configured for {name} ({variable} is set), but every process holds a whole student and "
                "teacher here: with optimizer and gradients they take 1.5 GB for Swin-T and 5 GB for Swin-L, and "
                "Accelerate shards one model, not two that move together. Answer no to it in `accelerate config`, or "
                "leave out --use_fsdp or --use_deepspeed. If the memory is not enough, use --gradient_checkpointing, "
                "or a smaller --batch_size with more --gradient_accumulation_steps."
            )


def refuse_dynamo() -> None:
    """Raises a DynamoError if Accelerate is configured to compile the model."""
    backend = os.environ.get(DYNAMO, "no")
    if backend.lower() != "no":
        raise DynamoError(
            f"Accelerate is configured to compile models with the dynamo backend {backend} ({DYNAMO} is set), but it "
            "would compile the student alone, and its checkpoints would not be those of other runs. Answer no to it in "
            "`accelerate config`, or leave out --dynamo_backend. To compile, use --compile on."
        )


def build_accelerator(options: PretrainOptions) -> Accelerator:
    """Builds the accelerator from options that `check_precision` and `check_trackers` have accepted.

    Raises:
        ShardingError: FSDP, DeepSpeed or the like is configured.
        DynamoError: A compiler is configured.
    """
    refuse_sharding()
    refuse_dynamo()
    # Accelerate keeps the precision of a process's first run for all later ones, as in a notebook, and has no public
    # way to forget it: transformers' Trainer calls the same method.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else Accelerate ignores torchrun's processes on a CPU
        mixed_precision=options.mixed_precision,
        # A plugin, because an environment variable would override the plain number.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=options.gradient_accumulation_steps),
        log_with=list_trackers(options) or None,
        project_dir=options.output,
        kwargs_handlers=[
            # Gradients live in DDP's buckets: a copy of them less.
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=timedelta(minutes=options.process_timeout)),
        ],
    )
    torch.set_float32_matmul_precision(choose_matmul_precision(options, accelerator.device))
    return accelerator


def build_config(options: PretrainOptions) -> EsViTConfig:
    """Builds the configuration of student and teacher.

    Raises:
        OptionError: The architecture does not have an option, or crops are too small for it.
        EsViTBackboneError: The backbone cannot do what the run asks of it.
        EsViTArchitectureError: There is no such architecture, or a field of it has an impossible value.
        InitialisationError: `init_from` names nothing to start from.
    """
    config = combine_config(options)
    check_crop_sizes(config, options)
    if config.architecture == "auto":
        check_backbone(config, options)
    return config


def combine_config(options: PretrainOptions) -> EsViTConfig:
    """Combines the architecture, or that of `init_from`, with the fields that the options change."""
    heads = {
        "num_prototypes": options.num_prototypes,
        "head_hidden_size": options.head_hidden_size,
        "head_bottleneck_size": options.head_bottleneck_size,
        "norm_last_layer": options.norm_last_layer,
        "region_head": options.task == "view+region",
    }
    names = (
        *("window_size", "image_size", "patch_size", "embed_dim", "stage_dims", "depths", "num_heads"),
        *("drop_path_rate", "vil_mode"),
    )
    overrides = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.architecture is None:
        assert options.init_from is not None  # PretrainOptions names an architecture otherwise
        config = continue_config(options.init_from, options.output, heads | overrides)
        require_fields(config.architecture, overrides)
    else:
        architecture = ARCHITECTURES.get(options.architecture, {})
        if architecture.get("architecture") == "auto":
            overrides.pop("drop_path_rate", None)
            overrides |= make_backbone_overrides(options, architecture.get("backbone_config"))
        config = EsViTConfig.from_architecture(options.architecture, **heads, **overrides)
    return config


def continue_config(init_from: str, output_dir: str, changes: dict[str, Any]) -> EsViTConfig:
    """Returns the configuration of the networks of `init_from`, with some fields changed.

    A run that has a checkpoint reads it from there: `init_from` may be gone by then.
    """
    checkpoint = Path(output_dir) / "checkpoints" / "last" / "student"
    source = str(checkpoint) if checkpoint.exists() else find_origin(init_from).student
    return EsViTConfig.from_dict(read_configuration(source).to_dict() | changes)


def build_networks(options: PretrainOptions, device: torch.device) -> tuple[EsViTForPreTraining, EsViTForPreTraining]:
    """Builds student and teacher, equal at the start. The teacher has no stochastic depth and takes no gradient.

    Raises:
        OptionError, EsViTBackboneError, EsViTArchitectureError, InitialisationError: See [`build_config`].
    """
    config = build_config(options)
    student = AutoModelForPreTraining.from_config(config, attn_implementation=choose_attention(options, device, config))
    if options.backbone_weights and options.backbone is not None and student.device.type != "meta":
        load_backbone_weights(student, options.backbone)
    teacher = copy.deepcopy(student).requires_grad_(False)
    for module in teacher.modules():
        remove_stochastic_depth(module)
        if isinstance(module, EsViTDropPath):
            module.rate = 0.0
    if options.gradient_checkpointing:
        student.gradient_checkpointing_enable()
    return student.train(), teacher.train()


class Networks(NamedTuple):
    """Holds what a step trains.

    Attributes:
        student, teacher: The bare models.
        wrapped: The student as Accelerate prepared it: its backward pass averages gradients over processes.
        optimizer: AdamW over the student's trainable parameters.
    """

    student: EsViTForPreTraining
    teacher: EsViTForPreTraining
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer


def prepare_networks(options: PretrainOptions, accelerator: Accelerator) -> Networks:
    """Builds the networks on the device, with equal weights on every process, and their optimizer."""
    set_seed(options.seed)
    student, teacher = build_networks(options, accelerator.device)
    if accelerator.num_processes > 1:
        join_batches(student)
        join_batches(teacher)
    teacher.to(accelerator.device)
    optimizer = torch.optim.AdamW(group_parameters(student, options.layer_decay), lr=0.0, fused=True)
    if is_compiled(options, accelerator.device):
        for network in (student, teacher):
            network.compile(**STATIC)
    wrapped = accelerator.prepare(student)
    # Weights were drawn alike; from here on each process draws its own stochastic depth.
    set_seed(options.seed, device_specific=True)
    return Networks(student, teacher, wrapped, optimizer)


def build_start(options: PretrainOptions, device: torch.device) -> EsViTForPreTraining:
    """Builds the teacher as it is before the first step of a run.

    Raises:
        EsViTError: What the run starts from is not there any more, see [`build_networks`].
    """
    with torch.random.fork_rng():
        set_seed(options.seed)
        student, teacher = build_networks(options, device)
    if options.init_from is not None:
        optimizer = torch.optim.AdamW(group_parameters(student, options.layer_decay), lr=0.0)
        initialise(options.init_from, student, teacher, optimizer)
    network: Any = teacher
    return network.to(device)


def choose_loss_method(precision: str, device: torch.device, *, compiled: bool) -> Method:
    """Returns how the losses are computed: with products of bfloat16 on a GPU that trains in mixed precision."""
    in_bfloat16 = precision != "no" and device.type == "cuda" and has_native_bfloat16(device)
    return Method(
        chunk=torch.compile(compute_chunk, **STATIC) if compiled else None,
        product_type=torch.bfloat16 if in_bfloat16 else None,
    )


def choose_attention(options: PretrainOptions, device: torch.device, config: EsViTConfig) -> str | None:
    """Returns the implementation of attention. None leaves the choice to a backbone of transformers."""
    if options.attn_implementation != "auto":
        return options.attn_implementation
    if config.architecture == "auto":
        return None
    return "eager" if device.type == "cpu" else "sdpa"


def make_view_options(options: PretrainOptions) -> ViewOptions:
    """Returns the options of the crops."""
    return ViewOptions(
        global_crop_size=options.global_crop_size,
        local_crop_sizes=options.local_crop_sizes,
        local_crops_numbers=options.local_crops_numbers,
        global_crops_scale=(options.global_crops_scale[0], options.global_crops_scale[1]),
        local_crops_scale=(options.local_crops_scale[0], options.local_crops_scale[1]),
        augmentation=options.augmentation,
    )


def augments_on_device(options: PretrainOptions, device: torch.device) -> bool:
    """Returns whether jitter, blur and so on are done on the device."""
    if options.augment_on != "auto":
        return options.augment_on == "device"
    return options.augmentation != "deit" and device.type != "cpu"


def count_loader_memory(options: PretrainOptions, device: torch.device) -> SharedMemory:
    """Counts what the loaders of this machine put into its shared memory."""
    return count_shared_memory(
        make_view_options(options),
        options.batch_size,
        count_workers(options.workers),
        held=options.gradient_accumulation_steps,
        bytes_per_value=1 if augments_on_device(options, device) else 4,
    )


def build_loader(
    options: PretrainOptions, source: ImageSource, plan: Plan, accelerator: Accelerator, step: int
) -> DataLoader[Batch]:
    """Builds the loader of what this process sees from `step` on: `gradient_accumulation_steps` batches a step.

    With the region task, batches say which regions of the network lie at the same place.
    """
    epoch, first = divmod(step, plan.steps_per_epoch)
    views = make_view_options(options)
    return make_loader(
        source,
        views,
        BatchOrder(
            seed=options.seed,
            batch_size=options.batch_size,
            batches_per_step=options.gradient_accumulation_steps,
            epoch=epoch,
            num_epochs=options.epochs - epoch,
            start_batch=first * options.gradient_accumulation_steps,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            stream_lanes=plan.lanes,
        ),
        num_workers=count_workers(options.workers),
        pin_memory=accelerator.device.type == "cuda",
        augment=not augments_on_device(options, accelerator.device),
        locator=make_locator(build_config(options), views) if options.task == "view+region" else None,
    )


def release_processes(wrapped: nn.Module) -> None:
    """Lets a student that takes no further step go of the processes that average its gradients."""
    if isinstance(wrapped, DistributedDataParallel):
        for name in ("reducer", "logger", "process_group"):
            delattr(wrapped, name)
