# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""`modeling_esvit.embed`: what the model gives by hand, however images are read, parts made, and features written."""

import json
import shutil

import pytest
import torch
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

from modeling_esvit.embed.embedder import Embedder, FeatureError, embed


def test_models_of_others(images, tmp_path):
    """A class token that is pooled, and a feature map `[B, C, H, W]`."""
    torch.manual_seed(0)
    number = len(list(images.rglob("*.png")))
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    vit = ViTModel(ViTConfig(image_size=32, patch_size=16, **small))
    resnet = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))
    for model, shape in ((vit, (5, 8)), (resnet, (16, 16))):
        name = tmp_path / type(model).__name__
        model.save_pretrained(name)
        (name / "preprocessor_config.json").write_text(
            json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}})
        )
        features = embed(Embedder.from_pretrained(str(name)), [str(images)], regions=True)
        assert features.view.shape == (number, shape[1])
        assert features.regions.shape == (number, *shape)
    ViTModel(vit.config, add_pooling_layer=False).save_pretrained(tmp_path / "unpooled")
    shutil.copy(name / "preprocessor_config.json", tmp_path / "unpooled")
    with pytest.raises(FeatureError, match="ViTModel gives no pooler_output"):  # instead of one of random weights
        embed(Embedder.from_pretrained(str(tmp_path / "unpooled")), [str(images)])
    for side in (8, 64):
        with pytest.raises(FeatureError, match=f"ViTModel takes no images of {side} px: "):
            Embedder.from_pretrained(str(tmp_path / "ViTModel"), image_size=side)


def test_features_that_are_not_finite(folder, images):
    embedder = Embedder.from_pretrained(folder)
    embedder.model.encoder.norm.weight.data.fill_(float("nan"))
    with pytest.raises(FeatureError, match=r"The feature of .*00\.png is not finite, nor are 10 more"):
        embed(embedder, [str(images)])
