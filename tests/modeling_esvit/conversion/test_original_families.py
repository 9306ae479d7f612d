# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what the shapes of original tensors tell of an architecture, and which shapes are refused."""

import random
import re

import pytest

from modeling_esvit.conversion.original_families import infer_image_size, infer_mlp_ratio
from modeling_esvit.convert_original.converter import (
    ConversionError,
)


def windows_and_shifts(window: int, image_size: int, num_stages: int) -> tuple[list[int], list[bool]]:
    maps = [image_size // 4 >> stage for stage in range(num_stages)]
    return [min(window, side) for side in maps], [side > window for side in maps]


def test_image_size_is_found_or_asked_for():
    for window in (3, 7, 12, 14):
        for true_size in range(32, 520, 4):
            windows, shifts = windows_and_shifts(window, true_size, 4)
            window_kept = max(windows)
            assert infer_image_size(windows, 4, requested=true_size) == true_size
            assert infer_image_size(windows, 4, num_positions=(true_size // 4) ** 2) // 4 == true_size // 4
            fits_224 = windows_and_shifts(window_kept, 224, 4)[0] == windows
            try:
                found = infer_image_size(windows, 4)
            except ConversionError as error:
                sizes = [int(size) for size in re.findall(r"\d+", str(error).split("that fit:")[1])]
                shown = [windows_and_shifts(window_kept, size, 4) for size in sizes]
                assert not fits_224 and all(listed == windows for listed, _ in shown)
                assert shifts in [listed for _, listed in shown] and len({str(listed) for _, listed in shown}) > 1
            else:
                assert found == 224 if fits_224 else windows_and_shifts(window_kept, found, 4) == (windows, shifts)


def test_impossible_windows():
    with pytest.raises(ConversionError, match="7-14-7"):
        infer_image_size([7, 14, 7], 4)
    with pytest.raises(ConversionError, match=r"12-12-12-12.* 224 px.* 384, 416"):
        infer_image_size([12, 12, 12, 12], 4)
    with pytest.raises(ConversionError, match="not come from images of 192 px"):
        infer_image_size([7, 7, 7, 7], 4, requested=192)


def test_mlp_ratio_gives_every_width_back():
    generator = random.Random(0)
    for _ in range(2000):
        ratio, width = generator.uniform(0.5, 8), generator.randrange(1, 200)
        found = infer_mlp_ratio(int(width * 8 * ratio), width * 8)
        assert all(int(width * 2**stage * found) == int(width * 2**stage * ratio) for stage in range(4))
