# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Do the regions of a model find each other in two views of one scene?

    python examples/correspondences.py MODEL --output correspondences.png

The stereo pair of a motorcycle that ships with scikit-image (Middlebury 2014) comes with its true disparity. Each
region of the left view is matched with the most similar region (cosine) of the right view, as the region loss of EsViT
matches them (arXiv 2106.09785, equation 2), and the match is compared with the truth. The paper measures it between an
image and its mirrored, recoloured self; here the second view is a second photograph.

Left out are regions whose centre has no measured disparity, whose true position is outside the right view, or which
something nearer hides there.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, PreTrainedModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)
from modeling_esvit.region_matching import match_regions


SIZE = (1024, 1536)  # about twice the photographs' own 500 x 741, and whole regions of 8, 16, 32 or 64 pixels

Grid = tuple[int, int]  # rows, columns


class RegionGridError(ValueError):
    """The model's tokens are not a grid of square regions over the image."""


def visible_in_right(disparity: np.ndarray) -> np.ndarray:
    """Which pixels of the left view [H, W] the right view also shows.

    A left pixel x lies at x - disparity in the right view. (Measured, because scikit-image describes it the other way
    round: the pixels paired so differ by 8 levels on average, and by 48 with the other sign.) Among pixels that fall on
    one place the nearest, with the largest disparity, hides those more than one pixel of disparity behind it.
    """
    height, width = disparity.shape
    rows, columns = np.mgrid[:height, :width]
    target = np.rint(columns - np.where(np.isfinite(disparity), disparity, np.inf))
    visible = (target >= 0) & (target < width)
    place = (rows[visible], target[visible].astype(int))
    nearest = np.full((height, width), -np.inf)
    np.maximum.at(nearest, place, disparity[visible])
    visible[visible] = disparity[visible] >= nearest[place] - 1
    return visible


def true_matches(disparity: np.ndarray, grid: Grid) -> Tensor:
    """For each left region, row by row, the region of the right view that its centre falls into; -1: left out."""
    height, width = disparity.shape
    rows, columns = np.indices(grid).reshape(2, -1)
    y, x = (rows + 0.5) * height / grid[0], (columns + 0.5) * width / grid[1]
    centre = (y.astype(int), x.astype(int))
    known = visible_in_right(disparity)[centre]
    position = np.where(known, x - disparity[centre], 0.0)
    right_columns = (position * grid[1] / width).astype(int)
    known &= (position >= 0) & (position < width)
    return torch.from_numpy(np.where(known, rows * grid[1] + right_columns, -1))


def cell_distance(a: Tensor, b: Tensor, columns: int) -> Tensor:
    """How many regions apart two regions are, along the axis on which they are further apart."""
    return torch.maximum((a // columns - b // columns).abs(), (a % columns - b % columns).abs())


def score_matches(matches: Tensor, truth: Tensor, grid: Grid) -> dict[str, float]:
    """Compares matches [T] with the truth [T] (-1: left out), over a right view of `grid` regions.

    Returns, as shares in 0..1 of the `regions` that have a truth: `share` matched at most one region off (diagonals
    included), `exact` matched exactly, and beside each of them what guessing at random would reach (`chance`,
    `chance_exact`) and what matching every region with its own place would (`same_place`, `same_place_exact`).
    """
    columns, cells = grid[1], torch.arange(grid[0] * grid[1])
    known = truth >= 0
    scores: dict[str, float] = {"regions": int(known.sum())}
    guesses = {"": matches[known, None], "chance": cells[None, :], "same_place": cells[known, None]}
    for name, guess in guesses.items():
        distance = cell_distance(guess, truth[known, None], columns).float()
        scores[name or "share"] = (distance <= 1).float().mean().item()
        scores[f"{name}_exact".lstrip("_")] = (distance == 0).float().mean().item()
    return scores


def grid_of(tokens: int, size: tuple[int, int]) -> Grid:
    """The rows and columns of `tokens` square regions that cover an image of `size` (height, width).

    Raises:
        RegionGridError: no such grid exists; the model keeps class tokens, say, or its regions do not divide the size.
    """
    height, width = size
    side = round(math.sqrt(height * width / tokens))
    if height % side or width % side or (height // side) * (width // side) != tokens:
        raise RegionGridError(
            f"the model gives {tokens} tokens for an image of {height} x {width} pixels, which is no grid of square "
            "regions: choose a size that its stride divides, and a model without class tokens"
        )
    return height // side, width // side


@torch.no_grad()
def region_features(model: PreTrainedModel, images: list[Image.Image], size: tuple[int, int], mean, std) -> Tensor:
    """RGB images, resized to `size` (height, width) -> regions [len(images), T, C] of the model as it is."""
    mean, std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    features = []
    for image in images:
        resized = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        pixels = (torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255 - mean) / std
        features.append(model(pixels[None].to(model.device, model.dtype)).last_hidden_state.float().cpu())
    return torch.cat(features)


def stereo_pair() -> tuple[Image.Image, Image.Image, np.ndarray]:
    """Left view, right view, and the left view's disparity in pixels [H, W], not finite where it was not measured."""
    left, right, disparity = skimage.data.stereo_motorcycle()
    return Image.fromarray(left), Image.fromarray(right), disparity


@dataclass(frozen=True)
class Correspondences:
    """Matches of the left view's regions in the right view.

    matches, truth: region numbers [T] of the right view, row by row; truth -1 where it is left out.
    similarity: cosine [T] of each left region and its match.
    """

    grid: Grid
    matches: Tensor
    truth: Tensor
    similarity: Tensor

    def most_similar(self, count: int, apart: int = 4) -> Tensor:
        """Up to `count` left regions with a truth, the most similar matches first, at least `apart` regions apart."""
        remaining = self.truth.ge(0).nonzero()[:, 0]
        remaining = remaining[self.similarity[remaining].argsort(descending=True, stable=True)]
        chosen: list[Tensor] = []
        while len(remaining) and len(chosen) < count:
            chosen.append(remaining[0])
            remaining = remaining[cell_distance(remaining, chosen[-1], self.grid[1]) >= apart]
        return torch.stack(chosen)

    def right(self, regions: Tensor) -> Tensor:
        """Whether each of these left regions is matched at most one region off."""
        return cell_distance(self.matches[regions], self.truth[regions], self.grid[1]) <= 1


def find_correspondences(
    model: PreTrainedModel,
    *,
    size: tuple[int, int] = SIZE,
    image_mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    image_std: Sequence[float] = IMAGENET_DEFAULT_STD,
) -> Correspondences:
    """Matches the regions of the left view, resized to `size` (height, width), with those of the right view.

    Runs the model in the mode and on the device it is in.

    Raises:
        RegionGridError: the model's tokens are not a grid over `size`.
    """
    left, right, disparity = stereo_pair()
    features = region_features(model, [left, right], size, image_mean, image_std)
    grid = grid_of(features.shape[1], size)
    matches = match_regions(features[:1], features[1:])[0]
    similarity = torch.nn.functional.cosine_similarity(features[0], features[1, matches])
    return Correspondences(grid, matches, true_matches(disparity, grid), similarity)


def correspondence_share(model: PreTrainedModel, **options) -> dict[str, float]:
    """The scores of `score_matches` for a model in evaluation mode; `options` as for `find_correspondences`."""
    found = find_correspondences(model, **options)
    return score_matches(found.matches, found.truth, found.grid)


def draw(found: Correspondences, title: str, *, count: int = 40) -> Figure:
    """Both views side by side, with a line for each of `most_similar(count)`: blue is right, orange wrong."""
    left, right, _ = stereo_pair()
    gap = 20
    canvas = Image.new("RGB", (left.width + gap + right.width, left.height), "white")
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width + gap, 0))
    regions = found.most_similar(count)
    cell = np.array([left.width / found.grid[1], left.height / found.grid[0]])  # width, height
    starts = centres(regions, found.grid) * cell
    ends = centres(found.matches[regions], found.grid) * cell + [left.width + gap, 0]
    is_right = found.right(regions).numpy()

    figure = Figure(figsize=(15, 5.6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(canvas)
    axes.axis("off")
    colours = np.where(is_right, "deepskyblue", "orangered")
    axes.add_collection(LineCollection(list(np.stack([starts, ends], axis=1)), colors=colours.tolist(), linewidths=1.2))
    for points in (starts, ends):
        axes.scatter(points[:, 0], points[:, 1], s=14, c=colours, edgecolors="white", linewidths=0.5, zorder=2)
    drawn = (
        f"{len(regions)} of the most similar matches: {is_right.sum()} right (blue), {(~is_right).sum()} wrong (orange)"
    )
    axes.set_title(f"{title}\n{drawn}")
    return figure


def centres(regions: Tensor, grid: Grid) -> np.ndarray:
    """[N] -> x, y of the regions' centres [N, 2], in regions."""
    return torch.stack([regions % grid[1], regions // grid[1]], dim=1).numpy() + 0.5


def save_figure(figure: Figure, output: Path) -> None:
    """Writes `output`, in the format of its suffix, under a temporary name and renames it when it is complete."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{os.getpid()}-{output.name}")
    try:
        figure.savefig(partial, dpi=100)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def describe(scores: dict[str, float]) -> str:
    return (
        f"{scores['share']:.1%} of {scores['regions']} regions matched to within one region "
        f"(at random {scores['chance']:.1%}, same place {scores['same_place']:.1%}), {scores['exact']:.1%} exactly "
        f"({scores['chance_exact']:.1%}, {scores['same_place_exact']:.1%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or the name of a model on the Hub")
    parser.add_argument("--output", type=Path, default=Path("correspondences.png"), help="the picture")
    parser.add_argument(
        "--size", type=int, nargs=2, default=SIZE, metavar=("HEIGHT", "WIDTH"), help="of the model's input"
    )
    parser.add_argument("--lines", type=int, default=40, help="how many matches to draw, the most similar first")
    arguments = parser.parse_args()
    try:
        model = AutoModel.from_pretrained(arguments.model).eval()
        processor = AutoImageProcessor.from_pretrained(arguments.model)
        found = find_correspondences(
            model, size=tuple(arguments.size), image_mean=processor.image_mean, image_std=processor.image_std
        )
        summary = describe(score_matches(found.matches, found.truth, found.grid))
        save_figure(draw(found, summary, count=arguments.lines), arguments.output)
    except (RegionGridError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{summary}\n{arguments.output}")


if __name__ == "__main__":
    main()
