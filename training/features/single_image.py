# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Provides what the programs that draw an image share: the model, the image and the picture."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)
from modeling_esvit.analysis.token_places import region_stride
from modeling_esvit.images.decoding import DEFAULT, DecodingOptions, Record, decode
from modeling_esvit.images.devices import open_device
from modeling_esvit.images.models import load_image_model
from modeling_esvit.images.names import show_name
from modeling_esvit.images.whole import whole_image
from modeling_esvit.storage.paths import is_same_place
from training.features.frozen_models import TIMM, FrozenModelError


DEFAULT_SIZE = 224  # of models that do not say for what size they were built


class VisionModel(NamedTuple):
    """Holds a model in evaluation mode, and its image processor."""

    model: Any
    processor: Any

    def pixels(self, image: Image.Image, longer: int | None) -> Tensor:
        """Returns the whole image, `[1, 3, H, W]` on the model's device; None: the size that it was built for."""
        longer = longer or find_built_size(self.model.config)
        pixels = whole_image(image, self.processor, longer=longer, multiple=region_stride(self.model.config))
        return pixels.to(self.model.device, self.model.dtype)


def find_built_size(config: Any) -> int:
    """Returns the longer side, in pixels, of the images for which a model was built."""
    size = getattr(config, "image_size", None) or DEFAULT_SIZE
    return size if isinstance(size, int) else max(size)


def add_size_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image_size", type=int, help="pixels of the longer side of what the model sees (default: its own)"
    )


def load_vision_model(arguments: argparse.Namespace, *, with_attention: bool = True) -> VisionModel:
    """Loads a model, by default one that returns its attention weights.

    Raises:
        FrozenModelError: a model of timm, which has no such outputs. DeviceError: no such device.
        OSError: see `load_image_model`.
    """
    if arguments.model.startswith(TIMM):
        raise FrozenModelError(f"{arguments.model}: models of timm give no attention weights and no grid of regions.")
    state = open_device(arguments.device)
    device = arguments.device or state.device
    options = {"revision": arguments.revision, "trust_remote_code": arguments.trust_remote_code}
    # Other forms of attention return no weights; EsViT models switch by themselves.
    model_options = {"attn_implementation": "eager"} if with_attention else {}
    return VisionModel(*load_image_model(arguments.model, model_options, device=device, one_size=False, **options))


def open_image(path: str, options: DecodingOptions = DEFAULT) -> Image.Image:
    """Decodes an image file.

    Raises:
        UnreadableImageError: it is no image, or damaged.
    """
    return decode(Record(path, None, show_name(path), options))


def check_picture(parser: argparse.ArgumentParser, output: Path, read: Sequence[str] = ()) -> Path:
    """Refuses an output that matplotlib cannot write, or that would replace an image that is read, before anything is
    computed.
    """
    if any(is_same_place(str(output), image) for image in read):
        parser.error(f"--output {output} is an image that is read, and would be replaced; name another file")
    supported = Figure().canvas.get_supported_filetypes()
    if output.suffix.removeprefix(".").lower() not in supported:
        parser.error(f"--output {output}: name a picture, with one of the suffixes {' '.join(sorted(supported))}")
    if output.is_dir():
        parser.error(f"--output {output} is a folder; name a file in it")
    folder = next(each for each in output.absolute().parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        parser.error(f"--output {output}: {folder} is no folder that can be written to")
    return output


def normalise(maps: Tensor) -> Tensor:
    """Scales each map `[..., h, w]` to a sum of 1; maps of zeros stay."""
    return maps / maps.sum(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
