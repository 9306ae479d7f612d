# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds one model without loading its weights, and measures its speed, size and memory for `throughput.py`."""

import platform
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from transformers import AutoModel

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.configuration_esvit import EsViTArchitectureError, find_published_name
from modeling_esvit.embed.compiling import OFF, BatchForward
from modeling_esvit.embed.engine import compute_view_features
from modeling_esvit.errors import EsViTError
from modeling_esvit.families import ARCHITECTURES
from modeling_esvit.images.hub import find_reachable_model
from modeling_esvit.images.models import NoImageModelError
from modeling_esvit.images.models import load_configuration as load_image_configuration
from modeling_esvit.images.precision import DTYPES
from training.evaluation.model_counts import count_parameters_and_operations
from training.features.frozen_models import TIMM, TimmModel, compute_alone, import_timm


DEFAULT_SIDE = 224  # pixels, for a model whose configuration has no image size


class ThroughputError(EsViTError, ValueError):
    """Raised when a model cannot be measured with the given options."""


@dataclass(frozen=True)
class ThroughputOptions:
    """Holds the options of `throughput.py`; `--help` describes them."""

    models: list[str]
    batch_size: int = 128
    batches: int = 30
    warmup: int = 5
    image_size: int | None = None
    dtype: str = "float32"
    compile: str = OFF
    device: str | None = None
    threads: int | None = None
    trust_remote_code: bool = False
    output: Path | None = None
    accuracy: tuple[str, ...] = ()


def choose_device(options: ThroughputOptions) -> torch.device:
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device(options.device or best or "cpu")


# -- models without weights --------------------------------------------------------------------------------------------


def build_model(name: str, side: int | None, trust_remote_code: bool) -> tuple[nn.Module, int]:
    """Builds the model with random weights; returns it with the side of its images in pixels.

    Raises:
        ThroughputError, FrozenModelError, OSError: no model has that name.
    """
    if name.startswith(TIMM):
        return build_timm(name.removeprefix(TIMM), side)
    config = load_configuration(name, trust_remote_code)
    side = side or (config.image_size if isinstance(getattr(config, "image_size", None), int) else DEFAULT_SIDE)
    if isinstance(config, EsViTConfig):
        return EsViTModel(config), side
    return AutoModel.from_config(config, trust_remote_code=trust_remote_code), side


def load_configuration(name: str, trust_remote_code: bool) -> Any:
    """Loads the configuration of a model folder, a name on the Hub or a published architecture.

    Raises:
        ThroughputError: no model has that name, or its window is wrong.
    """
    architecture, _, window = name.partition("@")
    if architecture in ARCHITECTURES and architecture != "auto" and not Path(name).exists():
        if window and not window.isdecimal():
            raise ThroughputError(f"{name!r}: the window after @ must be a number, such as swin-base@14.")
        try:
            return EsViTConfig.from_architecture(architecture, window_size=int(window) if window else None)
        except EsViTArchitectureError as error:
            raise ThroughputError(f"{name!r}: {error}") from error
    name = find_reachable_model(name)
    try:
        return load_image_configuration(name, trust_remote_code=trust_remote_code)
    except NoImageModelError as error:
        known = ", ".join(architecture for architecture in ARCHITECTURES if architecture != "auto")
        raise ThroughputError(
            f"{name!r} is no model folder and none of {known}. As a name on the Hub it fails, too: {error}"
        ) from error


def build_timm(name: str, side: int | None) -> tuple[nn.Module, int]:
    with import_timm(name) as timm:
        model = timm.create_model(name, pretrained=False, num_classes=0)
    own = model.pretrained_cfg["input_size"][-1]
    return TimmModel(model), side or own


def find_published(model: nn.Module) -> dict[str, Any]:
    """Returns the published architecture of a model and its window. Empty if the model has none."""
    config = getattr(model, "config", None)
    if not isinstance(config, EsViTConfig) or find_published_name(config) is None:
        return {}
    return {"architecture": find_published_name(config)} | (
        {"window": config.window_size} if config.architecture == "swin" else {}
    )


# -- the measurement, in a process of its own --------------------------------------------------------------------------


def measure(name: str, options: ThroughputOptions) -> dict[str, Any]:
    """Measures one model.

    Raises:
        ThroughputError: the model does not take such images, or needs too much memory.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options)
    model, side = build_model(name, options.image_size, options.trust_remote_code)
    identity = find_published(model)
    dtype = DTYPES[options.dtype]
    model = model.eval().requires_grad_(False).to(device, dtype)
    try:
        image = torch.randn(1, 3, side, side, device=device, dtype=dtype)
        parameters, operations = count_parameters_and_operations(model, image)
        seconds, peak = time_forward_passes(model, image.repeat(options.batch_size, 1, 1, 1), options)
    except torch.OutOfMemoryError as error:
        raise ThroughputError(
            f"{name} needs more memory than there is. Choose a smaller --batch_size or a smaller --dtype."
        ) from error
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        images = f"{options.batch_size} images of {side} x {side} pixels"
        raise ThroughputError(f"{name} cannot be run on {images}: {error}") from error
    return {
        **identity,
        "image_size": side,
        "parameters": parameters,
        "operations": operations,
        "images_per_second": options.batch_size / statistics.median(seconds),
        "slowest_images_per_second": options.batch_size / max(seconds),
        "fastest_images_per_second": options.batch_size / min(seconds),
        "peak_bytes": peak,
    }


def time_forward_passes(model: nn.Module, images: torch.Tensor, options: ThroughputOptions) -> tuple[list[float], int]:
    """Returns the seconds of each batch after the warm-up, and the peak memory in bytes."""
    forward = BatchForward(model, partial(compute_alone, partial(compute_view_features, model)), options.compile)
    forward.expect(options.batch_size, options.batch_size)
    on_gpu = images.device.type == "cuda"
    synchronize = torch.accelerator.synchronize if images.device.type != "cpu" else (lambda: None)
    seconds = []
    for number in range(options.warmup + options.batches):
        if number == options.warmup and on_gpu:
            torch.cuda.reset_peak_memory_stats()
        synchronize()
        started = time.perf_counter()
        forward(images)
        synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds[options.warmup :], torch.cuda.max_memory_allocated() if on_gpu else read_peak_memory()


def read_peak_memory() -> int:
    """Returns the largest resident set of this process so far, in bytes."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
