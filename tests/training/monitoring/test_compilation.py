# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the clock runs while torch compiles, and only then."""

import torch

from training.monitoring.compilation import CompilationClock


def test_the_clock_counts_compilations_until_it_is_closed():
    started = []
    clock = CompilationClock(lambda: started.append(clock.seconds))
    double = torch.compile(lambda x: 2 * x, backend="eager", dynamic=False)
    double(torch.ones(2))
    assert clock.count == len(started) == 1 and clock.seconds > 0
    assert clock.take() == clock.seconds and clock.take() == 0
    double(torch.ones(2))
    assert clock.count == 1
    clock.close()
    clock.close()
    double(torch.ones(3))
    assert clock.count == 1
