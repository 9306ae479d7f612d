# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the teacher's moving average: how long it takes, and what bfloat16 would lose.

    python tests/benchmarks/bench_ema.py

The loss: a student that stands still at 1 while the teacher's weights begin at 0.9, by 2000 steps of each momentum. In
exact arithmetic the distance falls by momentum^2000.
"""

import statistics
import time

import torch
from torch import nn

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.harness import environment, table, write_json
from training.learning.optimizer import update_teacher


MOMENTA, STEPS = (0.97, 0.99, 0.996, 0.999), 2000


def by_lerp(teacher: nn.Module, student: nn.Module, momentum: float, skip: torch.Tensor) -> None:
    """Averages as before: a weight of 0 instead of a flag, so that NaN passes."""
    weight = (1 - momentum) * (1 - skip)
    with torch.no_grad():
        for averaged, current in zip(teacher.parameters(), student.parameters(), strict=True):
            averaged.lerp_(current, weight.to(averaged.dtype))


def by_where(teacher: nn.Module, student: nn.Module, momentum: float, skip: torch.Tensor) -> None:
    """Averages plainly: the average where the step counts, else the old value."""
    with torch.no_grad():
        for averaged, current in zip(teacher.parameters(), student.parameters(), strict=True):
            averaged.copy_(torch.where(skip > 0, averaged, averaged.lerp(current, 1 - momentum)))


def seconds(repeats: int = 15) -> dict[str, float]:
    """Returns medians for Swin-T with both heads of 65536 prototypes; the forms take turns."""
    networks = [EsViTForPreTraining(EsViTConfig.from_architecture("swin-tiny")) for _ in range(2)]
    forms = {"ours, fused with a flag": update_teacher, "a lerp a tensor": by_lerp, "torch.where": by_where}
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeats):
        for name, form in forms.items():
            started = time.perf_counter()
            form(*networks, 0.996, torch.zeros(()))
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[2:]) for name, values in taken.items()}


def distance_left(momentum: float, dtype: torch.dtype) -> float:
    """Returns the share of the first distance that is left after `STEPS` steps."""
    teacher, student = (nn.Linear(1, 1, bias=False, dtype=dtype) for _ in range(2))
    nn.init.constant_(teacher.weight, 0.9)
    nn.init.constant_(student.weight, 1.0)
    first = 1 - teacher.weight.item()
    for _ in range(STEPS):
        update_teacher(teacher, student, momentum, torch.zeros(()))
    return (1 - teacher.weight.item()) / first


@exit_with_message()
def main() -> None:
    times = seconds()
    print(table(["form", "ms"], ((name, f"{1000 * value:.1f}") for name, value in times.items())))
    left = {
        momentum: {
            "exact": momentum**STEPS,
            **{str(dtype): distance_left(momentum, dtype) for dtype in (torch.float32, torch.bfloat16)},
        }
        for momentum in MOMENTA
    }
    header = ["momentum", "exact", "float32", "bfloat16"]
    print(table(header, ([str(m), *(f"{value:.2%}" for value in row.values())] for m, row in left.items())))
    path = write_json("ema", {"steps": STEPS}, {"seconds": times, "distance_left": left})
    print(f"{path}; {environment()}")


if __name__ == "__main__":
    ProgramParser(__doc__).parse_args()
    main()
