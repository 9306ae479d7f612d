# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what a dry run advises for so many images, steps and hours."""

import pytest

from training.options.pretrain_options import parse_options
from training.run.advice import advise, describe_load, suggest_prototypes


@pytest.mark.parametrize(
    "given, numbers, told",
    [
        ("", (1_280_000, 750_000, 30), ["1,280,000 images / 65,536 = 19.5 images a prototype"]),
        (
            "",
            (3000, 1900, 200),
            ["= 0.0458 images", "--num_prototypes 256 has 11.7 for each", "--recipe adapt", "200 hours"],
        ),
        ("", (192, 9000, 1), ["= 0.00293 images", "--num_prototypes 64 has 3 for each", "--recipe adapt"]),
        ("--num_prototypes 256", (3000, 1900, 20), ["= 11.7 images", "--recipe adapt", "790 epochs"]),
        ("--num_prototypes 256", (3000, 9000, 1), ["= 11.7 images", "--recipe adapt"]),
        ("--num_prototypes 256 --init_from org/x", (3000, 100, 1), ["= 11.7 images"]),
        ("--num_prototypes 64 --init_from org/x", (600, 100, 1), ["= 9.38 images", "600 images are few to adapt"]),
    ],
)
def test_a_line_for_each_thing_to_know(given, numbers, told):
    lines = list(advise(parse_options(given.split()), *numbers))
    assert len(lines) == len(told)
    assert all(part in line for part, line in zip(told, lines, strict=True)), lines


def test_prototypes_have_about_ten_images():
    assert [suggest_prototypes(images) for images in (1, 3000, 40_000, 655_360)] == [64, 256, 4096, 65536]


@pytest.mark.parametrize("policy", [None, "passive"])
def test_cores_that_others_use_are_told(monkeypatch, policy):
    monkeypatch.setattr("psutil.getloadavg", lambda: (3.06, 0.0, 0.0))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    lines = list(describe_load(4))
    assert len(lines) == (policy is None) and all("keep 3.1 of 4 cores busy" in line for line in lines)
    assert not list(describe_load(8))
