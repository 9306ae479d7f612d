# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares steps with stochastic depth to the plain step, which is given the same factors.

The golden trajectory of the original has none: its draws cannot be repeated. Here every factor that our step draws is
recorded, and the plain form of `tests/benchmarks`, one pass for each crop size and branch after branch, takes the one
of the same block, branch, crop and image.
"""

from collections import defaultdict

import pytest
import torch

import tests.benchmarks.bench_step as bench_step
import tests.benchmarks.reference_parts as reference_parts
from modeling_esvit.tokens import EsViTDropPath


STRONG = {"clip_grad": 1e-3, "weight_decay": 1.0, "lr": 1e-3, "momentum_teacher": 0.9}  # they show, see test_benchmarks
HEADS = {"num_prototypes": 64, "head_hidden_size": 16, "head_bottleneck_size": 8}
FAMILIES = {
    "swin": {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2]},
    "cvt": {
        **{"architecture": "cvt-tiny", "embed_dim": 8, "stage_dims": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
        "num_heads": [1, 2, 2, 4],
    },
    "vil": {
        **{"architecture": "vil-tiny", "embed_dim": 8, "image_size": 64, "depths": [1, 1, 2, 1]},
        "num_heads": [1, 1, 2, 2],
    },
    "vit": {"architecture": "deit-tiny", "embed_dim": 8, "depths": [3], "num_heads": [2]},
}
BATCH, STEPS, NUMBERS = 4, 4, (2, 3)  # images, steps, global and local crops


class Recorder:
    """Records the factors that our step draws, and hands them to the plain step.

    A block is known by its rate, which no other block of a network has; of a block's two branches attention is first.
    Ours draws once for all crops of a branch, the plain form for each size of crops anew.
    """

    def __init__(self):
        self.drawn = defaultdict(list)  # rate -> factors `[crops * images]` of each branch
        self.given = defaultdict(int)  # (rate, branch) -> how many of them the plain form has taken
        self.calls = defaultdict(int)
        self.steps = 0

    def record(self, module: EsViTDropPath, factors: torch.Tensor) -> torch.Tensor:
        if len(self.drawn[module.rate]) == 2:
            self.begin_step()
        self.drawn[module.rate].append(factors.clone())
        return factors

    def begin_step(self) -> None:
        self.check_step()
        for table in (self.drawn, self.given, self.calls):
            table.clear()

    def check_step(self) -> None:
        """Every block drew a factor for each crop of each image, twice, and the plain form has taken all of them."""
        number = BATCH * sum(NUMBERS)
        assert self.drawn and all([len(each) for each in two] == [number] * 2 for two in self.drawn.values())
        assert self.given == {(rate, branch): number for rate in self.drawn for branch in range(2)}
        assert all(not torch.equal(*two) for two in self.drawn.values())
        self.steps += 1

    def hand_over(self, rate: float, branch: torch.Tensor) -> torch.Tensor:
        place = (rate, self.calls[rate] % 2)
        self.calls[rate] += 1
        start = self.given[place]
        self.given[place] += len(branch)
        return (self.drawn[rate][place[1]][start : self.given[place]] > 0).to(branch.dtype)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_with_drop_path_equal_the_plain_form(family, monkeypatch):
    recorder, draw = Recorder(), EsViTDropPath.draw
    monkeypatch.setattr(EsViTDropPath, "draw", lambda self, *rest: recorder.record(self, draw(self, *rest)))
    monkeypatch.setattr(reference_parts, "draw_kept", recorder.hand_over)
    monkeypatch.setattr(bench_step, "SCHEDULES", {**bench_step.SCHEDULES, **STRONG})
    options = {"sizes": (64, 32), "numbers": NUMBERS, "drop_path_rate": 0.5, **HEADS, **FAMILIES[family]}
    differences = bench_step.largest_difference(BATCH, steps=STEPS, drop_path=True, **options)
    recorder.check_step()
    assert recorder.steps == STEPS
    assert differences["loss"] < 1e-5 and differences["teacher"] < 1e-5 and differences["student"] < 1e-4
