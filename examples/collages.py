# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes a labelled data set of collages: pieces of bundled photographs, laid over each other like fallen leaves.

    python examples/collages.py collages
    python examples/collages.py few-collages --train 300 --test 100 --image_size 64

A patch of a photograph is mostly one texture, in which no place differs from another. A collage shows many things, each
with pixels of a real photograph, so that regions can find their own place. A scene is a few photographs, of which all
collages of its class are made. The program writes `collages/train-*.parquet` and `collages/test-*.parquet`, which
`load_dataset("collages")` reads back, and a picture of some of them beside the folder, `collages.png`. Leaves of
training and test collages come from different parts of the photographs: see `photographs.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import numpy as np
from PIL import Image as PILImage
from tqdm.auto import tqdm

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package():
    import cv2
    from datasets import ClassLabel, Dataset, Features, Image
    from matplotlib.figure import Figure

from examples.photographs import divide, encode, load_photographs, write_splits
from modeling_esvit.errors import EsViTError
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.paths import parse_path
from training.options.command import parse_seed, run_command
from training.state.figure_files import save_figure


GAP, TRAIN_SHARE = 16, 0.6  # as the photographs are divided
ROTATED = 1.3  # side of a square that holds a leaf in any direction, as a multiple of its longer side
SHOWN = 6  # scenes in the picture, and collages of each

Pixels = np.ndarray  # uint8 [h, w, 3]


class CollageError(EsViTError, ValueError):
    """Raised when there are too few photographs for the scenes, or no leaf has the size that was asked for."""


@dataclass(frozen=True)
class CollageOptions:
    """Sets what a collage looks like.

    Attributes:
        size: Side of a collage in pixels.
        scenes: Number of classes.
        photographs: Number of photographs that a scene is made of.
        leaves: Number of leaves, painted one over the other.
        smallest, largest: Longer side of the leaves in pixels; small ones are more frequent, as 1 / side**3.

    Raises:
        CollageError: a value cannot be.
    """

    size: int = 80
    scenes: int = 16
    photographs: int = 3
    leaves: int = 130
    smallest: float = 8
    largest: float = 22

    def __post_init__(self) -> None:
        if not 2 <= self.smallest < self.largest <= self.size:
            raise CollageError(
                f"leaves from {self.smallest:g} to {self.largest:g} pixels: give two sizes between 2 and the side of a "
                f"collage, {self.size}, the smaller one first."
            )


def cut_areas(split: str) -> list[Pixels]:
    """Returns the part of each photograph that belongs to "train" or "test"."""
    return [
        np.asarray(photograph.crop(divide(photograph.size, gap=GAP, train_share=TRAIN_SHARE)[split]))
        for _, photograph in load_photographs()
    ]


def draw_scenes(names: Sequence[str], options: CollageOptions) -> list[list[int]]:
    """Draws the photographs of each scene; they are the same for every seed and split.

    Raises:
        CollageError: a scene has more photographs than there are.
    """
    if options.photographs > len(names):
        raise CollageError(f"a scene of {options.photographs} photographs: there are {len(names)} in all.")
    generator = np.random.default_rng(1)
    return [generator.choice(len(names), options.photographs, replace=False).tolist() for _ in range(options.scenes)]


def cut_square(photograph: Pixels, side: int, generator: np.random.Generator) -> Pixels:
    """Cuts a square of up to `side` pixels from anywhere in a photograph."""
    side = min(side, *photograph.shape[:2])
    top, left = (int(generator.integers(length - side + 1)) for length in photograph.shape[:2])
    return photograph[top : top + side, left : left + side]


def make_leaf(photograph: Pixels, options: CollageOptions, generator: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Returns the pixels of a leaf, a little brighter or darker than the photograph, and its mask `[m, m]`."""
    low, high = options.smallest**-2, options.largest**-2
    length = (low - generator.random() * (low - high)) ** -0.5
    side = int(length * ROTATED) + 1
    piece = cut_square(photograph, int(side * generator.uniform(1.0, 2.5)), generator)
    piece = cv2.resize(piece, (side, side), interpolation=cv2.INTER_AREA)
    piece = cv2.convertScaleAbs(piece, alpha=generator.uniform(0.7, 1.2), beta=generator.uniform(0, 20))
    mask, middle = np.zeros((side, side), np.uint8), side / 2
    box = ((middle, middle), (length, length * generator.uniform(0.6, 1)), generator.uniform(0, 180))
    if generator.random() < 0.5:
        cv2.ellipse(mask, box, 1, -1)
    else:
        cv2.fillPoly(mask, [cv2.boxPoints(box).astype(np.int32)], 1)
    return piece, mask


def make_collage(photographs: Sequence[Pixels], options: CollageOptions, generator: np.random.Generator) -> Pixels:
    """Paints the leaves of a scene's photographs over one of them, the last leaf on top."""

    def choose() -> Pixels:
        return photographs[int(generator.integers(len(photographs)))]

    size = options.size
    collage = cv2.resize(cut_square(choose(), size, generator), (size, size)).copy()
    for _ in range(options.leaves):
        leaf, mask = make_leaf(choose(), options, generator)
        side = len(mask)
        top, left = generator.integers(-side // 2, size - side // 2, 2).tolist()
        rows, columns = slice(max(top, 0), min(top + side, size)), slice(max(left, 0), min(left + side, size))
        own = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        visible = mask[own].astype(bool)
        collage[rows, columns][visible] = leaf[own][visible]
    return collage


def make_split(split: str, count: int, options: CollageOptions, seed: int = 0) -> Dataset:
    """Makes `count` collages of one split ("train" or "test") as a data set with `image` and `label`.

    Each collage depends on (seed, split, its number) alone.

    Raises:
        CollageError: see `draw_scenes`.
    """
    names, areas = [name for name, _ in load_photographs()], cut_areas(split)
    scenes = draw_scenes(names, options)
    labels = [number % options.scenes for number in range(count)]
    images = []
    for number, label in enumerate(tqdm(labels, desc=f"{split} collages", unit="image", leave=False)):
        generator = np.random.default_rng([seed, number, int(split == "test")])
        pixels = make_collage([areas[photograph] for photograph in scenes[label]], options, generator)
        images.append(encode(PILImage.fromarray(pixels), f"{split}-{number:05d}.png"))
    classes = ["+".join(names[photograph] for photograph in scene) for scene in scenes]
    features = Features({"image": Image(), "label": ClassLabel(names=[f"{i:02d} {c}" for i, c in enumerate(classes)])})
    return Dataset.from_dict({"image": images, "label": labels}, features=features, split=split)


def draw_some(collages: Dataset, scenes: int) -> Figure:
    """Draws a row of collages for each of the first scenes."""
    names = collages.features["label"].names
    rows = min(scenes, len(names), SHOWN)
    figure = Figure(figsize=(1.4 * SHOWN, 1.6 * rows), layout="constrained")
    for label, part in enumerate(figure.subfigures(rows, 1, squeeze=False)[:, 0]):
        part.suptitle(names[label], fontsize=8, x=0.01, ha="left")
        cells = part.subplots(1, SHOWN)
        for cell, number in zip(cells, range(label, len(collages), len(names)), strict=False):
            cell.imshow(np.asarray(collages[number]["image"]))
        for cell in cells:
            cell.axis("off")
    return figure


def write_collages(
    out: Path, *, train: int, test: int, shards: int = 2, options: CollageOptions | None = None, seed: int = 0
) -> None:
    """Writes both splits as parquet files, and a picture of some; `out` appears only when it is complete.

    The same arguments give the same bytes.

    Raises:
        OutputExistsError: there is something at `out`.
        CollageError: see `CollageOptions` and `draw_scenes`.
    """
    options, counts, made = options or CollageOptions(), {"train": train, "test": test}, dict[str, Dataset]()

    def make(split: str) -> Dataset:
        made[split] = make_split(split, counts[split], options, seed)
        return made[split]

    write_splits(out, make, shards)
    save_figure(draw_some(made["test"], options.scenes), out.with_name(f"{out.name}.png"))


def main(arguments: list[str] | None = None) -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("output", type=parse_path, help="the folder to write; it must not exist yet")
    parser.add_argument("--train", type=int, default=3000, help="training collages (default: %(default)s)")
    parser.add_argument("--test", type=int, default=400, help="test collages (default: %(default)s)")
    parser.add_argument("--image_size", type=int, default=80, help="side in pixels (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=16, help="scenes, the classes")
    parser.add_argument("--photographs", type=int, default=3, help="photographs of each scene")
    parser.add_argument("--leaves", type=int, default=130, help="leaves of each collage")
    parser.add_argument("--smallest", type=float, default=8, help="longer side of the smallest leaves in pixels")
    parser.add_argument("--largest", type=float, default=22, help="longer side of the largest leaves in pixels")
    parser.add_argument(
        "--seed", type=parse_seed, default=0, help="seed of all draws but the scenes (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    check_counts(parser, given, "train", "test", "image_size", "scenes", "photographs", "leaves")
    looks = (given.image_size, given.scenes, given.photographs, given.leaves, given.smallest, given.largest)
    write_collages(given.output, train=given.train, test=given.test, options=CollageOptions(*looks), seed=given.seed)
    print(f"{given.output}: {given.train} training and {given.test} test collages of {given.scenes} scenes")


if __name__ == "__main__":
    run_command(main)
