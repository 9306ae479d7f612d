# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of the page for one model: neighbours, colours of regions, attention and matches."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import skimage.data
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)
from modeling_esvit import EsViTBackboneError
from modeling_esvit.analysis.attention_maps import AttentionLayoutError, BlockAttention, block_attentions
from modeling_esvit.analysis.region_colours import fit_palette, paint
from modeling_esvit.analysis.token_places import TokenPlaces, region_stride, regions_of
from modeling_esvit.embed.engine import compute_view_features
from modeling_esvit.images.decoding import DEFAULT, DecodingOptions, Record, decode
from modeling_esvit.images.models import load_image_model
from modeling_esvit.images.whole import LONGER_SIDE, whole_image


# Part of scikit-image's wheel, so that nothing is downloaded.
PHOTOGRAPHS = (
    "astronaut brick camera cat cell clock coffee coins grass gravel hubble_deep_field immunohistochemistry moon page "
    "retina rocket text"
).split()
PARTS = 5  # squares of each photograph that can be found beside the whole: four corners and the middle
MOST_PIXELS = 1024  # longest side of an uploaded image; larger ones are reduced
BATCH = 32

Point = tuple[int, int]  # x, y
Captioned = tuple[Image.Image, str]


@dataclass(frozen=True)
class Seen:
    """Holds an image, its resized form that the model saw, the features of its regions `[T, C]`, and their places."""

    original: Image.Image
    image: Image.Image
    regions: Tensor
    places: TokenPlaces


class Match(NamedTuple):
    """Holds the most similar point, and a picture of the searched image: heat shows similarity, a ring the point."""

    picture: Image.Image
    point: Point
    similarity: float


def load_photographs() -> Iterator[tuple[str, Image.Image]]:
    """Yields a stereo pair, which no model of the demo was trained on, and single photographs, with their names."""
    left, right, _ = skimage.data.stereo_motorcycle()
    yield "motorcycle, left", Image.fromarray(left)
    yield "motorcycle, right", Image.fromarray(right)
    for name in PHOTOGRAPHS:
        yield name.replace("_", " "), Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def cut_parts(name: str, image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """Yields an image, and squares of half its shorter side."""
    yield name, image
    side = max(min(image.size) // 2, 1)
    right, lower = image.width - side, image.height - side
    corners = [(0, 0), (right, 0), (0, lower), (right, lower), (right // 2, lower // 2)]
    for number, (x, y) in enumerate(corners[:PARTS], 1):
        yield f"{name}, part {number}", image.crop((x, y, x + side, y + side))


def read_upload(path: str, options: DecodingOptions = DEFAULT) -> Image.Image:
    """Reads an RGB image, reduced to at most `MOST_PIXELS` on each side.

    Raises:
        UnreadableImageError: the file cannot be decoded.
    """

    def sufficient(size: tuple[int, int]) -> tuple[int, int]:
        scale = min(MOST_PIXELS / max(size), 1)
        return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)

    image = decode(Record(path, None, path.rpartition("/")[2], options), sufficient)
    if max(image.size) > MOST_PIXELS:
        image = image.resize(sufficient(image.size), Image.Resampling.BICUBIC)
    return image


def draw_heat(image: Image.Image, light: Tensor) -> Image.Image:
    """Draws `light` `[H, W]` in 0..1 as heat over the grey image."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255
    heat = colormaps["inferno"](light.clamp(0, 1).numpy())[..., :3]
    return Image.fromarray((np.clip(0.35 * grey + 0.75 * heat, 0, 1) * 255).round().astype(np.uint8))


def mark_point(image: Image.Image, point: Point, colour: str = "red") -> Image.Image:
    """Returns a copy of the image with a ring around a point."""
    image = image.copy()
    line = max(max(image.size) // 150, 1)
    for radius, ink in ((6 * line, "white"), (5 * line, colour), (4 * line, "white")):
        box = [point[0] - radius, point[1] - radius, point[0] + radius, point[1] + radius]
        ImageDraw.Draw(image).ellipse(box, outline=ink, width=line)
    return image


def clip_below_median(values: Tensor) -> Tensor:
    """Scales values to 0..1, and those below the median to 0, to show only the regions that stand out."""
    middle = values.median()
    return (values - middle).clamp(min=0) / (values.max() - middle).clamp(min=1e-12)


def write_caption(number: int, share: float) -> str:
    """Names a head, with its share of attention on the image if the rest is on padding, class or global tokens."""
    return f"head {number}" if share > 0.995 else f"head {number} ({share:.0%} here)"


def match(source: Seen, target: Seen, point: Point) -> Match:
    """Finds the region of `target` that is most similar, by cosine, to the region of `source` at a point.

    Raises:
        TokenPlacesError: there is no region at the point.
    """
    query = source.regions[source.places.token_at(*point)]
    similarity = F.cosine_similarity(target.regions, query[None], dim=1)
    best = int(similarity.argmax())
    maps = clip_below_median(similarity).view(1, 1, *target.places.grid)
    light = F.interpolate(maps, size=target.places.size, mode="bicubic")[0, 0]
    x, y = target.places.centre(best)
    found = (int(x), int(y))
    return Match(mark_point(draw_heat(target.image, light), found, "deepskyblue"), found, similarity[best].item())


class Explorer:
    """Holds a model, and the bundled photographs as it sees them."""

    def __init__(self, name: str, size: int = LONGER_SIDE) -> None:
        """Loads the model.

        Args:
            name: a model folder or a name on the Hub.
            size: pixels of the longer side of images.

        Raises:
            NoImageModelError, OSError: the model cannot be loaded.
        """
        self.size = size
        model, self.processor = load_image_model(name, {"attn_implementation": "eager"})
        self.model = model.eval().requires_grad_(False)
        self.photographs = dict(load_photographs())
        self.collection = [part for each in self.photographs.items() for part in cut_parts(*each)]

    def prepare(self, image: Image.Image) -> Tensor:
        stride = region_stride(self.model.config)
        return whole_image(image, self.processor, longer=self.size, multiple=stride)

    @torch.inference_mode()
    def see(self, image: Image.Image) -> Seen:
        """Returns the image as the model sees it.

        Raises:
            TokenPlacesError, EsViTInputError: the model has no regions, or does not take such an image.
        """
        regions, places = regions_of(self.model, self.prepare(image))
        shown = image.resize((places.size[1], places.size[0]), Image.Resampling.BICUBIC)
        return Seen(image, shown, regions[0].float(), places)

    @torch.inference_mode()
    def embed(self, images: list[Image.Image]) -> Tensor:
        """Computes view features of length 1, `[N, C]`.

        Raises:
            FeatureError: the model has no view feature.
        """
        found = []
        for start in range(0, len(images), BATCH):
            pixels = self.processor(images[start : start + BATCH], return_tensors="pt")["pixel_values"]
            found.append(F.normalize(compute_view_features(self.model, pixels).float(), dim=1))
        return torch.cat(found)

    @cached_property
    def collection_views(self) -> Tensor:
        return self.embed([image for _, image in self.collection])

    def find_neighbours(self, image: Image.Image, count: int = 8) -> list[Captioned]:
        """Finds the most similar bundled photographs and parts of them, with their cosine similarity."""
        similarity, rows = (self.collection_views @ self.embed([image])[0]).topk(min(count, len(self.collection)))
        return [
            (self.collection[row][1], f"{score:.3f} {self.collection[row][0]}")
            for score, row in zip(similarity.tolist(), rows.tolist(), strict=True)
        ]

    def colour_regions(self, seen: list[Seen]) -> list[Image.Image]:
        """Colours the regions of each image by the principal components of all images together."""
        palette = fit_palette(torch.cat([each.regions for each in seen]))
        return [paint(palette.colours(each.regions), each.places, smooth=True) for each in seen]

    def draw_attention(self, seen: Seen, number: int, point: Point) -> list[Captioned]:
        """Draws where a point attends in block `number`, counted from 1: a picture for each head.

        Raises:
            AttentionLayoutError, TokenPlacesError: there is no attention to show, or no token at the point.
        """
        block = self.attend(self.prepare(seen.image))[number - 1]
        found = block.query_map(*point)
        shares = found.tokens[0].sum(dim=(1, 2)).tolist()
        return [
            (mark_point(draw_heat(seen.image, head / head.max().clamp(min=1e-12)), point), write_caption(number, share))
            for number, (head, share) in enumerate(zip(found.image[0], shares, strict=True), 1)
        ]

    def attend(self, pixels: Tensor) -> list[BlockAttention]:
        return block_attentions(self.model, pixels)

    @cached_property
    def num_blocks(self) -> int:
        """Counts the blocks whose attention can be shown: 0 if the model gives none."""
        try:
            return len(self.attend(self.prepare(Image.new("RGB", (64, 64)))))
        except (AttentionLayoutError, EsViTBackboneError):
            return 0
