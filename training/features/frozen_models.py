# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads models that are evaluated and do not change: of this project, of transformers and of timm.

load_frozen("runs/mine/teacher")                     # a model folder of ours, converted or trained
load_frozen("facebook/dinov2-small")                 # any AutoModel with a pooler_output
load_frozen("timm:resnet50.a1_in1k")                 # a model of timm, if that is installed
load_frozen("runs/mine/teacher", n_last_blocks=4)    # the feature of the paper's linear probe
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling_esvit.analysis.token_places import Size, TokenPlaces, stretch_grid
from modeling_esvit.backbone_probe import TIMM_FOLDER
from modeling_esvit.configuration_esvit import EsViTConfig
from modeling_esvit.embed.compiling import OFF, BatchForward
from modeling_esvit.embed.engine import compute_view_features
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.hub import require_hub
from modeling_esvit.images.model_limits import LARGEST_SIDE, bound_build, count_stored
from modeling_esvit.images.model_places import check_files
from modeling_esvit.images.models import FAILURES, fingerprint, load_image_model, shorten_error
from modeling_esvit.images.precision import name_dtype
from modeling_esvit.images.transform import (
    Transform,
    cut_middle,
    describe_processing,
    find_size,
    make_evaluation_transform,
)


TIMM = "timm:"
UNTRAINED_SEED = 1
UNTRAINED = "untrained"  # stands for the architecture of another model, with random weights


class FrozenModelError(EsViTError, ValueError):
    """Raised when a model cannot be loaded, or has no such feature."""


class TimmModel(nn.Module):
    """Wraps a model of timm without its classifier, to be called as those of transformers are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.grids: dict[Size, Size] = {}

    def forward(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(pooler_output=self.model(pixel_values))

    def regions(self, pixel_values: Tensor) -> tuple[Tensor, TokenPlaces]:
        """Returns the regions `[B, T, C]` of images, row by row, without class tokens, and where they lie.

        Raises:
            FrozenModelError: the model takes no images of this size, or does not say which of its tokens are regions.
        """
        size = (pixel_values.shape[2], pixel_values.shape[3])
        try:
            features = self.model.forward_features(pixel_values)
        except AssertionError as error:
            raise FrozenModelError(f"This model of timm refuses the images: {error}") from error
        if features.ndim == 4:
            channels_last = features.shape[1] != self.model.num_features
            tokens = features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
            return tokens, stretch_grid(size, features.shape[1:3] if channels_last else features.shape[2:])
        if size not in self.grids:
            self.grids[size] = self.token_grid(pixel_values[:1])
        grid, prefix = self.grids[size], getattr(self.model, "num_prefix_tokens", 0)
        if features.shape[1] != prefix + grid[0] * grid[1]:
            raise FrozenModelError(
                f"This model of timm gives {features.shape[1]} tokens, but a map of {grid[0]} x {grid[1]} regions and "
                f"{prefix} class tokens, so it is unknown which tokens are regions: choose another model."
            )
        return features[:, prefix:], stretch_grid(size, grid)

    def token_grid(self, image: Tensor) -> Size:
        """Returns rows and columns of the tokens of an image `[1, 3, H, W]`, from the map that timm makes of them.

        Raises:
            FrozenModelError: the model makes no map.
        """
        if not hasattr(self.model, "forward_intermediates"):
            raise FrozenModelError(
                f"{type(self.model).__name__} of timm gives tokens and no map of them: choose another model."
            )
        (last,) = self.model.forward_intermediates(image, indices=1, intermediates_only=True)
        return last.shape[2], last.shape[3]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


@dataclass(frozen=True)
class FrozenModel:
    """Holds a model with what its features depend on.

    model: in evaluation mode, without gradients.
    transform: RGB image -> pixel values `[3, H, W]`.
    forward: pixel values `[B, 3, H, W]`, on the model's device and in its type -> `[features]`, `[B, C]`.
    settings: what the features depend on beside the images; the weights by a checksum.
    """

    name: str
    model: Any
    transform: Transform
    forward: BatchForward
    settings: dict[str, Any]

    def features(self, pixels: Tensor) -> Tensor:
        """Returns the features `[B, C]` of pixel values `[B, 3, H, W]`, without gradients.

        Raises:
            FeatureError: the model has no pooled output.
            CompileError: the model cannot be compiled, and is to be.
        """
        [features] = self.forward(pixels)
        return features


def load_frozen(
    name: str,
    *,
    n_last_blocks: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    compile: str = OFF,
    revision: str | None = None,
    trust_remote_code: bool = False,
    untrained: bool = False,
) -> FrozenModel:
    """Loads a model for evaluation.

    Args:
        name: a model folder, a name on the Hub, or `timm:` and a name that timm knows.
        n_last_blocks: concatenate the averaged outputs of so many last blocks (EsViT models); None: the view feature.
        dtype: in what type the model computes.
        compile: "on", "off", or "auto": once the images to come repay the time that it takes.
        revision, trust_remote_code: of a model on the Hub.
        untrained: replace its weights by random ones, the same in each call.

    Raises:
        FrozenModelError: timm is missing or does not know the name; or the model has no features of several blocks.
        OSError: see `load_image_model`.
    """
    if name.startswith(TIMM):
        model, transform, processing = load_timm(name.removeprefix(TIMM), device)
    else:
        options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        model, processor = load_image_model(name, device=device, **options)
        transform, processing = make_evaluation_transform(processor), processor.to_dict()
    model, name = (forget_training(model), UNTRAINED) if untrained else (model, name)
    weights = fingerprint(model)
    model = model.to(device, dtype).eval().requires_grad_(False)
    settings = {
        "weights": weights,
        "dtype": name_dtype(dtype),
        "processing": describe_processing(processing),
        "n_last_blocks": n_last_blocks,
    }
    compute = partial(compute_alone, choose_block_features(model, n_last_blocks))
    return FrozenModel(name, model, transform, BatchForward(model, compute, compile), settings)


def forget_training(model: Any) -> Any:
    """Returns a model of the same architecture with random weights, the same in each call; draws go on as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED_SEED)
        if not isinstance(model, TimmModel):
            return type(model)(model.config)
        import timm

        name = model.model.pretrained_cfg["architecture"]
        return TimmModel(timm.create_model(name, pretrained=False, num_classes=0))


def compute_alone(features: Callable[[Tensor], Tensor], pixels: Tensor) -> list[Tensor]:
    """Returns the features as the only output."""
    return [features(pixels)]


@contextmanager
def import_timm(name: str) -> Iterator[Any]:
    """Imports timm, and repeats its errors in one line with the name of the model; a network has bounds.

    Raises:
        FrozenModelError: timm is missing, or does not know the name, or cannot fetch the weights; or the model is a
            folder whose files hold what cannot be.
    """
    try:
        import timm
    except ImportError as error:
        raise FrozenModelError(f"{TIMM}{name} needs timm: pip install timm") from error
    folder = Path(name.removeprefix(TIMM_FOLDER))
    try:
        if name.startswith(TIMM_FOLDER):
            check_files(folder)
        with bound_build(partial(count_stored, folder) if name.startswith(TIMM_FOLDER) else None):
            yield timm
    except FrozenModelError:
        raise
    except (OSError, *FAILURES) as error:
        raise FrozenModelError(f"timm cannot load {name!r}: {shorten_error(error)}") from error


def load_timm(name: str, device: torch.device | str = "cpu") -> tuple[TimmModel, Transform, dict[str, Any]]:
    """Loads a model of timm, its transform and what it says of its images, and tries it with one image.

    Raises:
        FrozenModelError: see `import_timm`.
    """
    with import_timm(name) as timm:
        if repository := getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None):
            require_hub(repository, "model.safetensors")
        model = timm.create_model(name, pretrained=True, num_classes=0).eval().to(device)
        config = timm.data.resolve_model_data_config(model)
        check_input_size(config["input_size"])
        transform = timm.data.create_transform(**config, is_training=False)
        cut = partial(_transform_middle, transform=transform) if config["crop_mode"] == "center" else transform
        with torch.no_grad():
            model(cut(Image.new("RGB", (64, 64)))[None].to(device))
    return TimmModel(model), cut, dict(config)


def check_input_size(size: Any) -> None:
    """Checks the size of the images that a model of timm takes, (channels, height, width).

    Raises:
        FrozenModelError: it is none, or larger than that of any model.
    """
    if len(size) != 3 or not all(isinstance(side, int) and 0 < side <= LARGEST_SIDE for side in size):
        raise FrozenModelError(f"input_size of the model of timm is {size}, not 3 channels, height and width.")


def _transform_middle(image: Image.Image, transform: Transform) -> Tensor:
    return transform(cut_middle(image))


VIEW_ADVICE = (
    "take the view feature, by --recipe view_features (or --n_last_blocks 0) of linear_probe.py, by no --n_last_blocks "
    "elsewhere"
)


def count_blocks(config: Any) -> int:
    """Returns how many last blocks of a model have features that can be taken; 0 for models of other projects."""
    return sum(config.depths) if getattr(config, "model_type", None) == EsViTConfig.model_type else 0


def choose_block_features(model: Any, n_last_blocks: int | None) -> Callable[[Tensor], Tensor]:
    """Returns the function that computes the features.

    Raises:
        FrozenModelError: the model has no features of several blocks, or not so many blocks.
    """
    if n_last_blocks is None:
        return partial(compute_view_features, model)
    blocks = count_blocks(getattr(model, "config", None))  # which those of timm lack
    if not blocks:
        raise FrozenModelError(
            f"{type(model).__name__} has no n_last_blocks_features, which EsViT models have: {VIEW_ADVICE}."
        )
    if not 1 <= n_last_blocks <= blocks:
        raise FrozenModelError(
            f"n_last_blocks is {n_last_blocks}; the model has {blocks} block{'s' * (blocks > 1)} (those of "
            f"transformers, timm, ResNet-50 and PVT count as one): name 1 to {blocks}, or {VIEW_ADVICE}."
        )
    return partial(model.n_last_blocks_features, n=n_last_blocks)


def make_file_name(name: str) -> str:
    """Returns the last two parts of `name`, without what a file name cannot hold."""
    return re.sub(r"[^\w.-]+", "-", "-".join(name.rstrip("/").split("/")[-2:])).strip("-.")


def find_training_view(model: FrozenModel) -> tuple[tuple[int, int], tuple[float, ...], tuple[float, ...]]:
    """Returns ((height, width), mean, std) of the pixel values that the model's transform makes, for one that augments.

    Raises:
        FrozenModelError: the image processor does not say so.
    """
    processing = model.settings["processing"]
    try:
        if "input_size" in processing:  # of timm
            return tuple(processing["input_size"][1:]), processing["mean"], processing["std"]
        return find_size(processing), processing["image_mean"], processing["image_std"]
    except (KeyError, TypeError) as error:
        raise FrozenModelError(f"the image processor of {model.name} does not name its size ({error!r}).") from error
