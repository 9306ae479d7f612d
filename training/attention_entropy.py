# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures how widely a model looks: the entropy of its attention over many images, for each block and head.

    python training/attention_entropy.py MODEL photographs/ --output entropy.json
    torchrun --nproc_per_node 2 training/attention_entropy.py MODEL my/dataset:test --output entropy.json

IMAGES are folders, files, globs, URLs, lists of these (.txt), or data sets, `NAME` or `NAME:SPLIT`, without labels too.
MODEL is a model folder or a name on the Hub, of this project or another ViT of transformers.

The entropy of a query's weights a is -sum a log2 a, in bits: 0 for a head that looks at one token, log2 of the number
of keys for one that looks at all alike. It is averaged over the queries of an image, and then over the images. Beside
the JSON file are a table (.md) and a picture (.png). There is no `--dtype`: the model computes in the type of its file,
since bfloat16 would leave its attention two or three digits.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import torch
from torch import Tensor

from modeling_esvit.images.data_errors import EmptySourceError
from modeling_esvit.programs.packages import exit_without_package


with exit_without_package("pip install -e '.[training]'"):
    from accelerate import PartialState
    from accelerate.utils import gather_object

    from modeling_esvit.embed.inputs import Images, find_images, load_input

from modeling_esvit.analysis.attention_maps import BlockAttention, block_attentions
from modeling_esvit.embed.engine import load_ahead, skip_unreadable, stack_pixels, take_batches
from modeling_esvit.embed.progress import show_progress
from modeling_esvit.images.decoding_arguments import add_decoding_arguments, read_decoding_arguments
from modeling_esvit.images.devices import open_device
from modeling_esvit.images.transform import make_evaluation_transform
from modeling_esvit.images.wording import show_number, show_reasons
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.atomic import write_text
from modeling_esvit.storage.paths import parse_name, parse_path
from training.evaluation.arguments import check_output
from training.evaluation.result_files import ENDINGS, write_result_file
from training.evaluation.results import format_table
from training.features.model_arguments import add_model_arguments
from training.features.single_image import VisionModel, load_vision_model
from training.figures.attention import draw_entropies
from training.options.command import run_command
from training.state.figure_files import save_figure


@dataclass
class BlockEntropies:
    """Holds the entropies of one block.

    grid: of its tokens.
    keys: how many a query has.
    bits: of each image and head, `[N, heads]`, float64.
    """

    grid: tuple[int, int]
    keys: int
    bits: Tensor

    def row(self, number: int) -> dict[str, Any]:
        """Returns bits: of each head the mean over the images, their mean, and what uniform attention would have."""
        heads, spread = self.bits.mean(dim=0), self.bits.std(dim=0, correction=0)
        return {
            **{"block": number, "grid": list(self.grid), "uniform": math.log2(self.keys), "mean": heads.mean().item()},
            **{"heads": heads.tolist(), "spread_over_images": spread.tolist()},
        }


def measure_block(block: BlockAttention) -> BlockEntropies:
    return BlockEntropies(block.places.grid, block.parts[0].keys.shape[1], block.entropy().double().cpu())


def compute_attention_entropies(
    model: Any, batches: Iterator[Tensor], after_batch: Callable[[int], object] = lambda count: None
) -> list[BlockEntropies]:
    """Returns the entropies of each block, for batches of pixel values `[B, 3, H, W]` of one size.

    Raises:
        AttentionLayoutError: see `block_attentions`.
    """
    found: list[BlockEntropies] = []
    for pixels in batches:
        blocks = [measure_block(block) for block in block_attentions(model, pixels)]
        for index, block in enumerate(blocks):
            if len(found) < len(blocks):
                found.append(block)
            else:
                found[index].bits = torch.cat([found[index].bits, block.bits])
        after_batch(len(pixels))
    return found


def read_batches(
    vision: VisionModel, images: Images, own: range, batch_size: int, threads: int, unreadable: dict[str, str]
) -> Iterator[Tensor]:
    """Yields the pixel values of this process's readable images. The reasons of the others go into `unreadable`."""
    prepare = make_evaluation_transform(vision.processor)
    loaded = load_ahead(iter(own), partial(load_input, images, prepare), batch_size=batch_size, threads=threads)
    for batch in take_batches(skip_unreadable(loaded, unreadable.update), batch_size):
        yield stack_pixels(batch, vision.model)


def merge_shares(shares: list[list[BlockEntropies]]) -> list[BlockEntropies]:
    """Merges the shares of all processes; one that had no image has no blocks."""
    blocks = zip(*(share for share in shares if share), strict=True)
    return [BlockEntropies(each[0].grid, each[0].keys, torch.cat([one.bits for one in each])) for each in blocks]


def render_table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table in Markdown."""
    lines = []
    for row in rows:
        numbers = [row["mean"], min(row["heads"]), max(row["heads"]), row["uniform"]]
        lines.append([str(row["block"]), "{} x {}".format(*row["grid"]), *(f"{number:.2f}" for number in numbers)])
    header = ["block", "tokens", "mean, bits", "narrowest head", "widest head", "uniform"]
    return "\n".join(format_table(header, lines))


def measure(vision: VisionModel, images: Images, batch_size: int, threads: int) -> dict[str, Any]:
    """Measures the images, which all processes share; all must call it.

    Raises:
        EmptySourceError: no image can be read. AttentionLayoutError: see `block_attentions`.
    """
    state, unreadable = PartialState(), dict[str, str]()
    own = range(len(images))[state.process_index :: state.num_processes]
    with show_progress("attention", len(own), "image", shown=state.is_main_process) as bar:
        batches = read_batches(vision, images, own, batch_size, threads, unreadable)
        found = merge_shares(gather_object([compute_attention_entropies(vision.model, batches, bar.update)]))
    unreadable = dict(gather_object(list(unreadable.items())))
    if not found:
        raise EmptySourceError(f"0 of {show_number(len(images), 'images')} can be read: {show_reasons(unreadable)}")
    rows = [block.row(number) for number, block in enumerate(found, 1)]
    return {"images": len(found[0].bits), "unreadable": [*unreadable.values()], "blocks": rows}


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = ProgramParser(__doc__, first="output batch_size workers device")
    add_model_arguments(parser, "a model folder, or the name of a model on the Hub")
    add_decoding_arguments(parser)
    parser.add_argument(
        "images", type=parse_name, nargs="+", metavar="IMAGES", help="folders, files, globs, URLs, lists, data sets"
    )
    parser.add_argument("--batch_size", type=int, default=16, help="images in a batch of each process")
    parser.add_argument("--workers", type=int, default=4, help="threads of each process that read images")
    parser.add_argument(
        "--output",
        type=parse_path,
        default=Path("entropy.json"),
        help="the JSON file; beside it, a table and a picture",
    )
    options = parser.parse_args(arguments)
    check_counts(parser, options, "batch_size", "workers")
    if options.output.suffix != ".json":
        parser.error(f"--output {options.output} must end in .json; table and picture are written beside it")
    check_output(parser, options.output)
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    state = open_device(options.device)
    images = find_images(options.images, options=read_decoding_arguments(options))
    if images.left_out and state.is_main_process:
        print(f"Not read: {images.left_out.describe()}.")
    result = measure(load_vision_model(options), images, options.batch_size, options.workers)
    if state.is_main_process:
        write(options.model, options.images, result, options.output)
    state.destroy_process_group()


def write(model: str, images: list[str], result: dict[str, Any], output: Path) -> None:
    title = f"Attention entropy of {model}, {result['images']} images"
    if result["unreadable"]:
        title += f" ({len(result['unreadable'])} could not be read)"
    text = render_table(result["blocks"])
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = [output.stem + ending for ending in ENDINGS]
    write_result_file(output, {"model": model, "data": images, **result}, beside)
    write_text(output.with_suffix(".md"), f"# {title}\n\n{text}\n")
    save_figure(draw_entropies(result["blocks"], title), output.with_suffix(".png"))
    print(f"{title}\n\n{text}\n\n{output}")


if __name__ == "__main__":
    run_command(main)
