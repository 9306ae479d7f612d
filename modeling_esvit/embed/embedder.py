# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes features of images with one model, in memory or into a file.

from modeling_esvit.embed import Embedder, embed

features = embed(Embedder.from_pretrained("org/esvit-swin-b"), ["photographs/"])
features.names, features.view  # N names, and an array [N, C]
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from modeling_esvit.embed.compiling import OFF, BatchForward
from modeling_esvit.embed.engine import (
    FeatureError,
    LoadedImage,
    check_finite,
    extract,
    load_ahead,
    select_view_features,
)
from modeling_esvit.embed.files import Features, OutputError, concatenate, load_features
from modeling_esvit.images.decoding import DEFAULT, DecodingOptions
from modeling_esvit.images.devices import open_device
from modeling_esvit.images.models import fingerprint, load_image_model
from modeling_esvit.images.names import show_name
from modeling_esvit.images.precision import AUTO, resolve_dtype
from modeling_esvit.images.transform import make_evaluation_transform


try:
    from accelerate import PartialState
    from tqdm.auto import tqdm

    from modeling_esvit.embed.inputs import Images, find_images, load_input
    from modeling_esvit.embed.parts import Parts, cut_rows, make_parts, merge_parts
except ModuleNotFoundError as error:
    raise ImportError(f"this needs the package {error.name}: pip install 'esvit[embed]'") from error


__all__ = ["Embedder", "FeatureError", "Features", "OutputError", "embed", "embed_to_file", "load_features"]


class Embedder:
    """Holds a model and its image processor: undecoded images in, features out."""

    def __init__(self, model: PreTrainedModel, processor: Any, compile: str = OFF):
        """Takes a model, an image processor of transformers that makes all images one size, and whether to compile the
        model: "auto", "on" or "off".
        """
        self.model = model.eval()
        self.processor = processor
        self.forwards = {
            regions: BatchForward(model, partial(compute_features, model, regions), compile)
            for regions in (False, True)
        }

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str = AUTO,
        compile: str = AUTO,
        image_size: int | None = None,
        **kwargs,
    ) -> "Embedder":
        """Loads a model and its image processor.

        Args:
            name: model folder, or name on the Hub.
            device: where the model computes.
            dtype: in what type it computes. "auto" is bfloat16 where the device computes it natively, else float32.
            compile: "on", "off", or "auto": once the images to come repay the time that it takes.
            image_size: pixels a side of what the model sees, instead of the size it was made for.
            kwargs: for both `from_pretrained`: `revision`, `trust_remote_code` and so on.

        Raises:
            OSError: see `load_image_model`.
            FeatureError: the model takes no images of that size.
        """
        device = device or open_device(None).device
        dtype = resolve_dtype(dtype, device) if isinstance(dtype, str) else dtype
        model, processor = load_image_model(name, {"dtype": dtype}, **kwargs)
        embedder = cls(model.to(device), processor, compile)
        if image_size is not None:
            resize(processor, image_size)
            embedder.check_size(image_size)
        return embedder

    def check_size(self, side: int) -> None:
        """Raises a FeatureError if the model takes no images of `side` x `side` pixels."""
        try:
            self.features([self.prepare(Image.new("RGB", (side, side)))], regions=False)
        except FeatureError:
            raise
        except (ValueError, RuntimeError) as error:
            raise FeatureError(f"{type(self.model).__name__} takes no images of {side} px: {error}") from error

    def fingerprint(self) -> int:
        return fingerprint(self.model)

    def prepare(self, image: Image.Image) -> torch.Tensor:
        return make_evaluation_transform(self.processor)(image)

    def expect(self, images: int, batch_size: int, regions: bool) -> None:
        """Notes how many images come, in batches of what size, so that compiling the model can be weighed."""
        self.forwards[regions].expect(images, batch_size)

    def features(self, pixels: list[torch.Tensor], regions: bool) -> list[torch.Tensor]:
        """Returns view features `[B, C]` and, if asked for, regions `[B, T, C]`, still on the device.

        Raises:
            FeatureError: the model has no pooled output.
            CompileError: the model cannot be compiled, and is to be.
        """
        stacked = torch.stack(pixels).to(self.model.device, self.model.dtype, non_blocking=True)
        return list(self.forwards[regions](stacked))


def compute_features(model: PreTrainedModel, regions: bool, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Returns view features `[B, C]` and, if asked for, regions `[B, T, C]` of pixel values `[B, 3, H, W]`."""
    output = model(pixels)
    hidden = output.last_hidden_state
    tokens = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden
    return [select_view_features(model, output)] + ([tokens] if regions else [])


def resize(processor: Any, side: int) -> None:
    """Makes the processor produce images of `side` pixels, cutting off the same share at the borders as before."""
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    if crop is not None:
        processor.size = {"shortest_edge": round(processor.size["shortest_edge"] * side / crop["height"])}
        processor.crop_size = {"height": side, "width": side}
    else:
        processor.size = {"height": side, "width": side}


@dataclass(frozen=True)
class PartEmbedder:
    """Computes the features of some of many images.

    Attributes:
        regions: whether to keep the features of the regions, too.
        batch_size: images that the model takes at a time.
        num_threads: threads that read, decode and resize images.
    """

    embedder: Embedder
    images: Images
    regions: bool
    batch_size: int
    num_threads: int

    def expect(self, images: int) -> None:
        """Notes how many images this process computes in all, see [`Embedder.expect`]."""
        self.embedder.expect(images, self.batch_size, self.regions)

    def read(self, rows: range) -> Iterator[LoadedImage]:
        load = partial(load_input, self.images, self.embedder.prepare)
        return load_ahead(iter(rows), load, batch_size=self.batch_size, threads=self.num_threads)

    def make_part(self, images: Iterator[LoadedImage], after_batch: Callable[[int], object]) -> Features:
        """Returns the features of the images.

        Raises:
            FeatureError: a feature is not finite, or the model has none.
        """
        compute = partial(embed_batch, self.embedder, self.regions)
        found = extract(images, compute, batch_size=self.batch_size, after_batch=after_batch)
        for features in found.outputs:
            check_finite(features, found.names.__getitem__, features.dtype)
        arrays = [copy_to_host(features) for features in found.outputs]
        view = arrays[0] if arrays else np.empty((0, 0), np.float32)
        return Features(found.names, view, arrays[1] if len(arrays) > 1 else None, found.unreadable)


def embed_batch(embedder: Embedder, regions: bool, images: list[LoadedImage]) -> list[torch.Tensor]:
    return embedder.features([image.pixels for image in images], regions)


def copy_to_host(features: torch.Tensor) -> np.ndarray:
    """Returns float32, or float16 if the model computes in that."""
    return (features if features.dtype == torch.float16 else features.float()).cpu().numpy()


def embed(
    embedder: Embedder,
    inputs: Sequence[str],
    *,
    regions: bool = False,
    batch_size: int = 64,
    num_threads: int = 8,
    image_column: str | None = None,
    decoding: DecodingOptions = DEFAULT,
    config_name: str | None = None,
) -> Features:
    """Returns the features of images, in memory, computed by this process.

    Args:
        inputs: see `find_images`.
        regions: whether to keep the features of the regions, `last_hidden_state`, too.
        batch_size: images that the model takes at a time.
        num_threads: threads that read, decode and resize images.
        image_column: of data sets, where they have several.
        decoding: how images are decoded, and what the rows of data sets may open.
        config_name: of data sets on the Hub, where they have several.

    Raises:
        NoImagesError: an input names no image.
        FeatureError: the model gives no view feature, or one that is not finite.
        OutputError: no image can be read.
    """
    images = find_images(inputs, image_column, decoding, config_name)
    maker = PartEmbedder(embedder, images, regions, batch_size, num_threads)
    maker.expect(len(images))
    with tqdm(total=len(images), unit="image", desc="embed") as bar:
        return concatenate([maker.make_part(maker.read(range(len(images))), bar.update)])


def embed_to_file(
    embedder: Embedder,
    images: Images,
    output: Path,
    *,
    settings: dict[str, Any],
    regions: bool = False,
    batch_size: int = 64,
    num_threads: int = 8,
    part_size: int = 512,
    overwrite: bool = False,
) -> None:
    """Writes the features of `images` to the file `output`. All processes must call it; they share the parts.

    Args:
        settings: names model and images; parts of a stopped call are used only if its settings were the same, and the
            images still are (see `Identity`).
        part_size: images a part, which is what a stopped call loses at most.
        overwrite: begin anew where the parts of a stopped call cannot be used.

    Raises:
        OutputError: the output cannot be written or continued.
        FeatureError: the model gives no view feature, or one that is not finite.
    """
    state = PartialState(cpu=embedder.model.device.type == "cpu")
    parts = Parts(output, settings | {"regions": regions, "part_size": part_size}, images.identify())
    parts.begin(anew=overwrite)
    rows = cut_rows(len(images), part_size)
    maker = PartEmbedder(embedder, images, regions, min(batch_size, part_size), num_threads)
    make_parts(parts, rows, maker.read, maker.make_part, expect=maker.expect, description="embed")
    state.wait_for_everyone()
    if state.is_main_process:
        unreadable = merge_parts(parts, len(rows), output)
        parts.delete()
        print(summarise(images, unreadable, output))
    state.wait_for_everyone()


def summarise(images: Images, unreadable: dict[str, str], output: Path) -> str:
    lines = [f"{len(images) - len(unreadable)} of {len(images)} images: {show_name(str(output))}"]
    lines += [f"cannot be read: {reason}" for reason in list(unreadable.values())[:10]]
    if unreadable:
        lines.append(f"{len(unreadable)} could not be read, all listed in {output.name}.unreadable.txt")
    if images.left_out:
        lines.append(f"not read: {images.left_out.describe()}")
    return "\n".join(lines)
