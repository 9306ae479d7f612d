# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that values that no network can have are refused, each with a sentence that names field and value."""

import math

import pytest

from modeling_esvit import EsViTArchitectureError, EsViTConfig
from modeling_esvit.field_values import LARGEST_COUNT, LARGEST_COUNTS, SMALLEST_COUNTS, require_range


FLOATS = [field.name for field in EsViTConfig.__dataclass_fields__.values() if isinstance(field.default, float)]
LISTS = [name for name in SMALLEST_COUNTS if isinstance(EsViTConfig.__dataclass_fields__[name].default, tuple)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.5])
@pytest.mark.parametrize("name", FLOATS)
def test_impossible_floats(name, value):
    with pytest.raises(EsViTArchitectureError, match=f"^{name} .*{value}"):
        EsViTConfig(**{name: value})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_norm_eps": 0.0}, r"layer_norm_eps must be above 0 and at most 1, got 0\.0\."),
        ({"layer_norm_eps": 1e-300}, "got 1e-300"),  # 0 in float32
        ({"initializer_range": 2.0}, r"initializer_range must be above 0 and at most 1, got 2\.0\."),
        ({"mlp_ratio": 1e-9}, "mlp_ratio 1e-09 times the width 96 of a stage must be at least 1"),
        ({"mlp_ratio": 1e300}, r"mlp_ratio 1e\+300 times the width 96"),
        ({"mlp_ratio": 10**400}, "mlp_ratio 10+ times the width 96"),
    ],
)
def test_floats_that_no_network_can_compute_with(fields, message):
    with pytest.raises(EsViTArchitectureError, match=message):
        EsViTConfig(**fields)


def test_bounds_of_floats_themselves_are_taken():
    config = EsViTConfig(layer_norm_eps=1.0, initializer_range=1e-10, mlp_ratio=1 / 96, drop_path_rate=0)
    assert (config.layer_norm_eps, config.initializer_range) == (1.0, 1e-10)


@pytest.mark.parametrize("name", SMALLEST_COUNTS)
def test_impossible_counts(name):
    """In every family: a configuration of another one has these fields, too, at their defaults."""
    smallest, largest = SMALLEST_COUNTS[name], LARGEST_COUNTS[name]
    owner = {"stage_dims": "cvt", "patch_kernels": "cvt", "patch_paddings": "cvt", "patch_strides": "vil"}
    architecture = {"architecture": owner.get(name, "vil" if name == "global_tokens" else "swin")}
    for value in (smallest - 1, -24, largest + 1, 10**30):
        given = [1, value] if name in (*LISTS, "stage_dims") else value
        bound = f"at least {smallest}" if value < smallest else f"at most {largest}"
        with pytest.raises(EsViTArchitectureError, match=f"^{name} .*must be {bound}.*\\.$") as raised:
            EsViTConfig(**architecture, **{name: given})
        assert str(value) in str(raised.value)


def test_the_largest_count_is_that_of_int32():
    assert (4 * LARGEST_COUNT - 1) ** 2 < 2**31 <= (4 * (LARGEST_COUNT + 1) - 1) ** 2
    assert EsViTConfig(window_size=LARGEST_COUNT).window_size == LARGEST_COUNT
    assert EsViTConfig(num_prototypes=10**6).num_prototypes == 10**6


def test_an_empty_list_has_no_stages():
    with pytest.raises(EsViTArchitectureError, match=r"stage_dims \[\] must have one entry per stage\."):
        EsViTConfig(architecture="vil", stage_dims=[])
    with pytest.raises(EsViTArchitectureError, match=r"sizes \[2, 0\] must be at least 1 in every stage\."):
        require_range("sizes", [2, 0], 1, 5)


@pytest.mark.parametrize("size", [-1, 0, 100_000, (0, 224), [224, -1], (1, 2**31)])
def test_impossible_image_sizes(size):
    for fields in ({"architecture": "cvt"}, {"architecture": "auto", "backbone_config": {"model_type": "resnet"}}):
        with pytest.raises(
            EsViTArchitectureError, match=r"image_size must be at least 1 .*2147483647 pixels"
        ) as raised:
            EsViTConfig(**fields, image_size=size)
        assert str(size) in str(raised.value)


@pytest.mark.parametrize(("name", "nearest"), [("foo", ""), ("", ""), ("GELU", "gelu, "), ("gelu_nwe", "gelu_new, ")])
def test_unknown_activations(name, nearest):
    message = f"hidden_act '{name}' is no activation function of transformers; the nearest are {nearest}"
    with pytest.raises(EsViTArchitectureError, match=message):
        EsViTConfig(hidden_act=name)
