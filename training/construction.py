# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run is built of, from its options: accelerator, student and teacher, the description of its views."""

import copy

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import GradientAccumulationPlugin, LoggerType, parse_flag_from_env
from transformers import AutoModelForPreTraining

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.tokens import EsViTDropPath
from options import OptionError, PretrainOptions
from views import ViewOptions


class PrecisionError(ValueError):
    """A precision that this device cannot compute in."""


class ShardingError(ValueError):
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


def build_accelerator(options: PretrainOptions) -> Accelerator:
    """
    Raises:
        ShardingError: FSDP, DeepSpeed or the like is configured.
        PrecisionError: fp16 without a GPU, which Accelerate would silently run in fp32.
        OptionError: a tracker that is unknown or not installed, which Accelerate would silently leave out.
    """
    refuse_sharding()
    if options.tracker != "none" and options.tracker not in LoggerType.list():
        raise OptionError(f"There is no tracker {options.tracker!r}; known: none, {', '.join(LoggerType.list())}.")
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else Accelerate ignores torchrun's processes on a CPU
        mixed_precision=options.mixed_precision,
        # As a plugin, because the plain number gives way to an environment variable.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=options.gradient_accumulation_steps),
        log_with=None if options.tracker == "none" else options.tracker,
        project_dir=options.output_dir,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if options.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise PrecisionError("fp16 needs a GPU; on a CPU use --mixed_precision bf16 or no.")
    if options.mixed_precision != "no" and accelerator.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 in the loss, which is float32: more digits than the rest has
    if options.tracker != "none" and not accelerator.log_with:
        raise OptionError(f"The tracker {options.tracker!r} is not installed; install it or use --tracker none.")
    return accelerator


def build_networks(options: PretrainOptions, device: torch.device) -> tuple[EsViTForPreTraining, EsViTForPreTraining]:
    """
    Student and teacher, equal at the start; the teacher has no stochastic depth and takes no gradient.

    Raises:
        OptionError: an option that the architecture does not have.
    """
    overrides = {
        name: getattr(options, name)
        for name in ("patch_size", "embed_dim", "depths", "num_heads", "drop_path_rate", "vil_mode")
        if getattr(options, name) is not None
    }
    config = EsViTConfig.from_architecture(
        options.architecture,
        window_size=options.window_size,
        image_size=options.image_size,
        num_prototypes=options.num_prototypes,
        head_hidden_size=options.head_hidden_size,
        head_bottleneck_size=options.head_bottleneck_size,
        norm_last_layer=options.norm_last_layer,
        region_head=options.task == "view+region",
        **overrides,
    )
    if options.vil_mode is not None and config.architecture != "vil":
        raise OptionError(f"vil_mode is for a ViL; {options.architecture} is a {config.family.name}.")
    attention = options.attn_implementation
    if attention == "auto":
        attention = "eager" if device.type == "cpu" else "sdpa"
    student = AutoModelForPreTraining.from_config(config, attn_implementation=attention)
    teacher = copy.deepcopy(student).requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, EsViTDropPath):
            module.rate = 0.0
    if options.gradient_checkpointing:
        student.gradient_checkpointing_enable()
    return student.train(), teacher.train()


def view_options(options: PretrainOptions) -> ViewOptions:
    return ViewOptions(
        global_crop_size=options.global_crop_size,
        local_crop_sizes=options.local_crop_sizes,
        local_crops_numbers=options.local_crops_numbers,
        global_crops_scale=(options.global_crops_scale[0], options.global_crops_scale[1]),
        local_crops_scale=(options.local_crops_scale[0], options.local_crops_scale[1]),
        augmentation=options.augmentation,
    )
