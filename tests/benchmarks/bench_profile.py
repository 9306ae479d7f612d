# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the share of matrix products, and how long bare `torch.mm` calls of the same shapes take here.

    python tests/benchmarks/bench_profile.py              # step, loss and extraction, ours and the references
    python tests/benchmarks/bench_profile.py --only step --batch 4

Each candidate runs in a process of its own, one after the other.
"""

import functools
import json
import time

import torch
from torch.profiler import ProfilerActivity, profile

from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.bench_inference import MODELS, extract
from tests.benchmarks.bench_loss import our_loss, plain_loss
from tests.benchmarks.bench_step import our_step, reference_step
from tests.benchmarks.harness import RESULTS, environment, in_a_process, table, write_json


PRODUCTS = {
    *("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm", "aten::addmv_"),
    *("aten::mkldnn_convolution", "aten::convolution_backward", "aten::_scaled_dot_product_flash_attention_for_cpu"),
}


WARMUP = {"step": 3, "loss": 8, "inference": 8}


def factors(event) -> list[list[int]]:
    """Returns the shapes of the two matrices of a product; of an `addmm` the first argument is added."""
    shapes = event.input_shapes[1:3] if "addmm" in event.key else event.input_shapes[:2]
    return shapes if all(len(shape) == 2 for shape in shapes) else []


def bare_seconds(shapes: list[list[int]], repeats: int = 5) -> float:
    a, b = (torch.randn(shape) for shape in shapes)
    out = torch.empty(len(a), b.shape[1])
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def shares(setup, warmup: int, repeats: int = 5) -> dict[str, float]:
    """Profiles an iteration, and returns the profile with the median time of `repeats`.

    After `warmup` iterations the allocator has all its pages; the profiler's own first events cost some more.

    Returns:
        seconds: Of one iteration, by the clock.
        products: The share of it in matrix products, a convolution and (extraction with sdpa) fused attention included.
        linear: The share in two-dimensional ones.
        bare: The time of bare `torch.mm` calls of these shapes, the fastest of five, of what they took.
    """
    iteration = setup()
    for _ in range(warmup):
        iteration()
    profiles = sorted((profiled(iteration) for _ in range(repeats)), key=lambda pair: pair[0])
    seconds, events = profiles[repeats // 2]
    total = seconds * 1e6
    products = [event for event in events if event.key in PRODUCTS]
    linear = [event for event in products if "mm" in event.key and factors(event)]
    taken = total_time(linear)
    return {
        "seconds": seconds,
        "products": total_time(products) / total,
        "linear": taken / total,
        "bare": bare_total(linear) * 1e6 / taken,
    }


def profiled(iteration) -> tuple[float, list]:
    """Returns the seconds by the clock, and the events."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        started = time.perf_counter()
        iteration()
        seconds = time.perf_counter() - started
    return seconds, list(profiler.events())


def total_time(events: list) -> float:
    """Returns the total time in microseconds."""
    return sum(event.self_cpu_time_total for event in events)


def bare_total(events: list) -> float:
    """Returns the seconds that bare products of the same shapes take, one for each event that did compute."""
    shapes = {str(factors(event)): factors(event) for event in events}
    bare = {name: bare_seconds(pair) for name, pair in shapes.items()}
    # A recomputation ends at its last product, whose result nobody needs: listed, but stopped before it computes.
    return sum(
        seconds for event in events if event.self_cpu_time_total * 1e-6 > 0.1 * (seconds := bare[str(factors(event))])
    )


def candidates(batch: int) -> dict[str, dict]:
    return {
        "step": {
            "reference": functools.partial(reference_step, batch),
            "ours": functools.partial(our_step, batch),
        },
        "loss": {
            "plain": functools.partial(plain_loss, batch, 65536),
            "ours": functools.partial(our_loss, batch, 65536),
        },
        "inference": {
            name: functools.partial(extract, model, 16, 224, "plain", torch.float32) for name, model in MODELS.items()
        },
    }


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--batch", type=parse_count, default=8, help="Of step and loss.")
    parser.add_argument("--only", nargs="*", choices=["step", "loss", "inference"], help="parts (default: all)")
    arguments = parser.parse_args()
    saved = json.loads((RESULTS / "profile.json").read_text())
    rows = saved["rows"] if arguments.only and saved["batch"] == arguments.batch else []
    rows = [row for row in rows if row["name"].split(",")[0] not in (arguments.only or [])]
    for kind, setups in candidates(arguments.batch).items():
        if arguments.only and kind not in arguments.only:
            continue
        for name, setup in setups.items():
            rows.append({"name": f"{kind}, {name}", **in_a_process(functools.partial(shares, setup, WARMUP[kind]))})
    print(
        table(
            ["", "s", "in matrix products", "in linear layers and prototypes", "bare torch.mm of the same"],
            (
                (r["name"], f"{r['seconds']:.2f}", *(f"{r[key]:.0%}" for key in ("products", "linear", "bare")))
                for r in rows
            ),
        )
    )
    print(f"{write_json('profile', {'batch': arguments.batch}, {'rows': rows})}; {environment()}")


if __name__ == "__main__":
    main()
