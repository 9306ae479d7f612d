# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes features of images with one model, in memory or into a file.

from modeling_esvit.embed import Embedder, embed

embedder = Embedder.from_pretrained("org/esvit-swin-b")
features = embed(embedder, "photographs/")  # or images in memory, or a list of both
features.names, features.view               # N names, and an array [N, C]
dataset.map(embedder, batched=True)         # a column `view`
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from modeling_esvit.embed.compiling import OFF, ON, BatchForward
from modeling_esvit.embed.engine import (
    FeatureError,
    LoadedImage,
    check_finite,
    extract,
    load_ahead,
    select_view_features,
)
from modeling_esvit.embed.files import Features, OutputError, concatenate, load_features, name_report
from modeling_esvit.images.decoding import DEFAULT, DecodingOptions, Record
from modeling_esvit.images.devices import check_device, open_device
from modeling_esvit.images.models import fingerprint, load_image_model
from modeling_esvit.images.names import show_name
from modeling_esvit.images.precision import AUTO, resolve_dtype
from modeling_esvit.images.rows import find_access, read_cell
from modeling_esvit.images.transform import change_size, describe_processing, make_evaluation_transform
from modeling_esvit.images.wording import list_reasons
from modeling_esvit.storage.locks import lock


try:
    from accelerate import PartialState

    from modeling_esvit.embed.inputs import ImageInput, Images, NoImagesError, RecordsInMemory, find_images, load_input
    from modeling_esvit.embed.parts import Parts, cut_rows, make_parts, merge_parts
    from modeling_esvit.embed.progress import show_progress
except ModuleNotFoundError as error:
    message = f"this needs the package {error.name}: pip install 'esvit[embed]'"
    raise ModuleNotFoundError(message, name=error.name) from error


__all__ = ["Embedder", "FeatureError", "Features", "OutputError", "embed", "embed_to_file", "load_features"]


SHOWN = 10  # images that cannot be read and are named
CELLS = (str, bytes, dict, Image.Image, np.ndarray, type(None))  # types of images in rows; None is a missing one


class Process:
    """Remembers whether this process was forked from one that may have computed in several threads.

    The threads of its parent are not there, and torch would wait for them for ever: it is to compute in one.
    """

    is_forked = False

    @classmethod
    def note_fork(cls) -> None:
        cls.is_forked = True

    @classmethod
    def use_own_threads(cls) -> None:
        if cls.is_forked:
            torch.set_num_threads(1)
            cls.is_forked = False


if hasattr(os, "register_at_fork"):  # Windows forks no processes
    os.register_at_fork(after_in_child=Process.note_fork)


class Embedder:
    """Holds a model and its image processor: undecoded images in, features out.

    Called on a batch of rows, as by `datasets.map` and Ray Data, it returns their features. It can be pickled.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, compile: str = OFF):
        """Takes a model, an image processor of transformers that makes all images one size, and whether to compile the
        model: "auto", "on" or "off".
        """
        self.model = model.eval()
        self.processor = processor
        self.compile = compile
        self.forwards = {
            regions: BatchForward(model, partial(compute_features, model, regions), compile)
            for regions in (False, True)
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns what it was made of, to be pickled, without what is compiled, which belongs to this process."""
        return type(self), (self.model, self.processor, self.compile)

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
            ChoiceError: `dtype` or `compile` is none of these words.
            DeviceError: nothing can be computed on that device.
        """
        device = device or open_device(None).device
        check_device(str(device))
        dtype = resolve_dtype(dtype, device) if isinstance(dtype, str) else dtype
        model, processor = load_image_model(name, {"dtype": dtype}, device=device, **kwargs)
        embedder = cls(model, processor, compile)
        if image_size is not None:
            change_size(processor, image_size)
            embedder.check_size(image_size)
        return embedder

    def __call__(
        self,
        batch: Mapping[str, Any],
        image_column: str = "image",
        *,
        regions: bool = False,
        batch_size: int = 64,
        num_threads: int = 8,
        decoding: DecodingOptions = DEFAULT,
    ) -> dict[str, list[Any]]:
        """Returns the features of a batch of rows, as columns.

        Args:
            batch: columns by name, as `datasets.map(embedder, batched=True)` and Ray Data give them.
            image_column: of images, as `ImageInput` has them, or structs of `bytes` and `path`. Paths and URLs, but
                those of downloaded data sets, are opened with `DecodingOptions(allow_paths=True)` only, since a data
                set may name any file of yours.
            regions: whether to return the features of the regions, too.
            batch_size: images that the model takes at a time.
            num_threads: threads that read, decode and resize images.
            decoding: how images are decoded.

        Returns:
            `view`, of an array `[C]` for each row; `regions`, of arrays `[T, C]`, if asked for; and `unreadable`, of an
            empty text for each row, or why its image cannot be read: its features are then None.

        Raises:
            NoImagesError: there is no such column, or it holds no images.
            FeatureError: the model gives no view feature, or one that is not finite.
        """
        records = read_rows(batch, image_column, decoding)
        maker = PartEmbedder(self, RecordsInMemory(records), regions, batch_size, num_threads)
        if self.compile == ON:  # by itself it waits for as many images as repay it, and nobody knows how many come
            maker.expect(len(records))
        found = maker.make_part(maker.read(range(len(records))), lambda count: None)
        rows = {name: row for row, name in enumerate(found.names)}
        arrays: dict[str, Any] = found.arrays() if found.names else dict.fromkeys(["view"] + ["regions"] * regions)
        columns = {
            name: [array[rows[record.name]] if record.name in rows else None for record in records]
            for name, array in arrays.items()
        }
        return columns | {"unreadable": [found.unreadable.get(str(record.name), "") for record in records]}

    def check_size(self, side: int) -> None:
        """Raises a FeatureError if the model takes no images of `side` x `side` pixels."""
        try:
            self.features([self.prepare(Image.new("RGB", (side, side)))], regions=False)
        except FeatureError:
            raise
        except (ValueError, RuntimeError) as error:
            raise FeatureError(f"{type(self.model).__name__} takes no images of {side} px: {error}") from error

    def describe(self) -> dict[str, Any]:
        """Returns what features depend on beside the images: a checksum of the weights, and the image processing."""
        return {"weights": fingerprint(self.model), "processing": describe_processing(self.processor.to_dict())}

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


def read_rows(batch: Mapping[str, Any], image_column: str, decoding: DecodingOptions) -> list[Record]:
    """Returns the images of a batch of rows, each with a name of its own.

    Raises:
        NoImagesError: there is no such column, or it holds a single row, or what is no image.
    """
    if image_column not in batch:
        raise NoImagesError(f"The batch has no column {image_column!r}, only {list(batch)}: name one as image_column.")
    cells = batch[image_column]
    if isinstance(cells, str | bytes | Mapping | Image.Image):
        raise NoImagesError(f"{image_column!r} is one image, not a batch of rows: map with batched=True.")
    for row, cell in enumerate(cells):
        if not isinstance(cell, CELLS):
            raise NoImagesError(
                f"{image_column!r} has a {type(cell).__name__} in row {row}, which is no image: images are of Pillow, "
                "arrays of numpy, bytes, paths as text, or dicts of bytes and path. If the data set has a format, map "
                "dataset.with_format(None)."
            )
    options = decoding.restrict_to(find_access())
    records = [read_cell(cell, None, options) for cell in cells]
    return [
        record._replace(name=f"row {row}" + (f" ({record.name})" if record.name else ""))
        for row, record in enumerate(records)
    ]


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
        Process.use_own_threads()
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
    inputs: ImageInput | Iterable[ImageInput],
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
    return embed_images(embedder, images, regions=regions, batch_size=batch_size, num_threads=num_threads)


def embed_images(
    embedder: Embedder, images: Images, *, regions: bool = False, batch_size: int = 64, num_threads: int = 8
) -> Features:
    """Returns the features of images that are found already; see [`embed`]."""
    maker = PartEmbedder(embedder, images, regions, batch_size, num_threads)
    maker.expect(len(images))
    with show_progress("embed", len(images), "image") as bar:
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
        InUseError: another call is writing the output.
    """
    state = PartialState(cpu=embedder.model.device.type == "cpu")
    parts = Parts(output, settings | {"regions": regions, "part_size": part_size}, images.identify())
    parts.begin(anew=overwrite)
    rows = cut_rows(len(images), part_size)
    maker = PartEmbedder(embedder, images, regions, min(batch_size, part_size), num_threads)
    with lock(parts.folder, output) if state.is_main_process else nullcontext():
        make_parts(parts, rows, maker.read, maker.make_part, expect=maker.expect, description="embed")
        state.wait_for_everyone()
        if state.is_main_process:
            unreadable = merge_parts(parts, len(rows), output)
            parts.delete()
            print(summarise(images, unreadable, output))
    state.wait_for_everyone()


def summarise(images: Images, unreadable: dict[str, str], output: Path) -> str:
    first = f"{len(images) - len(unreadable)} of {len(images)} images: {show_name(str(output))}"
    return "\n".join([first, *describe_losses(images, unreadable, f", all listed in {name_report(output).name}")])


def describe_losses(images: Images, unreadable: dict[str, str], where: str = "") -> list[str]:
    """Returns lines on what features lack: images that cannot be read, and files that are not read as images."""
    lines = [f"cannot be read: {reason}" for reason in list_reasons(unreadable, SHOWN)]
    if unreadable:
        lines.append(f"{len(unreadable)} could not be read{where}")
    if images.left_out:
        lines.append(f"not read: {images.left_out.describe()}")
    return lines
