# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the pretraining step on one GPU: images a second, peak memory, share of the matrix peak (MFU).

    python tests/benchmarks/bench_gpu.py                                  # Swin-T, window 7
    python tests/benchmarks/bench_gpu.py --architecture swin-base --batch 64

Ours in bf16 compiled, not compiled, and the plain reference in fp16 with a gradient scaler, as the original trained;
in turns, each in a process of its own. Goals on an H200: Swin-T 1200 images/s and 3 times the reference, Swin-B 420.
"""

import functools
import sys
import tempfile

import torch

from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.bench_step import SCHEDULES, our_step, pretraining, random_groups
from tests.benchmarks.harness import Measurement, environment, rows, table, take_turns, write_json
from tests.benchmarks.reference import ReferenceStep


# Dense 16-bit matrix peak in FLOP/s, by part of the device's name (vendors' data sheets).
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}


def on_gpu(step):
    """Returns an iteration that ends when the GPU has ended."""

    def iteration():
        value = step()
        torch.cuda.synchronize()
        return value

    return iteration


def ours(batch: int, **options):
    """Sets up our step, whose crops lie on the GPU before, as the reference's do; a run copies them beside a step."""
    return on_gpu(our_step(batch, device="cuda", mixed_precision="bf16", **options))


def reference(batch: int, **options):
    """Sets up the reference under fp16 autocast; the scaler multiplies the loss and divides the gradients."""
    with tempfile.TemporaryDirectory() as folder:
        run = pretraining(batch, folder, **options)
        student, teacher, temperature = run.student, run.teacher, run.plan.teacher_temp[0]
    del run
    groups = [group.cuda() for group in random_groups(batch, (224, 96), (2, 8))]
    step = ReferenceStep(
        student, teacher, batch, **SCHEDULES, teacher_temp=temperature, freeze_last_layer=False, half=True
    )
    return on_gpu(functools.partial(step, groups))


def flops_an_image(**options) -> float:
    """Counts matrix operations of one of our steps with one image; the backward pass takes twice the forward."""
    from torch.utils.flop_counter import FlopCounterMode

    from training.data.loader import Batch

    with tempfile.TemporaryDirectory() as folder:
        run = pretraining(1, folder, compile="off", **options)
        batch = Batch(random_groups(1, (224, 96), (2, 8)), torch.arange(1), None, {})
        with FlopCounterMode(display=False) as student, torch.no_grad():
            run.student(run.make_views(batch))
        with FlopCounterMode(display=False) as everything:
            run.compute_loss(batch, 0)  # the loss forms its gradients here as well
    return everything.get_total_flops() + 2 * student.get_total_flops()


def report(results: dict[str, Measurement], batch: int, flops: float) -> str:
    name = torch.cuda.get_device_name()
    peak = next((value for part, value in PEAKS.items() if part in name), None)
    slowest = results["reference, fp16"]
    return table(
        ["step", "images/s", "faster", "MFU"],
        (
            (
                candidate,
                f"{batch / m.median:.0f}",
                f"{slowest.median / m.median:.2f} x",
                f"{flops * batch / m.median / peak:.1%}" if peak else "unknown peak",
            )
            for candidate, m in results.items()
        ),
    )


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--architecture", default="swin-tiny", help="backbone, by its published name")
    parser.add_argument("--batch", type=parse_count, default=128, help="images in a batch")
    parser.add_argument("--repeats", type=parse_count, default=20, help="times that each is measured")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: torch finds no CUDA GPU here.")
    options = {"architecture": arguments.architecture}
    setups = {
        "reference, fp16": functools.partial(reference, arguments.batch, **options),
        "ours, bf16": functools.partial(ours, arguments.batch, compile="off", **options),
        "ours, bf16, compile": functools.partial(ours, arguments.batch, compile="on", **options),
    }
    results = take_turns(setups, repeats=arguments.repeats, warmup=3)
    flops = flops_an_image(**options)
    print(report(results, arguments.batch, flops))
    settings = {**options, "device": torch.cuda.get_device_name(), "batch": arguments.batch}
    measured = {"flops_an_image": flops, "rows": rows(results.values())}
    print(f"{write_json(f'gpu_{arguments.architecture}', settings, measured)}; {environment()}")


if __name__ == "__main__":
    main()
