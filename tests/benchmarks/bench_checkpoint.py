# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures what it costs to record and verify the checkpoints of a Swin-T with its heads, beside saving and training.

    python tests/benchmarks/bench_checkpoint.py              # saves after each 50 steps of 8 images
    python tests/benchmarks/bench_checkpoint.py --steps 1251 --step_seconds 0.5   # with what a step takes elsewhere

A cycle is so many steps and a save. Its checksums are made once, when the checkpoint is written; a run that goes on
verifies one checkpoint, once.
"""

import statistics
import time
from collections.abc import Callable

from modeling_esvit.images.decoding_arguments import parse_count, parse_positive
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.manifest import find_damage, write_manifest
from tests.benchmarks.bench_step import our_step
from tests.benchmarks.harness import environment, table, write_json


def measure(action: Callable[[], object], repeats: int) -> float:
    """Returns the median of the seconds that an action takes."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def measure_checkpoint(batch: int, repeats: int, **options) -> dict[str, float]:
    """Returns the seconds of a step, a save, its checksums, and of verifying it, and the bytes of a checkpoint."""
    iteration = our_step(batch, **options)
    iteration()  # which makes the optimizer's moments
    run = iteration.run  # type: ignore[attr-defined]
    checkpoint = run.session.save(1)
    return {
        "step": measure(iteration, repeats),
        "save": measure(lambda: run.session.save(1), repeats),
        "record": measure(lambda: write_manifest(checkpoint), repeats),
        "verify": measure(lambda: find_damage(checkpoint), repeats),
        "bytes": float(sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())),
    }


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--steps", type=parse_count, default=50, help="steps of a cycle")
    parser.add_argument("--step_seconds", type=parse_positive, help="seconds of a step (default: as measured here)")
    parser.add_argument("--batch", type=parse_count, default=8, help="images in a step")
    parser.add_argument("--repeats", type=parse_count, default=3, help="times that each is measured")
    arguments = parser.parse_args()
    measured = measure_checkpoint(arguments.batch, arguments.repeats)
    step = arguments.step_seconds or measured["step"]
    cycle = arguments.steps * step + measured["save"]
    rows = [
        (
            name,
            f"{measured[name]:.2f}",
            f"{measured[name] / measured['bytes'] * 1e9:.2f}",
            f"{measured[name] / cycle:.2%}",
        )
        for name in ("save", "record", "verify")
    ]
    print(f"a step takes {step:.2f} s, a cycle of {arguments.steps} steps and a save {cycle:.1f} s")
    print(table([f"{measured['bytes'] / 1e9:.2f} GB", "s", "s/GB", "of a cycle"], rows))
    path = write_json(
        "checkpoint", {"steps": arguments.steps, "batch": arguments.batch}, {"cycle_seconds": cycle, **measured}
    )
    print(f"{path}; {environment()}")


if __name__ == "__main__":
    main()
