# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of the page for one model: matches, colours of regions, neighbours, and where a point attends."""

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)
from collection import Box, Bundled, Collection, EmptyFolderError, Entry, read_entries, read_entry
from modeling_esvit import EsViTBackboneError
from modeling_esvit.analysis.attention_maps import AttentionLayoutError, BlockAttention, block_attentions
from modeling_esvit.analysis.region_colours import fit_palette, paint
from modeling_esvit.analysis.token_places import TokenPlaces, region_stride, regions_of
from modeling_esvit.embed.engine import compute_view_features
from modeling_esvit.images.models import load_image_model
from modeling_esvit.images.transform import make_evaluation_transform
from modeling_esvit.images.whole import LONGER_SIDE, whole_image


ZOOMED = 320  # pixels of the longer side of a part that is shown enlarged
BATCH = 32

Point = tuple[int, int]  # x, y
Captioned = tuple[Image.Image, str]
HEAT = "inferno"


@dataclass(frozen=True)
class Seen:
    """Holds what the model saw.

    original: The image.
    image: Its resized form that the model saw.
    regions: The features of its regions, `[T, C]`, and their places in `image`.
    name: Of the photograph, if it is one of the collection.
    """

    original: Image.Image
    image: Image.Image
    regions: Tensor
    places: TokenPlaces
    name: str | None = None

    def find_point(self, point: Point) -> Point:
        """Returns the point of `image` for one of `original`."""
        x, y = (
            min(at * new // old, new - 1)
            for at, new, old in zip(point, self.image.size, self.original.size, strict=True)
        )
        return x, y


class Match(NamedTuple):
    """Holds the most similar point, and a picture of the searched image: heat shows similarity, a ring the point."""

    picture: Image.Image
    point: Point
    similarity: float


def draw_heat(image: Image.Image, light: Tensor) -> Image.Image:
    """Draws `light` `[H, W]` in 0..1 as heat over the grey image."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255
    heat = colormaps[HEAT](light.clamp(0, 1).numpy())[..., :3]
    return Image.fromarray((np.clip(0.35 * grey + 0.75 * heat, 0, 1) * 255).round().astype(np.uint8))


def mark_point(image: Image.Image, point: Point, colour: str = "red") -> Image.Image:
    """Returns a copy of the image with a ring around a point."""
    image = image.copy()
    line = max(max(image.size) // 150, 1)
    for radius, ink in ((6 * line, "white"), (5 * line, colour), (4 * line, "white")):
        box = [point[0] - radius, point[1] - radius, point[0] + radius, point[1] + radius]
        ImageDraw.Draw(image).ellipse(box, outline=ink, width=line)
    return image


def find_reach(maps: Tensor) -> Box:
    """Returns the box of an image in which any of the maps `[heads, H, W]` is above 0: the window of the query."""
    reached = maps.amax(dim=0) > 0
    rows, columns = (reached.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows else (0, 0, maps.shape[2], maps.shape[1])


def zoom(image: Image.Image, light: Tensor, box: Box, point: Point) -> Image.Image:
    """Draws the heat of a part of an image, with a ring at the point, enlarged to `ZOOMED` pixels if it is smaller."""
    left, upper, right, lower = box
    scale = max(ZOOMED / max(right - left, lower - upper), 1)
    width, height = round((right - left) * scale), round((lower - upper) * scale)
    part = image.crop(box).resize((width, height), Image.Resampling.BICUBIC)
    heat = F.interpolate(light[None, None, upper:lower, left:right], size=(height, width), mode="nearest-exact")[0, 0]
    return mark_point(draw_heat(part, heat), (round((point[0] - left) * scale), round((point[1] - upper) * scale)))


def outline(image: Image.Image, box: Box) -> Image.Image:
    """Returns a copy of the image with a frame around a box."""
    image = image.copy()
    line = max(max(image.size) // 150, 1)
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline="yellow", width=line)
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
    """Holds a model, and the photographs to search in as it sees them."""

    def __init__(self, name: str, size: int = LONGER_SIDE, collection: Collection | None = None) -> None:
        """Loads the model.

        Args:
            name: a model folder or a name on the Hub.
            size: pixels of the longer side of images.
            collection: what neighbours are searched in; the bundled photographs if it is left out.

        Raises:
            NoImageModelError, OSError: the model cannot be loaded.
        """
        self.size = size
        model, self.processor = load_image_model(name, {"attn_implementation": "eager"})
        self.model = model.eval().requires_grad_(False)
        self.collection = collection or Bundled()

    def prepare(self, image: Image.Image) -> Tensor:
        stride = region_stride(self.model.config)
        return whole_image(image, self.processor, longer=self.size, multiple=stride)

    @torch.inference_mode()
    def see(self, image: Image.Image, name: str | None = None) -> Seen:
        """Returns the image as the model sees it.

        Raises:
            TokenPlacesError, EsViTInputError: the model has no regions, or does not take such an image.
        """
        regions, places = regions_of(self.model, self.prepare(image))
        shown = image.resize((places.size[1], places.size[0]), Image.Resampling.BICUBIC)
        return Seen(image, shown, regions[0].float(), places, name)

    def see_photograph(self, name: str) -> Seen:
        """Returns a photograph of the collection as the model sees it.

        Raises:
            UnreadableImageError: it cannot be decoded.
        """
        return self.see(self.collection.read(name), name)

    @torch.inference_mode()
    def embed(self, images: list[Image.Image]) -> Tensor:
        """Computes view features of length 1, `[N, C]`.

        Raises:
            FeatureError: the model has no view feature.
        """
        prepare = make_evaluation_transform(self.processor)  # of a line of pixels, only what the crop sees is resized
        pixels = torch.stack([prepare(image) for image in images])
        return F.normalize(compute_view_features(self.model, pixels).float(), dim=1)

    @cached_property
    def index(self) -> tuple[list[Entry], Tensor]:
        """Embeds the collection, a batch at a time. Returns what can be read of it, and its features `[N, C]`.

        Raises:
            EmptyFolderError: nothing of it can be read.
        """
        entries, found = list[Entry](), list[Tensor]()
        images = read_entries(self.collection)
        while batch := list(itertools.islice(images, BATCH)):
            entries += [entry for entry, _ in batch]
            found.append(self.embed([image for _, image in batch]))
            if len(found) % 20 == 0:
                print(f"{len(entries):,} photographs are embedded", flush=True)
        if not found:
            raise EmptyFolderError("none of the photographs can be read.")
        return entries, torch.cat(found)

    def find_neighbours(self, seen: Seen, count: int = 8) -> list[Captioned]:
        """Finds the most similar photographs and parts of them, with their cosine similarity.

        A photograph is no neighbour of itself, nor are its parts.
        """
        entries, features = self.index
        similarity = (features @ self.embed([seen.original])[0]).tolist()
        others = [row for row, entry in enumerate(entries) if entry.photograph != seen.name]
        nearest = sorted(others, key=similarity.__getitem__, reverse=True)[:count]
        return [
            (read_entry(self.collection, entries[row]), f"{similarity[row]:.3f} {entries[row].caption}")
            for row in nearest
        ]

    def colour_regions(self, seen: list[Seen]) -> list[Image.Image]:
        """Colours the regions of each image by the principal components of all images together."""
        palette = fit_palette(torch.cat([each.regions for each in seen]))
        return [paint(palette.colours(each.regions), each.places, smooth=True) for each in seen]

    def draw_attention(self, seen: Seen, number: int, point: Point) -> tuple[Image.Image, list[Captioned]]:
        """Draws where a point attends in block `number`, counted from 1.

        Returns the image with the point and a frame around all that it can attend to, its window, and for each head a
        picture of that part.

        Raises:
            AttentionLayoutError, TokenPlacesError: there is no attention to show, or no token at the point.
        """
        found = self.attend(self.prepare(seen.original))[number - 1].query_map(*point)
        maps, shares = found.image[0], found.tokens[0].sum(dim=(1, 2)).tolist()
        box = find_reach(maps)
        pictures = [zoom(seen.image, head / head.max().clamp(min=1e-12), box, point) for head in maps]
        captions = [write_caption(number, share) for number, share in enumerate(shares, 1)]
        return mark_point(outline(seen.image, box), point), list(zip(pictures, captions, strict=True))

    def attend(self, pixels: Tensor) -> list[BlockAttention]:
        return block_attentions(self.model, pixels)

    @cached_property
    def num_blocks(self) -> int:
        """Counts the blocks whose attention can be shown: 0 if the model gives none."""
        try:
            return len(self.attend(self.prepare(Image.new("RGB", (64, 64)))))
        except (AttentionLayoutError, EsViTBackboneError):
            return 0
