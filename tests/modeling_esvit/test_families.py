# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Backbones have the parameters of the original's and do the operations that were published."""

import pytest

import tests.benchmarks.bench_counts as bench_counts
from modeling_esvit.families import ARCHITECTURES


# Counted in the original's networks, without heads.
PARAMETERS = {
    ("swin-tiny", 7): 27_519_354,
    ("swin-tiny", 14): 27_569_754,
    ("swin-small", 7): 48_837_258,
    ("swin-small", 14): 48_968_298,
    ("swin-base", 7): 86_743_224,
    ("swin-base", 14): 86_917_944,
    ("swin-large", 7): 194_995_476,
    ("cvt-tiny", None): 29_303_616,
    ("vil-tiny", None): 27_569_352,
    ("deit-tiny", None): 5_524_416,
    ("deit-small", None): 21_665_664,
    ("vit-base", None): 85_798_656,
    ("resnet-50", None): 23_508_032,
}


FAST = {("swin-tiny", 7), ("vil-tiny", None), ("cvt-tiny", None), ("deit-small", None)}


@pytest.mark.parametrize(
    ("name", "window"),
    [
        pytest.param(*key, marks=() if key in FAST else pytest.mark.slow)
        for key in PARAMETERS
        if key[0] in ARCHITECTURES
    ],
)
def test_parameters_and_operations(name, window):
    parameters, operations = bench_counts.count(name, window)
    assert parameters == PARAMETERS[name, window]
    assert round(parameters / 1e6) == pytest.approx(bench_counts.PAPER.get(name, parameters / 1e6), abs=1)
    if window in (None, 7) and name in bench_counts.MULTIPLY_ADDS:
        assert operations / 2e9 == pytest.approx(bench_counts.MULTIPLY_ADDS[name], rel=0.03)
