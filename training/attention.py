# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows what a model looks at: its attention over an image, a picture for each head.

    python training/attention.py MODEL image.jpg --query 120 80 --output attention.png
    python training/attention.py MODEL image.jpg --of received --blocks 2 4 12
    python training/attention.py MODEL image.jpg --mass 0.6 --sort               # as the original draws it

MODEL is a model folder or a name on the Hub, of this project or another ViT of transformers (DINO, DINOv2, ...). The
model sees the whole image, in its own proportions. Maps are in image coordinates: windows are put back together, rolled
and padded frames undone. `--of query` is where one point looks (x and y in pixels of the file), `--of class` where the
class or global token looks, `--of received` who is looked at by all. Beyond the window of the query, which is all
that it can see, the image is darkened. There is no `--dtype`: the model computes in the type of its file, since
bfloat16 would leave its attention two or three digits.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import torch
from PIL import Image
from torch import Tensor

from modeling_esvit.analysis.attention_maps import AttentionLayoutError, BlockAttention, block_attentions
from modeling_esvit.images.decoding_arguments import add_pixel_arguments, read_decoding_arguments
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.paths import parse_name, parse_path
from training.features.model_arguments import add_model_arguments
from training.features.single_image import (
    add_size_argument,
    check_picture,
    load_vision_model,
    normalise,
    open_image,
)
from training.figures.attention import HeadMaps, Point, draw_heads, make_title
from training.options.command import run_command
from training.state.figure_files import save_figure


KINDS = ("query", "class", "received")


def select_head_maps(number: int, block: BlockAttention, of: str, point: Point) -> HeadMaps:
    """Returns the maps of the only image of a batch; `point` in pixels of what the model saw."""
    if of == "received":
        tokens = block.received()[0]
        entropies = compute_entropy_bits(normalise(tokens).flatten(1))
        return HeadMaps(number, block, tokens, entropies, compute_lost_share(tokens))
    found = block.global_map() if of == "class" else block.query_map(*point)
    elsewhere = torch.cat([found.to_global[0], found.to_padding[0, :, None]], dim=1)
    everything = torch.cat([found.tokens[0].flatten(1), elsewhere], dim=1)
    tokens = found.tokens[0]
    return HeadMaps(number, block, tokens, compute_entropy_bits(everything), compute_lost_share(tokens))


def compute_entropy_bits(weights: Tensor) -> Tensor:
    return torch.special.entr(weights).sum(dim=-1) / math.log(2)


def compute_lost_share(tokens: Tensor) -> float:
    return max(1 - tokens.sum(dim=(1, 2)).mean().item(), 0.0)


def choose_blocks(numbers: Sequence[int] | None, count: int) -> list[int]:
    """Returns the numbers of the chosen blocks, from 1 on. Negative ones count from the end; the default is the last.

    Raises:
        AttentionLayoutError: there is no such block.
    """
    chosen = [number + count + 1 if number < 0 else number for number in numbers or [count]]
    wrong = [number for number, place in zip(numbers or [], chosen, strict=False) if not 1 <= place <= count]
    if wrong:
        raise AttentionLayoutError(f"There is no block {wrong[0]}; the model has blocks 1 to {count}.")
    return chosen


def parse_arguments(arguments: list[str] | None) -> Any:
    parser = ProgramParser(__doc__, first="of query blocks mass sort image_size output")
    add_model_arguments(parser, "a model folder, or the name of a model on the Hub")
    parser.add_argument("image", type=parse_name, help="an image file")
    parser.add_argument("--of", choices=KINDS, default="query", help="whose attention (default: %(default)s)")
    parser.add_argument(
        "--query", type=int, nargs=2, metavar=("X", "Y"), help="the point in pixels (default: the middle)"
    )
    parser.add_argument(
        "--blocks", type=int, nargs="+", help="blocks to draw, from 1, or from the end: -1 (default: the last one)"
    )
    parser.add_argument("--mass", type=float, help="show the smallest part that has this share, 0..1, of the attention")
    parser.add_argument("--sort", action="store_true", help="order the heads by entropy, the widest first")
    add_size_argument(parser)
    add_pixel_arguments(parser)
    parser.add_argument("--output", type=parse_path, default=Path("attention.png"), help="the picture")
    options = parser.parse_args(arguments)
    check_picture(parser, options.output, [options.image])
    if options.mass is not None and not 0 < options.mass <= 1:
        parser.error(f"--mass must be above 0 and at most 1, got {options.mass}")
    check_counts(parser, options, "image_size")
    if options.query is not None and options.of != "query":
        parser.error(f"--query has no meaning with --of {options.of}")
    return options


def scale_point(query: Sequence[int] | None, image: Image.Image, size: tuple[int, int]) -> Point:
    """Scales x, y of the file to what the model sees, `size` (height, width).

    Raises:
        AttentionLayoutError: the point is outside.
    """
    x, y = query or (image.width // 2, image.height // 2)
    if not (0 <= x < image.width and 0 <= y < image.height):
        raise AttentionLayoutError(f"--query {x} {y} is outside of the image of {image.width} x {image.height} pixels.")
    return x * size[1] // image.width, y * size[0] // image.height


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    vision, image = load_vision_model(options), open_image(options.image, read_decoding_arguments(options))
    pixels = vision.pixels(image, options.image_size)
    point = scale_point(options.query, image, (pixels.shape[2], pixels.shape[3]))
    blocks = block_attentions(vision.model, pixels)
    numbers = choose_blocks(options.blocks, len(blocks))
    maps = [select_head_maps(number, blocks[number - 1], options.of, point) for number in numbers]
    seen = image.resize((pixels.shape[3], pixels.shape[2]), Image.Resampling.BICUBIC)
    marked = point if options.of == "query" else None
    save_figure(draw_heads(seen, maps, point=marked, mass=options.mass, sort=options.sort), options.output)
    for each in maps:
        print(f"{make_title(each)}: {each.bits.mean():.2f} bits, the mean of {len(each.bits)} heads")
    print(options.output)


if __name__ == "__main__":
    run_command(main)
