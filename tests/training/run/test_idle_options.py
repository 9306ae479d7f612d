# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a run says which of its options do nothing."""

import pytest

from tests.helpers.tiny_runs import tiny
from training.options.pretrain_options import parse_options
from training.run.checks import check_run
from training.run.idle_options import describe_idle_options


@pytest.mark.parametrize(
    "given, said",
    [
        ("--region_matching_switch 0.9", "region_matching_switch 0.9 (is for region_matching location_then_feature)"),
        ("--region_matching_switch 0.9 --region_matching location_then_feature", ""),
        ("--region_weight 0.7 --task view", "region_weight 0.7 (is for task view+region)"),
        ("--region_weight 0.7", ""),
        ("--vil_mode_switch 0.5", "vil_mode_switch 0.5 (is for vil_mode 1)"),
        ("--vil_mode_switch 0.5 --architecture vil-tiny --vil_mode 0", "vil_mode_switch 0.5 (is for vil_mode 1)"),
        ("--vil_mode_switch 0.5 --architecture vil-tiny --vil_mode 1", ""),
        (
            "--local_crop_sizes 64 --local_crops_numbers 0",
            "local_crop_sizes [64] (is for local crops, of which there are none)",
        ),
        (
            "--warmup_teacher_temp 0.02 --warmup_teacher_temp_epochs 0",
            "warmup_teacher_temp 0.02 (is for warm-ups of it (warmup_teacher_temp_epochs))",
        ),
        ("--knn_k 3 --knn_every 1", ""),
    ],
)
def test_options_that_do_nothing(given, said):
    line = describe_idle_options(parse_options(given.split()), is_stream=True)
    assert line == ([f"without effect   = {said}"] if said else [])


def test_a_run_says_them(images, tmp_path):
    given = "--knn_k 3 --shuffle_window 5 --stream_retry_seconds 9"
    described = check_run(parse_options(tiny(images, tmp_path / "run", given))).describe(1)
    assert (
        "without effect   = knn_k [3] (is for knn_every), shuffle_window 5 (is for streams), "
        "stream_retry_seconds 9.0 (is for streams)"
    ) in described
