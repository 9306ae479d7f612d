# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures how cost grows: of the step, of extraction with the image size, and of k-NN with the bank.

    python tests/benchmarks/bench_growth.py                     # about half an hour on two cores
    python tests/benchmarks/bench_growth.py --only prototypes

Swin-T, window 7, fp32. At each point all candidates take turns, each in a process of its own.
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import time

import torch

from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.bench_inference import MODELS, extract
from tests.benchmarks.bench_step import our_step, pretraining, random_groups, reference_step
from tests.benchmarks.harness import ALLOCATORS, environment, peak_memory, table, take_turns, write_json


STEPS = {"ours": our_step, "reference": reference_step}


def measure(value: int, setups: dict, repeats: int) -> list[dict]:
    """Measures one point of a curve: all candidates take turns."""
    results = take_turns(setups, repeats=repeats)
    return [
        {"name": name, "value": value, "seconds": result.median, "peak_bytes": result.peak_bytes}
        for name, result in results.items()
    ]


def steps(batch: int, **options) -> dict:
    """Lists the steps, with the reference up to 8 images only: more need more memory than a small machine has."""
    names = STEPS if batch <= 8 else ["ours"]
    return {name: functools.partial(STEPS[name], batch, **options) for name in names}


def by_batch(repeats: int) -> list[dict]:
    """Measures seconds a step."""
    return [row for batch in (1, 2, 4, 8, 16) for row in measure(batch, steps(batch), repeats)]


def by_prototypes(repeats: int) -> list[dict]:
    return [
        row
        for prototypes in (1024, 4096, 16384, 65536, 262144)
        for row in measure(prototypes, steps(2, num_prototypes=prototypes), repeats)
    ]


def by_image_size(repeats: int) -> list[dict]:
    """Measures with global crops of this size, and local ones of 3/7 of it, as 96 is of 224."""
    return [
        row
        for size in (112, 160, 224, 320, 448)
        for row in measure(size, steps(2, sizes=(size, size * 3 // 28 * 4)), repeats)
    ]


def by_processes(repeats: int) -> list[dict]:
    """Measures four images a step in one process with all cores and in two with half of them; memory is of one."""
    rows = []
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), __file__]
        environment = {
            **os.environ,
            **ALLOCATORS["glibc, tuned"],
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
        }
        arguments = ["--one_of", str(4 // processes), "--repeats", str(repeats)]
        output = subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, text=True, env=environment)
        seconds, peak = output.stdout.split()[-2:]
        rows.append({"name": "ours", "value": processes, "seconds": float(seconds), "peak_bytes": int(peak)})
    return rows


def one_process(batch: int, repeats: int) -> None:
    """Runs the part of one process of `by_processes`; the first prints its median and its peak memory."""
    import tempfile

    from training.data.loader import Batch

    with tempfile.TemporaryDirectory() as folder:
        # As many images as both processes take.
        run = pretraining(4, folder, local_batch=batch)
        item = Batch(random_groups(batch, (224, 96), (2, 8)), torch.arange(batch), None, {})
        seconds = []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            run.train_step([item], 0)
            seconds.append(time.perf_counter() - started)
        if run.accelerator.is_main_process:
            print(statistics.median(seconds[1:]), peak_memory())


def inference_by_size(repeats: int) -> list[dict]:
    """Measures with one image."""
    names = ("ours", "timm, fused attention", "transformers, sdpa")
    return [
        row
        for size in (224, 448, 896, 1344, 1792)
        for row in measure(size, {name: functools.partial(extract, MODELS[name], 1, size) for name in names}, repeats)
    ]


def knn(bank: int):
    from training.evaluation.knn import knn_predict

    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(bank + 1000, 768, generator=generator), dim=-1)
    labels = torch.randint(0, 1000, (bank,), generator=generator)
    return functools.partial(knn_predict, features[:bank], labels, features[bank:], k=[20], num_classes=1000)


def knn_by_bank(repeats: int) -> list[dict]:
    """Measures 1000 images looked up, 768 features, 1000 classes, k = 20."""
    return [
        row
        for bank in (1000, 4000, 16000, 64000, 256000)
        for row in measure(bank, {"ours": functools.partial(knn, bank)}, repeats)
    ]


SWEEPS = {
    "batch": (by_batch, "images a process"),
    "prototypes": (by_prototypes, "prototypes K (batch 2)"),
    "image_size": (by_image_size, "pixels of a global crop (batch 2)"),
    "processes": (by_processes, "processes (4 images a step)"),
    "inference": (inference_by_size, "pixels of an image"),
    "knn": (knn_by_bank, "images in the bank"),
}


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--only", nargs="*", choices=SWEEPS, default=list(SWEEPS), help="what grows")
    parser.add_argument("--repeats", type=parse_count, default=3, help="times that each is measured")
    parser.add_argument("--one_of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_of:
        return one_process(arguments.one_of, arguments.repeats)
    for name in arguments.only:
        sweep, unit = SWEEPS[name]
        rows = sweep(arguments.repeats)
        print(
            table(
                [unit, "", "s", "peak GB"],
                ((r["value"], r["name"], f"{r['seconds']:.3f}", f"{r['peak_bytes'] / 1e9:.2f}") for r in rows),
            )
        )
        print(write_json(f"growth_{name}", {"unit": unit}, {"rows": rows}))
    print(environment())


if __name__ == "__main__":
    main()
