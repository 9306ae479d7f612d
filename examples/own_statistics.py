# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Gives the BatchNorms of a model the statistics of your own images. No weight changes.

    python examples/own_statistics.py MODEL my/photographs --output own-statistics

BatchNorms normalise by the mean and variance of the images of the training, in its crops and colours. The program lets
the model see your images as every evaluation shows them, and keeps their mean and variance instead (AdaBN, arXiv
1603.04779; after a training also SWA, arXiv 1803.05407). That is for search and k-NN of whole images alone: in adapt.md
k-NN gains five points, and matches of regions lose up to sixteen. `examples/adapt.py --own_statistics` measures both.
Transformers without BatchNorms have nothing to change.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import torch
from torch import Tensor, nn

from modeling_esvit.embed.engine import load_ahead, load_image, skip_unreadable, stack_pixels, take_batches
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import EmptySourceError
from modeling_esvit.images.models import load_image_model
from modeling_esvit.images.transform import make_evaluation_transform
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.atomic import replace_folder
from modeling_esvit.storage.paths import parse_name, parse_path
from modeling_esvit.storage.weights_record import write_weights_record
from training.data.named_data import open_named, split_data_name
from training.data.shard_stream import ShardStream
from training.data.sources import ImageSource
from training.data.unreadable import SkipLog
from training.features.extraction import list_items
from training.learning.running_statistics import list_batch_norms
from training.options.command import run_command
from training.state.provenance_record import find_weights_record


THREADS = 2  # that decode images
CHANGE = "The running statistics of its BatchNorms are those of other images."


class OwnStatisticsError(EsViTError, ValueError):
    """Raised when a model has no BatchNorms, batches are too small, or something is where the result belongs."""


@torch.no_grad()
def take_statistics(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replaces the running statistics of all BatchNorms by those of batches `[n, 3, H, W]`, each image counting alike.

    Returns the number of images. The rest of the model stays in evaluation mode.

    Raises:
        OwnStatisticsError: There are no BatchNorms.
    """
    norms: list[Any] = list_batch_norms(model.eval())
    if not norms:
        raise OwnStatisticsError(
            f"{type(model).__name__} has no BatchNorms, and so no statistics of images: there is nothing to change."
        )
    momenta, seen = [norm.momentum for norm in norms], 0
    for batch in batches:
        seen += len(batch)
        for norm in norms:
            norm.train()
            norm.momentum = len(batch) / seen  # 1 for the first: what was before is forgotten
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
    return seen


def read_batches(model: Any, processor: Any, source: ImageSource, batch_size: int) -> Iterator[Tensor]:
    """Yields all images that can be read as pixel values, as an evaluation has them.

    Their order is random, as a batch of one class would be normalised by what this class has in common. Shards keep
    theirs. All batches but the last are full. A single image at the end is left out: alone it may have no variance.

    Raises:
        TooManyUnreadableImagesError: More cannot be read than `SkipLog` allows.
    """
    transform, skipped = make_evaluation_transform(processor), SkipLog(len(source))
    rows = range(len(source))
    items = list_items(source, rows) if isinstance(source, ShardStream) else source.items(seed=0, epoch=0)
    loaded = load_ahead(
        items, lambda item: load_image(source.read(item), transform), batch_size=batch_size, threads=THREADS
    )
    for images in take_batches(skip_unreadable(loaded, skipped.add), batch_size):
        if len(images) > 1:
            yield stack_pixels(images, model)
    skipped.warn()


def write_own_statistics(name: str, source: ImageSource, output: Path, batch_size: int = 32) -> int:
    """Writes a model with the statistics of a source's images; returns their number. Heads are left out.

    Raises:
        OwnStatisticsError: See `take_statistics`; or something is at `output`, or `batch_size` is 1.
        EmptySourceError: No two images can be read.
        ProvenanceError: What is recorded of the model's weights is damaged.
    """
    if output.exists():
        raise OwnStatisticsError(f"{output} exists: name another folder, or remove it first.")
    if batch_size < 2:
        raise OwnStatisticsError(f"batch_size is {batch_size}, but one image has no variance: give at least 2.")
    record = find_weights_record(name)
    model, processor = load_image_model(name)
    count = take_statistics(model, read_batches(model, processor, source, batch_size))
    if not count:
        raise EmptySourceError(f"statistics take two images that can be read, and of the {len(source)} here fewer can.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with replace_folder(output) as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        write_weights_record(partial, record and record._replace(changes=f"{record.changes or ''} {CHANGE}".strip()))
    return count


def main(arguments: list[str] | None = None) -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("model", type=parse_name, help="a model folder, or the name of a model on the Hub")
    parser.add_argument("data", type=parse_name, help="images without labels: a folder or data set, DATA or DATA:SPLIT")
    parser.add_argument("--output", type=parse_path, required=True, help="the folder to write; it must not exist yet")
    parser.add_argument("--batch_size", type=int, default=32, help="images at a time")
    options = parser.parse_args(arguments)
    check_counts(parser, options, "batch_size")
    source = open_named(*split_data_name(options.data))
    count = write_own_statistics(options.model, source, options.output, options.batch_size)
    print(f"{options.output}: {options.model} with the statistics of {count} images")


if __name__ == "__main__":
    run_command(main)
