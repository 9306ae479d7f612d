# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a segmentation head of transformers (UperNet) on the feature maps of `EsViTBackbone`.

    python examples/segment.py MODEL
    python examples/segment.py MODEL --crops 800 --epochs 8 --output coins.png

The model learns to separate coins from their background in a photograph of scikit-image: it trains on crops of the
upper part and is tested on the lower. The truth is Otsu's threshold of the smoothed photograph. For your own images,
replace the data set `Coins`. Every head of transformers that takes an AutoBackbone is used in the same way: DETR for
detection, DPT for depth.
"""

import math
from pathlib import Path

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import UperNetConfig, UperNetForSemanticSegmentation
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from modeling_esvit import EsViTBackbone, EsViTConfig
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.hub import find_reachable_model
from modeling_esvit.images.models import guard_weights, name_transformers_errors, read_fields
from modeling_esvit.programs.packages import exit_without_package
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.paths import parse_name, parse_path
from modeling_esvit.storage.weight_bars import hide_weight_bars


with exit_without_package():
    import skimage.data
    import skimage.filters
    import skimage.morphology
    from matplotlib.figure import Figure
    from scipy import ndimage
    from tqdm.auto import tqdm

from training.features.single_image import check_picture
from training.options.command import run_command
from training.state.figure_files import save_figure


SIDE = 96  # of the crops, in pixels
BATCH = 8


class ForeignModelError(EsViTError, ValueError):
    """Raised when the named model is not an EsViT."""


def load_coins() -> tuple[Tensor, Tensor]:
    """Loads the photograph, normalised, as `[3, H, W]`, and the mask of its coins as `[H, W]`."""
    photograph = skimage.data.coins()
    smooth = skimage.filters.gaussian(photograph, 1)
    # The light falls off towards one side, so the threshold applies to the difference from the surroundings.
    edges = smooth - skimage.filters.gaussian(photograph, 40)
    mask = skimage.morphology.closing(edges > skimage.filters.threshold_otsu(edges), skimage.morphology.disk(3))
    mask = skimage.morphology.opening(ndimage.binary_fill_holes(mask), skimage.morphology.disk(5))
    pixels = torch.from_numpy(photograph).float().div(255).expand(3, -1, -1)
    mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1), torch.from_numpy(mask).long()


class Coins(Dataset[tuple[Tensor, Tensor]]):
    """Holds random crops of the upper 60% of the photograph, half of them mirrored. They are the same each time."""

    def __init__(self, count: int, seed: int = 0):
        self.pixels, self.labels = load_coins()
        height, width = int(0.6 * self.labels.shape[0]), self.labels.shape[1]
        rng = np.random.default_rng(seed)
        self.corners = np.stack([rng.integers(0, height - SIDE, count), rng.integers(0, width - SIDE, count)], axis=1)

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row, column = self.corners[index]
        square = (..., slice(row, row + SIDE), slice(column, column + SIDE))
        pixels, labels = self.pixels[square], self.labels[square]
        return (pixels.flip(-1), labels.flip(-1)) if index % 2 else (pixels, labels)


def load_test_part() -> tuple[Tensor, Tensor]:
    pixels, labels = load_coins()
    start = int(0.6 * labels.shape[0])
    return pixels[:, start:], labels[start:]


def build_segmenter(name: str, num_labels: int) -> UperNetForSemanticSegmentation:
    """Builds UperNet with a new head, on all stages of a pretrained model.

    Raises:
        ForeignModelError: the model is not one of this project.
        NoImageModelError, OSError: the model cannot be loaded.
    """
    name = find_reachable_model(name)
    with name_transformers_errors(name):
        kind = read_fields(name).get("model_type")
    if kind != "esvit":
        raise ForeignModelError(f"{name} is a model of type {kind!r}, not 'esvit': name a model of this project.")
    with name_transformers_errors(name), hide_weight_bars():
        stages = EsViTConfig.from_pretrained(name).stage_names[1:]
        with guard_weights(name):
            backbone = EsViTBackbone.from_pretrained(name, out_features=stages)
    config = UperNetConfig(
        backbone_config=backbone.config,
        hidden_size=128,
        use_auxiliary_head=len(stages) > 2,  # the auxiliary head reads the third map
        auxiliary_in_channels=backbone.channels[:3][-1],
        auxiliary_channels=64,
        auxiliary_loss_weight=0.4,
    )
    config.num_labels = num_labels
    model = UperNetForSemanticSegmentation(config)
    model.backbone = backbone
    return model


def train(model: UperNetForSemanticSegmentation, images: Dataset, epochs: int, lr: float) -> None:
    loader = DataLoader(images, batch_size=BATCH, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * len(loader))
    model.train()
    with tqdm(total=epochs * len(loader), unit="step", desc="train") as bar:
        for _ in range(epochs):
            for pixels, labels in loader:
                loss = model(pixels, labels=labels).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}")


def compute_mean_iou(predicted: Tensor, labels: Tensor, num_labels: int) -> float:
    """Computes intersection over union, averaged over the classes."""
    hits = [
        ((predicted == c) & (labels == c)).sum() / ((predicted == c) | (labels == c)).sum() for c in range(num_labels)
    ]
    return torch.stack(hits).mean().item()


def draw(pixels: Tensor, labels: Tensor, predicted: Tensor, title: str) -> Figure:
    figure = Figure(figsize=(9, 7), layout="constrained")
    for axes, picture, name in zip(
        figure.subplots(3, 1), (pixels[0], labels, predicted), ("photograph", "truth", title), strict=True
    ):
        axes.imshow(picture, cmap="gray")
        axes.set_title(name)
        axes.axis("off")
    return figure


def main(arguments: list[str] | None = None) -> float:
    parser = ProgramParser(__doc__)
    parser.add_argument("model", type=parse_name, help="a model folder or the name of a model on the Hub")
    parser.add_argument("--output", type=parse_path, default=Path("segmentation.png"), help="the picture")
    parser.add_argument("--crops", type=int, default=200, help="training crops (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of training")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate (default: %(default)s)")
    options = parser.parse_args(arguments)
    check_picture(parser, options.output)
    check_counts(parser, options, "epochs")
    if options.crops < BATCH:
        parser.error(f"--crops must be at least {BATCH}, got {options.crops}")
    if not 0 < options.lr < math.inf:
        parser.error(f"--lr must be positive and finite, got {options.lr:g}")
    torch.manual_seed(0)
    model = build_segmenter(options.model, num_labels=2)
    train(model, Coins(options.crops), options.epochs, options.lr)
    pixels, labels = load_test_part()
    with torch.no_grad():
        predicted = model.eval()(pixels[None]).logits[0].argmax(dim=0)
    score = compute_mean_iou(predicted, labels, num_labels=2)
    picture = draw(pixels, labels, predicted, f"found, mean intersection over union {score:.1%}")
    save_figure(picture, options.output)
    print(f"mean intersection over union {score:.1%}: {options.output}")
    return score


if __name__ == "__main__":
    run_command(main)
