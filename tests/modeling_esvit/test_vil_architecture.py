# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The original's strings for a ViL, and what a configuration of one must satisfy."""

import re

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from modeling_esvit import EsViTArchitectureError, EsViTConfig, EsViTModel
from modeling_esvit.vil_embedding import EsViTViLPositionedEmbedding


PUBLISHED = (
    "l1,h3,d96,n2,s1,g1,p4,f7,a0_l2,h6,d192,n2,s1,g1,p2,f7,a0_l3,h12,d384,n6,s0,g1,p2,f7,a0_l4,h24,d768,n2,s0,g0,p2,"
    "f7,a0"
)


def test_published_string():
    assert EsViTConfig.from_architecture(PUBLISHED, drop_path_rate=0.1) == EsViTConfig.from_architecture("vil-tiny")


def test_position_embeddings_are_the_default_of_a_string():
    """The string that stands in the file of the original's smaller ViL, and its number of parameters there."""
    config = EsViTConfig.from_architecture(
        "l1,h3,d96,n1,s1,g1,p4,f7_l2,h3,d192,n2,s1,g1,p2,f7_l3,h6,d384,n8,s0,g1,p2,f7_l4,h12,d768,n1,s0,g0,p2,f7"
    )
    assert config.absolute_positions == [1, 1, 1, 1]
    with torch.device("meta"):
        model = EsViTModel(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 23_866_752
    assert not [name for name, _ in [*model.named_parameters(), *model.named_buffers()] if "relative" in name]
    assert all(parameter.numel() for parameter in model.parameters())


def test_stages_with_and_without_position_embeddings(tmp_path):
    config = EsViTConfig.from_architecture("l1,a1_l2,a0,g0_l3,s0,a0_l4,g0,s0,a1", image_size=64)
    config.save_pretrained(tmp_path)
    assert EsViTConfig.from_pretrained(tmp_path).absolute_positions == config.absolute_positions == [1, 0, 0, 1]
    with torch.device("meta"):
        stages = EsViTModel(config).encoder.stages()
    assert [isinstance(stage.embedding, EsViTViLPositionedEmbedding) for stage in stages] == [True, False, False, True]
    assert [stage[1].attn.has_biases for stage in stages] == [False, True, True, False]


def test_a_file_without_position_embeddings_does_not_name_them(tmp_path):
    """So that it is the file of versions that did not know them."""
    config = EsViTConfig.from_architecture("vil-tiny", absolute_positions=[0, 0, 0, 0])
    assert config == EsViTConfig.from_architecture("vil-tiny") and config.absolute_positions is None
    config.save_pretrained(tmp_path)
    assert "absolute_positions" not in (tmp_path / "config.json").read_text()
    assert EsViTConfig.from_pretrained(tmp_path).absolute_positions is None


def test_widths_that_do_not_double_and_defaults():
    config = EsViTConfig.from_architecture("l1,d48,p4,a0_l2,d96,n4,f7,a0_l3,h8,d256,s0,g0,a0", vil_mode=3)
    assert config.stage_widths() == [48, 96, 256] and config.hidden_size == 256
    assert (config.num_heads, config.depths) == ([3, 3, 8], [1, 4, 1])
    assert (config.sparse_stages, config.global_tokens) == ([1, 1, 0], [1, 1, 0])
    assert (config.patch_strides, config.window_size, config.vil_mode) == ([4, 2, 2], 7, 3)
    assert config.region_grid(224, 100) == (14, 6)


@pytest.mark.parametrize(
    "text, message",
    [
        ("l1,h3,d96,x2,a0", "'x2' in stage 1"),
        ("l1,a0_l3,a0", "must start with 'l2'"),
        ("l1,a0,r1", r"Stage 1 attends to pooled tokens \(r1\), which is not supported; use r0"),
        ("l1,a2", r"absolute_positions \[2\] must be 1"),
        ("l1,a0,f7_l2,a0,f9", "different sides"),
        ("l1,h3,h6,d96", "Stage 1 has h twice, in 'l1,h3,h6,d96'; give it once"),
        ("l1,l1", "Stage 1 has l twice"),
        ("l1,a0_l2,n2,a0,n2", "Stage 2 has n twice"),
        ("l1,h３", "'h３' in stage 1 .*digits 0 to 9"),
        ("l1,d٣", "'d٣' in stage 1"),
        ("l１", "'l１' in stage 1"),
        ("l01", "'l01' in stage 1 .*no zero in front"),
        ("l1,h03", "'h03' in stage 1"),
        ("l1,d" + "9" * 5000, "at most 18 of them"),
        ("l1,f99999999999", "window_size must be at most 11585, got 99999999999"),
        ("l1,d0", "embed_dim must be at least 1, got 0"),
        ("l1,h0", r"num_heads \[0\] must be at least 1"),
        ("l1,a0_l2,d0,a0", r"stage_dims \[192, 0\] must be at least 1"),
    ],
)
def test_strings_that_are_refused(text, message):
    with pytest.raises(EsViTArchitectureError, match=message):
        EsViTConfig.from_architecture(text)


@pytest.mark.parametrize("name", ["vil-1281", "vil_14121", "vil_2262"])
def test_names_that_there_are_not(name):
    with pytest.raises(EsViTArchitectureError, match=f"'{name}'; did you mean 'vil-tiny'.*'l1,h3,d96") as raised:
        EsViTConfig.from_architecture(name)
    example = str(raised.value).split("'")[-2]
    assert EsViTConfig.from_architecture(example).depths == [2, 8]


@pytest.mark.parametrize(
    "fields",
    [
        {"window_size": 14},
        {"embed_dim": 192},
        {"stage_dims": [96, 192, 384, 760]},
        {"depths": (2, 2, 8, 2)},
        {"num_heads": [3, 6, 12, 12]},
        {"num_attention_heads": [3, 6, 12, 12]},
        {"patch_size": 2},
        {"patch_strides": [2, 2, 2, 2]},
        {"sparse_stages": [1, 1, 1, 0]},
        {"global_tokens": [1, 1, 1, 1]},
        {"absolute_positions": [1, 1, 1, 1]},
        {"architecture": "cvt"},
    ],
)
def test_a_string_is_not_overruled(fields):
    ((name, value),) = fields.items()
    message = rf"{name.replace('attention_', '')} is {re.escape(str(value))}, but '{PUBLISHED}' has .*leave .* out"
    with pytest.raises(EsViTArchitectureError, match=message):
        EsViTConfig.from_architecture(PUBLISHED, **fields)


def test_fields_that_agree_with_a_string():
    same = {"window_size": 7, "stage_dims": [96, 192, 384, 768], "depths": (2, 2, 6, 2), "absolute_positions": None}
    assert EsViTConfig.from_architecture(PUBLISHED, **same).depths == (2, 2, 6, 2)
    assert EsViTConfig.from_architecture(PUBLISHED, stage_dims=None) == EsViTConfig.from_architecture(PUBLISHED)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"sparse_stages": [1, 0, 1, 0]}, "must not have a 1 after a 0"),
        ({"global_tokens": [1, 1, 1]}, "one entry per stage"),
        ({"patch_size": 8}, "first of patch_strides"),
        ({"vil_mode": 9}, "vil_mode"),
        ({"vil_mode": 1, "vil_exact_window": True}, "needs vil_mode 0"),
        ({"image_size": (224, 192)}, "square"),
        ({"image_size": 31}, "at least 32"),
        ({"num_heads": [5, 6, 12, 24]}, "must divide the width 96"),
        ({"embed_dim": 12, "stage_dims": [11, 24, 48, 96]}, r"embed_dim 12 must be the first of stage_dims \[11, 24"),
        ({"embed_dim": 12, "stage_dims": [12, 24]}, r"stage_dims \[12, 24\] must have one entry per stage"),
        ({"stage_dims": [0, 24, 48, 96]}, r"stage_dims \[0, 24, 48, 96\] must be at least 1 in every stage"),
        ({"stage_dims": [12, -24, 48, 96]}, r"stage_dims \[12, -24, 48, 96\] must be at least 1 in every stage"),
        ({"window_size": 10**9}, "window_size must be at most 11585, got 1000000000"),
    ],
)
def test_configurations_that_are_refused(overrides, message):
    with pytest.raises(StrictDataclassError, match=message):
        EsViTConfig.from_architecture("vil-tiny", **overrides)
