# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the images per second, parameters, floating point operations and peak memory of models.

    python training/throughput.py runs/mine/teacher swin-tiny timm:resnet50 facebook/dinov2-small
    python training/throughput.py swin-tiny swin-small@14 --output results/throughput.json --accuracy swin-tiny=77.4

A model is a folder or a name on the Hub, `timm:NAME`, or a published architecture such as swin-tiny, swin-base@14 (the
window), cvt-tiny or deit-small. Weights do not change the speed, so only configurations are fetched.

The defaults follow the paper's table, and presumably DINO's: batches of 128 images, no gradients, float32. The speed
is the median over `--batches`, after `--warmup`. Each model runs in its own process. The peak memory is that of the
tensors on a GPU, or that of the whole process on a CPU.

`--output` also draws the paper's figure of accuracy against throughput, with these models in it. The published images
per second are those of a V100. All measured ones are multiplied by one factor, so that models that are both measured
and published agree in the geometric mean. `--accuracy MODEL=PERCENT` gives a model's accuracy in the linear evaluation.
"""

import math
import platform
import statistics
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import torch
import yaml
from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from modeling_esvit.embed.compiling import OFF, ON
from modeling_esvit.images.devices import check_device
from modeling_esvit.images.precision import add_dtype_argument, name_dtype, resolve_dtype
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.paths import parse_name, parse_path
from training.evaluation.arguments import check_output
from training.evaluation.results import format_table, write_result
from training.evaluation.speed import (
    ThroughputError,
    ThroughputOptions,
    choose_device,
    load_configuration,
    measure,
)
from training.features.frozen_models import TIMM
from training.figures.throughput import draw
from training.options.command import run_command


PUBLISHED = Path(__file__).parent / "evaluation" / "published_throughput.yaml"


def measure_all(options: ThroughputOptions) -> dict[str, dict[str, Any]]:
    """Measures each model in its own process, so that none inherits memory from another.

    Raises:
        ThroughputError: one of these processes was killed.
    """
    rows = {}
    with tqdm(options.models, unit="model", dynamic_ncols=True) as bar:
        for name in bar:
            bar.set_description(name)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
                try:
                    rows[name] = executor.submit(measure, name, options).result()
                except BrokenProcessPool as error:
                    raise ThroughputError(
                        f"the process that measured {name} was killed, most often because memory ran out. Choose a "
                        f"smaller --batch_size, which is {options.batch_size}."
                    ) from error
    return rows


# -- the result --------------------------------------------------------------------------------------------------------


def describe_device(found: torch.device) -> str:
    if found.type == "cuda":
        return torch.cuda.get_device_name(found)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, threads: {torch.get_num_threads()}"


def find_factor(rows: dict[str, dict[str, Any]], table: list[dict[str, Any]]) -> float | None:
    """Returns the factor that makes measured images/s agree with the published table in the geometric mean.

    Returns None if no measured model is in the table.
    """

    def identity(row: dict[str, Any]) -> tuple[Any, ...]:
        return row.get("architecture"), row.get("window")

    known = {identity(row): row["images_per_second"] for row in reversed(table) if "architecture" in row}
    both = [known[identity(row)] / row["images_per_second"] for row in rows.values() if identity(row) in known]
    return math.exp(statistics.mean(map(math.log, both))) if both else None


def make_table(result: dict[str, Any]) -> str:
    form = f"{result['dtype']}{', compiled' if result['compile'] == ON else ''}"
    about = (
        f"{result['device']}; torch {result['torch']}, {form}, batches of {result['batch_size']}, median of "
        f"{result['batches']} after {result['warmup']}."
    )
    speed = "images/s (slowest, fastest batch)"
    header = ["model", speed, "parameters", "10^9 operations an image", "peak memory", "pixels"]
    table = format_table(header, [make_row(name, row) for name, row in result["models"].items()])
    return "\n".join([about, "", *table, "", "A product and a sum are two operations."])


def make_row(name: str, row: dict[str, Any]) -> list[str]:
    spread = f"{row['slowest_images_per_second']:.1f}, {row['fastest_images_per_second']:.1f}"
    sizes = [
        f"{row['parameters'] / 1e6:.1f}M",
        f"{row['operations'] / 1e9:.2f}",
        f"{row['peak_bytes'] / 2**20:,.0f} MiB",
    ]
    return [name, f"{row['images_per_second']:.1f} ({spread})", *sizes, str(row["image_size"])]


def read_accuracies(options: ThroughputOptions) -> dict[str, float]:
    """Returns the accuracies that `--accuracy` gives, by model.

    Raises:
        ThroughputError: one is not MODEL=PERCENT with a measured model.
    """
    found = {}
    for given in options.accuracy:
        name, _, value = given.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError as error:
            raise ThroughputError(f"--accuracy {given!r}: write MODEL=PERCENT, such as swin-tiny=77.4.") from error
        if name not in options.models or not 0 <= found[name] <= 100:
            raise ThroughputError(
                f"--accuracy {given!r}: name one of {', '.join(options.models)}, with 0 to 100 percent."
            )
    return found


# -- the command -------------------------------------------------------------------------------------------------------


def parse_arguments() -> ThroughputOptions:
    parser = ProgramParser(__doc__, first="output batch_size image_size dtype compile device accuracy")
    parser.add_argument(
        "models",
        type=parse_name,
        nargs="+",
        metavar="MODEL",
        help="model folders, names on the Hub, timm:NAME or published architectures",
    )
    parser.add_argument("--batch_size", type=int, default=128, help="images in a batch (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=30, help="timed batches (default: %(default)s)")
    parser.add_argument(
        "--warmup", type=int, default=5, help="batches that run before the timed ones (default: %(default)s)"
    )
    parser.add_argument(
        "--image_size", type=int, help="side of the images in pixels (default: each model's own, or 224)"
    )
    add_dtype_argument(parser, default="float32")
    parser.add_argument(
        "--compile", choices=(ON, OFF), default=OFF, help="compile the model, and freeze it on a CPU (default: off)"
    )
    parser.add_argument("--device", help="where the models run (default: an accelerator if there is one)")
    parser.add_argument("--threads", type=int, help="threads that compute on a CPU (default: torch's own choice)")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with a model")
    parser.add_argument(
        "--output",
        type=parse_path,
        help="write the result to this JSON file, with a table (.md) and a figure (.png) beside it",
    )
    parser.add_argument(
        "--accuracy", nargs="+", default=(), metavar="MODEL=PERCENT", help="accuracies of models, for the figure"
    )
    arguments = parser.parse_args()
    check_output(parser, arguments.output)
    check_counts(parser, arguments, "batch_size", "batches", "image_size", "threads")
    if arguments.warmup < 0:
        parser.error(f"--warmup must be at least 0, got {arguments.warmup}")
    return ThroughputOptions(**vars(arguments) | {"models": list(dict.fromkeys(arguments.models))})


def main() -> None:
    options = parse_arguments()
    check_device(options.device)
    options = replace(options, dtype=name_dtype(resolve_dtype(options.dtype, choose_device(options))))
    transformers_logging.disable_progress_bar()
    linear = read_accuracies(options)
    for name in options.models:  # finds a wrong name now, not after hours of measuring
        if not name.startswith(TIMM):
            load_configuration(name, options.trust_remote_code)
    rows = measure_all(options)
    settings = {name: getattr(options, name) for name in ("batch_size", "batches", "warmup", "dtype", "compile")}
    about = {"device": describe_device(choose_device(options)), "torch": torch.__version__, **settings}
    models = {name: row | {"linear": linear[name]} if name in linear else row for name, row in rows.items()}
    result = {**about, "models": models}
    published = read_published()
    drawing = partial(draw, published=published, factor=find_factor(models, published))
    write_result(result, "Throughput", make_table(result), options.output, draw=drawing)


def read_published() -> list[dict[str, Any]]:
    return yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_command(main)
