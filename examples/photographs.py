# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes a labelled data set of patches from real photographs, which scikit-image and scikit-learn bring along.

    python examples/photographs.py photographs
    python examples/photographs.py few-photographs --patch_size 64 --train_per_photograph 30 --test_per_photograph 10

The program writes `photographs/train-*.parquet` and `photographs/test-*.parquet`, which `load_dataset("photographs")`
reads back without a network. The label names the photograph that a patch was cut from. Every photograph is divided
once, across its longer side, with a gap between the parts: training patches come from the left (upper) part and test
patches from the rest, so that no pixel is in both.

It leaves out pictures that are drawn, computed or binary (the colour wheel, the horse, ...), and those of 102 pixels or
less. It also leaves out the stereo pair of a motorcycle, on which `examples/correspondences.py` measures: no model
trained here should have seen it.
"""

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import numpy as np
import torch
from PIL import Image as PILImage
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package():
    import skimage.data
    from datasets import ClassLabel, Dataset, Features, Image
    from sklearn.datasets import load_sample_image

from modeling_esvit.errors import EsViTError
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.atomic import replace_folder
from modeling_esvit.storage.paths import parse_path
from training.evaluation.knn import knn_predict
from training.options.command import parse_seed, run_command


SCIKIT_IMAGE = (
    "astronaut brick camera cat cell clock coffee coins grass gravel hubble_deep_field immunohistochemistry moon page "
    "retina rocket text"
).split()
SCIKIT_LEARN = ["china", "flower"]
FEATURES = Features({"image": Image(), "label": ClassLabel(names=[*SCIKIT_IMAGE, *SCIKIT_LEARN])})

Area = tuple[int, int, int, int]  # left, upper, right, lower, as PIL counts them


class PhotographTooSmallError(EsViTError, ValueError):
    """Raised when a photograph has no room for the patches asked of it."""


class DivisionError(EsViTError, ValueError):
    """Raised when the gap or the share cannot divide a photograph."""


class OutputExistsError(EsViTError, FileExistsError):
    """Raised when the output folder exists already, as it is never written into or replaced."""


def load_photographs() -> Iterator[tuple[str, PILImage.Image]]:
    """Yields (name, RGB image) in label order. Every file is part of an installed wheel."""
    for name in SCIKIT_IMAGE:
        yield name, PILImage.fromarray(getattr(skimage.data, name)()).convert("RGB")
    for name in SCIKIT_LEARN:
        yield name, PILImage.fromarray(load_sample_image(f"{name}.jpg"))


def divide(size: tuple[int, int], *, gap: int, train_share: float) -> dict[str, Area]:
    """Returns the training and the test area of a photograph of `size` (width, height), `gap` pixels apart.

    Raises:
        DivisionError: the gap is negative, or the share is not between 0 and 1.
    """
    if gap < 0 or not 0 < train_share < 1:
        raise DivisionError(
            f"The gap is {gap} and the training share {train_share}: "
            "give a gap of at least 0 pixels and a share between 0 and 1."
        )
    width, height = size
    length = max(size)
    end = round((length - gap) * train_share)
    if width >= height:
        return {"train": (0, 0, end, height), "test": (end + gap, 0, width, height)}
    return {"train": (0, 0, width, end), "test": (0, end + gap, width, height)}


def draw_patches(area: Area, patch_size: int, count: int, rng: np.random.Generator) -> list[Area]:
    """Draws `count` different squares inside `area`, each position as likely as any other.

    Raises:
        PhotographTooSmallError: the area has fewer than `count` positions for such a square.
    """
    left, upper, right, lower = area
    columns, rows = right - left - patch_size + 1, lower - upper - patch_size + 1
    positions = max(columns, 0) * max(rows, 0)
    if count > positions:
        raise PhotographTooSmallError(
            f"an area of {right - left} x {lower - upper} pixels holds {positions} different patches of {patch_size} "
            f"pixels, and {count} were asked for: use a smaller patch size, a smaller gap or fewer patches"
        )
    corners = [(left + p % columns, upper + p // columns) for p in rng.choice(positions, count, replace=False).tolist()]
    return [(x, y, x + patch_size, y + patch_size) for x, y in corners]


def cut(photograph: PILImage.Image, name: str, square: Area) -> dict[str, object]:
    """Cuts out a patch, as `datasets` stores an image: PNG bytes, and a path that names where it was cut."""
    return encode(photograph.crop(square), f"{name}-x{square[0]:04d}-y{square[1]:04d}.png")


def encode(image: PILImage.Image, name: str) -> dict[str, object]:
    """Encodes an image as `datasets` stores it."""
    encoded = io.BytesIO()
    image.save(encoded, format="PNG", compress_level=1)
    return {"bytes": encoded.getvalue(), "path": name}


def make_split(
    split: str, *, patch_size: int, per_photograph: int, gap: int = 16, train_share: float = 0.6, seed: int = 0
) -> Dataset:
    """Makes one split ("train" or "test") as a data set with `image` and `label`, in an order shuffled by `seed`.

    Positions depend on (seed, photograph, split) alone.

    Raises:
        PhotographTooSmallError: names the photograph that has no room for the patches.
        DivisionError: the gap is negative, or the share is not between 0 and 1.
    """
    images, labels = [], []
    for label, (name, photograph) in enumerate(load_photographs()):
        area = divide(photograph.size, gap=gap, train_share=train_share)[split]
        rng = np.random.default_rng([seed, label, int(split == "test")])
        try:
            squares = draw_patches(area, patch_size, per_photograph, rng)
        except PhotographTooSmallError as error:
            raise PhotographTooSmallError(f"{split} patches of the photograph '{name}': {error}") from None
        images += [cut(photograph, name, square) for square in squares]
        labels += [label] * len(squares)
    order = np.random.default_rng(seed).permutation(len(labels))
    return Dataset.from_dict(
        {"image": [images[i] for i in order], "label": [labels[i] for i in order]}, features=FEATURES, split=split
    )


def write_photographs(
    output: Path, *, train_per_photograph: int, test_per_photograph: int, shards: int, **options
) -> None:
    """Writes both splits as `shards` parquet files each; `output` appears only when it is complete.

    The same arguments give the same bytes. `options` go to `make_split`.

    Raises:
        OutputExistsError: there is something at `output`.
        PhotographTooSmallError, DivisionError: see `make_split`.
    """
    counts = {"train": train_per_photograph, "test": test_per_photograph}
    write_splits(output, lambda split: make_split(split, per_photograph=counts[split], **options), shards)


def write_splits(out: Path, make: Callable[[str], Dataset], shards: int) -> None:
    """Writes the splits "train" and "test", as `make` returns them; `out` appears only when both are complete.

    Raises:
        OutputExistsError: there is something at `out`.
    """
    if out.exists():
        raise OutputExistsError(f"{out} exists: name another folder, or remove it first.")
    with replace_folder(out) as folder:
        for split in ("train", "test"):
            images = make(split)
            for i in range(shards):
                shard = images.shard(shards, i, contiguous=True)
                shard.to_parquet(folder / f"{split}-{i:05d}-of-{shards:05d}.parquet")


def mean_colour(pixels: torch.Tensor) -> torch.Tensor:
    """Maps pixels `[N, 3, H, W]` in 0..1 to their mean colour `[N, 6]`, on a quarter circle for each channel.

    There the cosine similarity falls with the distance of two colours; between plain RGB triples it would only compare
    hues, and all grey patches would be the same.
    """
    angle = pixels.mean(dim=(2, 3)) * (math.pi / 2)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def raw_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """Averages pixels `[N, 3, H, W]` in 0..1 down to 32 x 32 and normalises them as ImageNet's: `[N, 3072]`."""
    small = torch.nn.functional.adaptive_avg_pool2d(pixels, 32)
    mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    return ((small - mean.view(3, 1, 1)) / std.view(3, 1, 1)).flatten(1)


def stack_pixels(patches: Dataset) -> torch.Tensor:
    """Stacks the patches to pixels `[N, 3, H, W]` in 0..1."""
    pixels = torch.stack([torch.from_numpy(np.array(image)) for image in patches["image"]])
    return pixels.permute(0, 3, 1, 2) / 255


def measure_baselines(train: Dataset, test: Dataset, *, k: int = 20) -> dict[str, float]:
    """Measures k-NN top-1 accuracy (0..1) without any model, of `raw_pixels` and of `mean_colour`."""
    train_pixels, test_pixels = stack_pixels(train), stack_pixels(test)
    train_labels, test_labels = torch.tensor(train["label"]), torch.tensor(test["label"])
    accuracy = {}
    for describe in (mean_colour, raw_pixels):
        predicted = knn_predict(
            describe(train_pixels), train_labels, describe(test_pixels), k=[k], num_classes=int(train_labels.max()) + 1
        )[k][:, 0]
        accuracy[describe.__name__] = (predicted == test_labels).float().mean().item()
    return accuracy


def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("output", type=parse_path, help="the folder to write; it must not exist yet")
    parser.add_argument("--patch_size", type=int, default=96, help="side of a patch in pixels")
    parser.add_argument("--train_per_photograph", type=int, default=150, help="training patches of each photograph")
    parser.add_argument("--test_per_photograph", type=int, default=50, help="test patches of each photograph")
    parser.add_argument("--gap", type=int, default=16, help="pixels between the two parts (default: %(default)s)")
    parser.add_argument(
        "--train_share", type=float, default=0.6, help="share of each photograph for training (default: %(default)s)"
    )
    parser.add_argument("--shards", type=int, default=4, help="files of each split (default: %(default)s)")
    parser.add_argument(
        "--seed", type=parse_seed, default=0, help="seed of the positions and the order (default: %(default)s)"
    )
    arguments = parser.parse_args()
    write_photographs(**vars(arguments))
    files = list(arguments.output.glob("*.parquet"))
    size = sum(file.stat().st_size for file in files) / 1e6
    print(
        f"{arguments.output}: patches of {len(FEATURES['label'].names)} photographs, {len(files)} files, {size:.1f} MB"
    )


if __name__ == "__main__":
    run_command(main)
