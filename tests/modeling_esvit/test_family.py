# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the parts that the rows of all families share."""

from types import SimpleNamespace

import pytest

from modeling_esvit import EsViTConfig
from modeling_esvit.family import (
    TokenGrid,
    find_region_stride,
    list_stages,
    make_patch_grid,
    require_heads,
    require_stages,
)


CONFIG = SimpleNamespace(depths=[1, 2], num_heads=[2, 3], stage_widths=lambda: [8, 16])


def test_pixels_beyond_the_last_whole_patch_are_not_seen():
    assert make_patch_grid(2, 3, 16) == TokenGrid(2, 3, 16, 8.0, (32, 48))


@pytest.mark.parametrize("name, stride", [("swin-tiny", 32), ("deit-tiny", 16), ("resnet-50", 32)])
def test_region_stride(name, stride):
    assert find_region_stride(EsViTConfig.from_architecture(name)) == stride


def test_stages_have_names_and_widths():
    assert list_stages(CONFIG) == {"stem": 8, "stage1": 8, "stage2": 16}


@pytest.mark.parametrize(
    "check, message",
    [
        (lambda: require_stages(CONFIG, sizes=[3]), r"depths \[1, 2\] and sizes \[3\] must have one entry per stage"),
        (lambda: require_stages(CONFIG, sizes=None), "and sizes None must have one entry"),
        (lambda: require_heads(CONFIG), r"num_heads\[1\]=3 must divide the width 16 of stage 1"),
    ],
)
def test_values_that_cannot_be_are_named(check, message):
    with pytest.raises(ValueError, match=message):
        check()
