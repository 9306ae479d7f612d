# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what a card says of an architecture, and the metadata that it must have."""

import pytest

from modeling_esvit import EsViTConfig
from tests.helpers.tiny_models import PVT, VIT, small_config
from tests.hub.uploads import card_problems
from training.publishing.card_template import CardError, check_card, describe_architecture


def test_a_card_says_whose_sizes_an_unknown_backbone_takes():
    sizes = {"swin-tiny": "any size", "resnet-50": "any size"}
    assert {name: describe_architecture(EsViTConfig.from_architecture(name))["sizes"] for name in sizes} == sizes
    assert (
        describe_architecture(EsViTConfig(architecture="auto", backbone_config=PVT))["sizes"]
        == "any size that the backbone takes"
    )


def test_a_card_names_the_network_and_leaves_out_what_it_has_not():
    """A network of timm by timm's name; no window of a CNN, and no size that it was not built for."""
    lite = describe_architecture(EsViTConfig(architecture="auto", backbone_config="timm:tf_efficientnet_lite0"))
    assert (lite["architecture"], lite["window"], lite["image_size"]) == ("`tf_efficientnet_lite0` of timm", None, None)
    assert lite["stages"] is None and "`pip install timm`" in lite["needs"]
    pvt = describe_architecture(EsViTConfig(architecture="auto", backbone_config=PVT))
    assert (pvt["architecture"], pvt["image_size"]) == ("`pvt` of transformers", "64 x 64")
    swin = describe_architecture(small_config())
    assert swin["architecture"] == "Swin of no published size" and "timm" not in swin["needs"]
    assert (swin["window"], swin["image_size"]) == (4, "32 x 32")
    assert describe_architecture(EsViTConfig(**VIT))["window"] is None


def test_bad_metadata_is_refused_by_both():
    body = "\n# title\n"
    for header, message in (
        ("license: [", "cannot be read"),
        ("license: mit", "has no pipeline_tag"),
        ("pipeline_tag: x", "has no tags"),
        ("- a\n- b", "cannot be read"),
        ("license: mine\npipeline_tag: x\ntags: [a]", "the Hub knows no license 'mine'"),
        ("license: mit\npipeline_tag: x\ntags: [a]\ndatasets: [/home/ada/x]", "datasets '/home/ada/x' is no name"),
    ):
        with pytest.raises(CardError, match=message):
            check_card(f"---\n{header}\n---{body}")
    result = "  - task: {type: x}\n    dataset: {type: y}\n    metrics: [{type: accuracy}]"
    errors, _ = card_problems(f"---\nlicense: mine\nmodel-index:\n- name: x\n  results:\n{result}\n---{body}")
    assert len(errors) == 3 and "license" in errors[0] and "dataset.name" in errors[1] and "metrics.value" in errors[2]
    assert card_problems(body) == ([], ["empty or missing yaml metadata in repo card"])
