# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Features of images, into one file.

    python -m modeling_esvit.embed org/esvit-swin-b photographs/ --output features.parquet
    python -m modeling_esvit.embed runs/mine/teacher "holiday/*.jpg" urls.txt --output features.npz --regions
    accelerate launch --num_processes 8 -m modeling_esvit.embed MODEL my/dataset:test --output features.safetensors

MODEL is a model folder or a name on the Hub, of this project or any other whose model has a `pooler_output`. The same
call continues one that was stopped, also with another number of processes. Images that cannot be read are left out and
listed in OUTPUT.unreadable.txt; the exit code stays 0 as long as one can be read. In Python:

    from modeling_esvit.embed.embedder import Embedder, embed

    features = embed(Embedder.from_pretrained("org/esvit-swin-b"), ["photographs/"])
    features.names, features.view  # N names, and an array [N, C]
"""

import argparse
import itertools
import sys
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from modeling_esvit.embed.files import (
    FORMATS,
    Features,
    OutputError,
    Parts,
    check_output,
    joined,
    load_features,
    put_together,
)
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import UnreadableImageError, decode
from modeling_esvit.images.devices import DeviceError, check_device
from modeling_esvit.images.models import load_image_model
from modeling_esvit.images.read_ahead import in_order


try:
    from accelerate import PartialState
    from tqdm.auto import tqdm

    from modeling_esvit.embed.inputs import Images, NoImagesError, find_images
except ModuleNotFoundError as error:
    raise ImportError(f"this needs the package {error.name}: pip install 'esvit[embed]'") from error


__all__ = ["Embedder", "FeatureError", "Features", "OutputError", "embed", "embed_to_file", "load_features"]

AHEAD = 2  # batches that are read while one is computed
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Read = torch.Tensor | UnreadableImageError


class FeatureError(EsViTError, ValueError):
    """A model gives no view feature, or one that is not finite."""


USER_ERRORS = (FeatureError, OutputError, NoImagesError, OSError)


class Embedder:
    """A model with its image processor: undecoded images in, features out."""

    def __init__(self, model: PreTrainedModel, processor: Any):
        """`processor`: an image processor of transformers that makes all images one size."""
        self.model = model.eval()
        self.processor = processor

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        image_size: int | None = None,
        **kwargs,
    ) -> "Embedder":
        """Args:
            name: model folder, or name on the Hub.
            device, dtype: where and in what the model computes.
            image_size: pixels a side of what the model sees, instead of the size it was made for.
            kwargs: for both `from_pretrained`: `revision`, `trust_remote_code` and so on.

        Raises:
            OSError: see `load_image_model`.
            FeatureError: the model takes no images of that size.
        """
        model, processor = load_image_model(name, {"dtype": dtype}, **kwargs)
        embedder = cls(model.to(device or default_device()), processor)
        if image_size is not None:
            resize(processor, image_size)
            embedder.check_size(image_size)
        return embedder

    def check_size(self, side: int) -> None:
        image = self.processor(Image.new("RGB", (side, side)), return_tensors="pt")["pixel_values"][0]
        try:
            self.features([image], regions=False)
        except FeatureError:
            raise
        except (ValueError, RuntimeError) as error:
            raise FeatureError(f"{type(self.model).__name__} takes no images of {side} px: {error}") from error

    def fingerprint(self) -> int:
        return fingerprint(self.model)

    def read(self, images: Images, index: int) -> Read:
        """Pixel values `[3, H, W]`, or why there are none."""
        try:
            image = decode(images.read(index))
        except UnreadableImageError as error:
            return error
        return self.processor(image, return_tensors="pt")["pixel_values"][0]

    @torch.inference_mode()
    def features(self, pixels: list[torch.Tensor], regions: bool) -> list[torch.Tensor]:
        """View features `[B, C]` and, if asked for, regions `[B, T, C]`, still on the device.

        Raises:
            FeatureError: the model has no pooled output.
        """
        output = self.model(torch.stack(pixels).to(self.model.device, self.model.dtype, non_blocking=True))
        if getattr(output, "pooler_output", None) is None:
            raise FeatureError(f"{type(self.model).__name__} gives no pooler_output: choose a model that does.")
        hidden = output.last_hidden_state
        tokens = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden
        return [output.pooler_output.flatten(1)] + ([tokens] if regions else [])


def fingerprint(model: torch.nn.Module) -> int:
    """Tells models apart, also two of the same name: a checksum over some weights of each tensor."""
    some = [tensor.flatten()[:64].float().cpu().numpy().tobytes() for tensor in model.state_dict().values()]
    return zlib.crc32(b"".join(some))


def resize(processor: Any, side: int) -> None:
    """Let the processor make images of `side` pixels, cutting off the same share at the borders as before."""
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    if crop is not None:
        processor.size = {"shortest_edge": round(processor.size["shortest_edge"] * side / crop["height"])}
        processor.crop_size = {"height": side, "width": side}
    else:
        processor.size = {"height": side, "width": side}


def default_device() -> torch.device:
    return PartialState(cpu=not torch.accelerator.is_available()).device


def embed_part(
    embedder: Embedder,
    images: Images,
    indices: Sequence[int],
    *,
    regions: bool,
    batch_size: int,
    num_threads: int,
    bar: tqdm,
) -> Features:
    """The features of some images. What the device computes is fetched once, at the end."""
    names: list[str] = []
    unreadable: dict[str, str] = {}
    computed: list[list[torch.Tensor]] = []
    read = in_order(iter(indices), partial(embedder.read, images), threads=num_threads, ahead=AHEAD * batch_size)
    numbered = zip(indices, read, strict=True)
    while batch := list(itertools.islice(numbered, batch_size)):
        pixels = []
        for index, item in batch:
            if isinstance(item, UnreadableImageError):
                unreadable[images.name(index)] = str(item)
            else:
                names.append(images.name(index))
                pixels.append(item)
        if pixels:
            computed.append(embedder.features(pixels, regions))
        bar.update(len(batch))
    arrays = [on_host(torch.cat(tensors), names) for tensors in zip(*computed, strict=True)]
    view = arrays[0] if arrays else np.empty((0, 0), np.float32)
    return Features(names, view, arrays[1] if len(arrays) > 1 else None, unreadable)


def on_host(features: torch.Tensor, names: list[str]) -> np.ndarray:
    """In float32, or float16 where the model computes in that.

    Raises:
        FeatureError: a feature is NaN or infinite.
    """
    finite = features.flatten(1).isfinite().all(dim=1).tolist()
    if not all(finite):
        raise FeatureError(
            f"The feature of {names[finite.index(False)]} is not finite, nor are {finite.count(False) - 1} more of "
            f"{len(names)}: the weights are broken, or overflow in {features.dtype} (try --dtype bfloat16)."
        )
    return (features if features.dtype == torch.float16 else features.float()).cpu().numpy()


def embed(
    embedder: Embedder,
    inputs: Sequence[str],
    *,
    regions: bool = False,
    batch_size: int = 64,
    num_threads: int = 8,
    image_column: str | None = None,
) -> Features:
    """The features of images, in memory, by this process.

    Args:
        inputs: see `find_images`.
        regions: also those of the regions, `last_hidden_state`.
        batch_size: images that the model takes at a time.
        num_threads: that read, decode and resize images.

    Raises:
        NoImagesError, FeatureError: see their descriptions.
        OutputError: no image can be read.
    """
    images = find_images(inputs, image_column)
    options: dict[str, Any] = {"regions": regions, "batch_size": batch_size, "num_threads": num_threads}
    with tqdm(total=len(images), unit="image", desc="embed") as bar:
        return joined([embed_part(embedder, images, range(len(images)), **options, bar=bar)])


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
) -> None:
    """The features of `images` in the file `output`; to be called by all processes, which share the parts.

    Args:
        settings: names model and images; parts of a stopped call are used only if it was called with the same.
        part_size: images a part, which is what a stopped call loses at most.

    Raises:
        OutputError: the output cannot be written or continued, see there.
        FeatureError: see there.
    """
    state = PartialState(cpu=embedder.model.device.type == "cpu")
    parts = Parts(output, settings | {"regions": regions, "images": len(images), "part_size": part_size})
    with state.main_process_first():
        parts.begin()
    count = -(-len(images) // part_size)
    own = [number for number in range(count)[state.process_index :: state.num_processes] if not parts.is_done(number)]
    ranges = {number: range(number * part_size, min((number + 1) * part_size, len(images))) for number in own}
    total = sum(map(len, ranges.values()))
    options: dict[str, Any] = {"regions": regions, "batch_size": batch_size, "num_threads": num_threads}
    with tqdm(total=total, unit="image", desc="embed", disable=not state.is_main_process, dynamic_ncols=True) as bar:
        for number, indices in ranges.items():
            parts.write(number, embed_part(embedder, images, indices, **options, bar=bar))
    state.wait_for_everyone()
    if state.is_main_process:
        unreadable = put_together(parts, count, output)
        parts.delete()
        print(summary(len(images), unreadable, output))
    state.wait_for_everyone()


def summary(count: int, unreadable: dict[str, str], output: Path) -> str:
    lines = [f"{count - len(unreadable)} of {count} images: {output}"]
    lines += [f"cannot be read: {reason}" for reason in list(unreadable.values())[:10]]
    if unreadable:
        lines.append(f"{len(unreadable)} could not be read, all listed in {output.name}.unreadable.txt")
    return "\n".join(lines)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a model folder, or the name of a model on the Hub")
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="folders, files, globs, URLs, text files of paths and URLs (.txt), or data sets, NAME or NAME:SPLIT",
    )
    parser.add_argument(
        "--output", type=Path, required=True, help=f"the file; its suffix is one of {' '.join(FORMATS)}"
    )
    parser.add_argument("--regions", action="store_true", help="also the features of all regions")
    parser.add_argument("--image_column", help="of data sets, where they have several columns of images")
    parser.add_argument("--image_size", type=int, help="pixels a side, instead of the size the model was made for")
    parser.add_argument("--batch_size", type=int, default=64, help="images a process (%(default)s)")
    parser.add_argument("--part_size", type=int, default=512, help="images between two saves (%(default)s)")
    parser.add_argument("--num_threads", type=int, default=8, help="that read images, in each process (%(default)s)")
    parser.add_argument("--device", help="where the model computes (an accelerator, if there is one)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="in what it computes (%(default)s)")
    parser.add_argument("--revision", help="of a model on the Hub")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the model")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parsed = parser.parse_args(arguments)
    for name in ("batch_size", "part_size", "num_threads", "image_size"):
        value = getattr(parsed, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    try:
        check_device(parsed.device)
    except DeviceError as error:
        parser.error(str(error))
    return parsed


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    try:
        run(options)
    except USER_ERRORS as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    # Accelerate ignores the processes of torchrun on a CPU unless told that there is nothing else.
    PartialState(cpu=options.device == "cpu" or not torch.accelerator.is_available())
    check_output(options.output, options.overwrite)
    images = find_images(options.images, options.image_column)
    embedder = Embedder.from_pretrained(
        options.model,
        device=options.device,
        dtype=DTYPES[options.dtype],
        image_size=options.image_size,
        revision=options.revision,
        trust_remote_code=options.trust_remote_code,
    )
    named = ("model", "revision", "images", "image_size", "dtype")
    embed_to_file(
        embedder,
        images,
        options.output,
        settings={name: getattr(options, name) for name in named} | {"weights": embedder.fingerprint()},
        regions=options.regions,
        batch_size=options.batch_size,
        num_threads=options.num_threads,
        part_size=options.part_size,
    )
