# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of the page for one model: matches, colours of regions, neighbours, and where a point attends."""

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)
from collection import Box, Bundled, Collection, Entry, read_entry
from modeling_esvit import EsViTBackboneError
from modeling_esvit.analysis.attention_maps import AttentionLayoutError, BlockAttention, block_attentions
from modeling_esvit.analysis.region_colours import fit_palette, paint
from modeling_esvit.analysis.token_places import TokenPlaces, region_stride, regions_of
from modeling_esvit.embed.embedder import Embedder
from modeling_esvit.embed.engine import compute_view_features
from modeling_esvit.embed.reuse import embed_or_reuse
from modeling_esvit.images.decoding import UnreadableImageError
from modeling_esvit.images.models import load_image_model
from modeling_esvit.images.transform import make_evaluation_transform
from modeling_esvit.images.whole import LONGER_SIDE, whole_image


ZOOMED = 320  # pixels of the longer side of a part that is shown enlarged
REGIONS = 28  # along the longer side, for the colours: of fewer, one sees no shapes
PROBED = 8  # photographs by which is known what cosines are by chance
USUAL = 0.9  # the share of regions for which the best match by chance is below
NEAR_COPY = 0.95  # cosine from which two photographs are about the same picture
PAIRS = 24  # that are looked at for the first visit
COMPARED = 2000  # photographs among which pairs are looked for

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


def make_light(cosines: Tensor) -> Tensor:
    """Returns the light 0..1 of regions: from the median up, and the best is as bright as its cosine is high, since it
    would look like a match if it were always white.
    """
    return cosines.max().clamp(min=0) * clip_below_median(cosines)


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
    maps = make_light(similarity).view(1, 1, *target.places.grid)
    light = F.interpolate(maps, size=target.places.size, mode="bicubic")[0, 0]
    x, y = target.places.centre(best)
    found = (int(x), int(y))
    return Match(mark_point(draw_heat(target.image, light), found, "deepskyblue"), found, similarity[best].item())


def find_pairs(features: Tensor) -> Iterator[tuple[float, int, int]]:
    """Yields (cosine, row, row) of features `[N, C]` of length 1 that are each other's nearest, but no near copies."""
    similarity = features @ features.T
    similarity.fill_diagonal_(-1)
    similarity[similarity >= NEAR_COPY] = -1
    found, nearest = similarity.max(dim=1)
    for row, other in enumerate(nearest.tolist()):
        if row < other and nearest[other] == row and found[row] > -1:
            yield found[row].item(), row, other


class Explorer:
    """Holds a model, and the photographs to search in as it sees them."""

    def __init__(
        self,
        name: str,
        size: int = LONGER_SIDE,
        collection: Collection | None = None,
        features: Path | None = None,
    ) -> None:
        """Loads the model.

        Args:
            name: a model folder or a name on the Hub.
            size: pixels of the longer side of images.
            collection: what neighbours are searched in; the bundled photographs if it is left out.
            features: the file of the collection's features, see `embed_or_reuse`.

        Raises:
            NoImageModelError, OSError: the model cannot be loaded.
        """
        self.size = size
        model, self.processor = load_image_model(name)
        model.set_attn_implementation("eager")  # here, since backbones of timm warn of it where they are made
        self.model = model.eval().requires_grad_(False)
        self.stride = region_stride(self.model.config)
        self.collection = collection or Bundled()
        self.features = features

    def prepare(self, image: Image.Image, size: int | None = None) -> Tensor:
        return whole_image(image, self.processor, longer=size or self.size, multiple=self.stride)

    @torch.inference_mode()
    def see(self, image: Image.Image, name: str | None = None, size: int | None = None) -> Seen:
        """Returns the image as the model sees it, with a longer side of `size` pixels if that is given.

        Raises:
            TokenPlacesError, EsViTInputError: the model has no regions, or does not take such an image.
        """
        regions, places = regions_of(self.model, self.prepare(image, size))
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
        """Returns what can be read of the collection, and its features `[N, C]`, embedded or from their file.

        Raises:
            OutputError: nothing of it can be read, or the file is of other images or another model.
        """
        if self.features is None or not self.features.exists():
            print(f"embeds {self.collection.describe()}", flush=True)
        images = self.collection.open()
        embedder = Embedder(self.model, self.processor)
        found = embed_or_reuse(embedder, images, self.features, self.collection.decoding)
        entries = {images.name(row): entry for row, entry in enumerate(self.collection.entries)}
        features = torch.from_numpy(found.view.astype(np.float32))  # a copy, since what a file gives may be read-only
        return [entries[name] for name in found.names], F.normalize(features, dim=1)

    @property
    def searched(self) -> str:
        """Says what is searched in."""
        return self.collection.describe(len(self.index[0]))

    @cached_property
    def names(self) -> list[str]:
        """Returns the names of the photographs that can be read."""
        return list(dict.fromkeys(entry.photograph for entry in self.index[0]))

    def choose_pair(self) -> tuple[str, str]:
        """Returns the names of two photographs for the first visit: of one scene or kind, as far as the model knows.

        These are two that are each other's nearest, without being about the same picture. Of the nearest of these
        pairs, the one with the most pixels is taken: a photograph has more than a part of it.
        """
        if isinstance(self.collection, Bundled) or len(self.names) < 2:
            return self.names[0], self.names[1 % len(self.names)]
        entries, features = self.index
        rows = torch.linspace(0, len(entries) - 1, min(len(entries), COMPARED)).long().tolist()
        pairs = sorted(find_pairs(features[rows]), reverse=True)[:PAIRS]
        named = [(entries[rows[a]].photograph, entries[rows[b]].photograph) for _, a, b in pairs]
        return max(named, key=self.count_pixels, default=(self.names[0], self.names[1]))

    def count_pixels(self, pair: tuple[str, str]) -> int:
        """Returns how many pixels the smaller of two photographs has on the page; 0 if one cannot be read any more."""
        try:
            sizes = [self.collection.read(name).size for name in pair]
        except UnreadableImageError:
            return 0
        return min(width * height for width, height in sizes)

    @cached_property
    def chance(self) -> float | None:
        """Returns a cosine that `USUAL` of all regions do not find in another photograph, whatever it shows; None of a
        single photograph.
        """
        chosen = torch.linspace(0, len(self.names) - 1, min(len(self.names), PROBED)).long().tolist()
        seen = list[Tensor]()
        for row in chosen:
            with suppress(UnreadableImageError):  # it may have more pixels than the page takes, and embed took it
                seen.append(F.normalize(self.see_photograph(self.names[row]).regions, dim=1))
        best = [(ours @ theirs.T).amax(dim=1) for ours, theirs in itertools.permutations(seen, 2)]
        return torch.cat(best).quantile(USUAL).item() if best else None

    def find_neighbours(self, seen: Seen, count: int = 8) -> list[Captioned]:
        """Finds the most similar photographs and parts of them, with their cosine similarity.

        A photograph is no neighbour of itself, nor are its parts.
        """
        entries, features = self.index
        similarity = (features @ self.embed([seen.original])[0]).tolist()
        others = [row for row, entry in enumerate(entries) if entry.photograph != seen.name]
        nearest = sorted(others, key=similarity.__getitem__, reverse=True)
        return list(itertools.islice(self.caption(entries, nearest, similarity), count))

    def caption(self, entries: list[Entry], rows: list[int], similarity: list[float]) -> Iterator[Captioned]:
        """Yields the images of rows with captions; one that the page cannot read, as embed could, is left out."""
        for row in rows:
            try:
                image = read_entry(self.collection, entries[row])
            except UnreadableImageError as error:
                print(f"cannot be read: {error}", flush=True)
                continue
            yield image, f"{similarity[row]:.3f} {entries[row].caption}"

    def colour_regions(self, seen: list[Seen]) -> list[Image.Image]:
        """Colours the regions of each image by the principal components of all images together.

        Images are enlarged, to twice the size at most, where their regions would be too few to show shapes.
        """
        size = min(max(self.size, REGIONS * self.stride), 2 * self.size)
        seen = [self.see(each.original, each.name, size) for each in seen]
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
