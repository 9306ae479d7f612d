# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run is built of, from its options: accelerator, student and teacher, views and their loader."""

import copy
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import GradientAccumulationPlugin, is_bf16_available, parse_flag_from_env
from torch.utils.data import DataLoader
from transformers import AutoModelForPreTraining

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.errors import EsViTError
from modeling_esvit.families import ARCHITECTURES, require_fields
from modeling_esvit.tokens import EsViTDropPath
from training.data.loader import Batch, make_loader
from training.data.sources import ImageSource
from training.learning.backbones import (
    backbone_overrides,
    check_backbone,
    check_crop_sizes,
    load_backbone_weights,
    without_stochastic_depth,
)
from training.learning.init_from import find_origin
from training.learning.plan import Plan
from training.monitoring.trackers import tracker_names
from training.options.pretrain_options import PretrainOptions
from training.views.draw import ViewOptions


class PrecisionError(EsViTError, ValueError):
    """A precision that this device cannot compute in."""


class ShardingError(EsViTError, ValueError):
    """Accelerate is configured to split the model over processes."""


# What `accelerate launch` sets for it. On a CPU Accelerate itself ignores these silently.
SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}


def refuse_sharding() -> None:
    for variable, name in SHARDING.items():
        if parse_flag_from_env(variable):
            raise ShardingError(
                f"Accelerate is configured for {name} ({variable} is set), but every process holds a whole student and "
                "teacher here: with optimizer and gradients they take 1.5 GB for Swin-T and 5 GB for Swin-L, and "
                "Accelerate shards one model, not two that move together. Answer no to it in `accelerate config`, or "
                "leave --use_fsdp or --use_deepspeed out. Where memory does not suffice, use --gradient_checkpointing, "
                "or a smaller --batch_size with more --gradient_accumulation_steps."
            )


def check_precision(options: PretrainOptions) -> None:
    """Raises:
    PrecisionError: fp16 without a GPU, which Accelerate would silently run in fp32; bf16 on one that has none.
    """
    if options.mixed_precision == "fp16" and not torch.accelerator.is_available():
        raise PrecisionError("fp16 needs a GPU; on a CPU use --mixed_precision bf16 or no.")
    if options.mixed_precision == "bf16" and not is_bf16_available():
        raise PrecisionError("This device cannot compute in bf16; use --mixed_precision fp16 or no.")


def build_accelerator(options: PretrainOptions) -> Accelerator:
    """Of options that `check_precision` and `check_trackers` let pass.

    Raises:
        ShardingError: FSDP, DeepSpeed or the like is configured.
    """
    refuse_sharding()
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else Accelerate ignores torchrun's processes on a CPU
        mixed_precision=options.mixed_precision,
        # As a plugin, because the plain number gives way to an environment variable.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=options.gradient_accumulation_steps),
        log_with=tracker_names(options) or None,
        project_dir=options.output_dir,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if options.mixed_precision != "no" and accelerator.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 in the loss, which is float32: more digits than the rest has
    return accelerator


def build_config(options: PretrainOptions) -> EsViTConfig:
    """Raises:
    OptionError: an option that the architecture does not have.
    EsViTBackboneError: a backbone that cannot do what the run asks of it.
    EsViTArchitectureError, StrictDataclassError: there is no such architecture, or a field of it cannot be so.
    """
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
        config = continued_config(options.init_from, options.output_dir, heads | overrides)
        require_fields(config.architecture, overrides)
    else:
        architecture = ARCHITECTURES.get(options.architecture, {})
        if architecture.get("architecture") == "auto":
            overrides.pop("drop_path_rate", None)
            overrides |= backbone_overrides(options, architecture.get("backbone_config"))
        config = EsViTConfig.from_architecture(options.architecture, **heads, **overrides)
    check_crop_sizes(config, options)
    if config.architecture == "auto":
        check_backbone(config, options)
    return config


def continued_config(init_from: str, output_dir: str, changes: dict[str, Any]) -> EsViTConfig:
    """The configuration of the networks of `init_from` with some fields changed. Once the run has a checkpoint of its own,
    that has it, and `init_from` need not be there any more.
    """
    checkpoint = Path(output_dir) / "checkpoints" / "last" / "student"
    source = str(checkpoint) if checkpoint.exists() else find_origin(init_from).student
    return EsViTConfig.from_dict(EsViTConfig.from_pretrained(source).to_dict() | changes)


def build_networks(options: PretrainOptions, device: torch.device) -> tuple[EsViTForPreTraining, EsViTForPreTraining]:
    """Student and teacher, equal at the start; the teacher has no stochastic depth and takes no gradient.

    Raises:
        OptionError, EsViTBackboneError, EsViTArchitectureError, StrictDataclassError: see [`build_config`].
    """
    config = build_config(options)
    student = AutoModelForPreTraining.from_config(config, attn_implementation=attention(options, device, config))
    if options.backbone_weights and options.backbone is not None and student.device.type != "meta":
        load_backbone_weights(student, options.backbone)
    teacher = copy.deepcopy(student).requires_grad_(False)
    for module in teacher.modules():
        without_stochastic_depth(module)
        if isinstance(module, EsViTDropPath):
            module.rate = 0.0
    if options.gradient_checkpointing:
        student.gradient_checkpointing_enable()
    return student.train(), teacher.train()


def attention(options: PretrainOptions, device: torch.device, config: EsViTConfig) -> str | None:
    """The implementation; None leaves the choice to a backbone of transformers, which may have only its own."""
    if options.attn_implementation != "auto":
        return options.attn_implementation
    if config.architecture == "auto":
        return None
    return "eager" if device.type == "cpu" else "sdpa"


def view_options(options: PretrainOptions) -> ViewOptions:
    return ViewOptions(
        global_crop_size=options.global_crop_size,
        local_crop_sizes=options.local_crop_sizes,
        local_crops_numbers=options.local_crops_numbers,
        global_crops_scale=(options.global_crops_scale[0], options.global_crops_scale[1]),
        local_crops_scale=(options.local_crops_scale[0], options.local_crops_scale[1]),
        augmentation=options.augmentation,
    )


def augments_on_device(options: PretrainOptions, device: torch.device) -> bool:
    """Whether the device does jitter, blur and so on."""
    if options.augment_on != "auto":
        return options.augment_on == "device"
    return options.augmentation != "deit" and device.type != "cpu"


def build_loader(
    options: PretrainOptions, source: ImageSource, plan: Plan, accelerator: Accelerator, step: int
) -> DataLoader[Batch]:
    """What this process sees from `step` on: `gradient_accumulation_steps` batches a step."""
    epoch, first = divmod(step, plan.steps_per_epoch)
    return make_loader(
        source,
        view_options(options),
        seed=options.seed,
        batch_size=options.batch_size,
        batches_per_step=options.gradient_accumulation_steps,
        epoch=epoch,
        num_epochs=options.epochs - epoch,
        start_step=first * options.gradient_accumulation_steps,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        num_workers=options.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        augment=not augments_on_device(options, accelerator.device),
    )
