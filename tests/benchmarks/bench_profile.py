# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""
Where the time goes: the share of matrix products, and how long bare `torch.mm` calls of the same shapes take here.

    python tests/benchmarks/bench_profile.py              # step, loss and extraction, ours and the references
    python tests/benchmarks/bench_profile.py --only step --batch 4

Each candidate runs in a process of its own, one after the other.
"""

import argparse
import functools
import json
import sys
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "training"), str(ROOT)]

from bench_inference import MODELS, extract  # noqa: E402
from bench_loss import our_loss, plain_loss  # noqa: E402
from bench_step import our_step, reference_step  # noqa: E402
from harness import RESULTS, environment, in_a_process, table, write_json  # noqa: E402


PRODUCTS = {
    *("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm", "aten::addmv_"),
    *("aten::mkldnn_convolution", "aten::convolution_backward", "aten::_scaled_dot_product_flash_attention_for_cpu"),
}


WARMUP = {"step": 3, "loss": 8, "inference": 8}


def factors(event) -> list[list[int]]:
    """Shapes of the two matrices of a two-dimensional product; of an `addmm` the first argument is added."""
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


def shares(setup, warmup: int) -> dict[str, float]:
    """
    After `warmup` iterations, which the allocator needs to have all its pages:

    seconds: of one iteration. products: the share of it in matrix products. linear: the share in two-dimensional ones.
    bare: the time of bare `torch.mm` calls of these shapes, of what they took.
    """
    iteration = setup()
    for _ in range(warmup):
        iteration()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        iteration()
    events = profiler.key_averages(group_by_input_shape=True)
    total = sum(event.self_cpu_time_total for event in events)
    products = [event for event in events if event.key in PRODUCTS]
    linear = [event for event in products if "mm" in event.key and factors(event)]
    taken = sum(event.self_cpu_time_total for event in linear)
    bare = sum(bare_seconds(factors(event)) * event.count for event in linear)
    return {
        "seconds": total / 1e6,
        "products": sum(event.self_cpu_time_total for event in products) / total,
        "linear": taken / total,
        "bare": bare * 1e6 / taken,
    }


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
        "inference": {name: functools.partial(extract, model, 16, 224) for name, model in MODELS.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="Of step and loss.")
    parser.add_argument("--only", nargs="*", choices=["step", "loss", "inference"])
    arguments = parser.parse_args()
    path = RESULTS / "profile.json"
    rows = json.loads(path.read_text())["rows"] if arguments.only and path.exists() else []
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
    print(f"{write_json('profile', {'batch': arguments.batch, 'rows': rows})}; {environment()}")


if __name__ == "__main__":
    main()
