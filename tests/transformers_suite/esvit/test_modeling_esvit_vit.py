# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""transformers' common tests on ViT and on a backbone of transformers, here DINOv2. They depart from the common ones as
those of `test_modeling_esvit.py` do; hidden states have a class token in front, and as maps do not.
"""

import unittest

import torch
from transformers.testing_utils import require_torch, torch_device

from modeling_esvit import EsViTBackbone, EsViTConfig, EsViTModel

from ...test_backbone_common import BackboneTesterMixin
from .test_modeling_esvit import EsViTModelTest, EsViTModelTester


FIELDS = {
    "image_size": 32,
    "num_prototypes": 32,
    "head_hidden_size": 24,
    "head_bottleneck_size": 16,
    "norm_last_layer": False,
    "out_features": ["stage1", "stage2"],
    "out_indices": [1, 2],
}


class EsViTViTModelTester(EsViTModelTester):
    """Sequences of 1 + 16 tokens, three blocks."""

    num_blocks, num_tokens, num_heads, width = 3, 17, 2, 16

    def get_config(self):
        fields = {"patch_size": 8, "embed_dim": self.width, "depths": [self.num_blocks], "num_heads": [self.num_heads]}
        return EsViTConfig(architecture="vit", mlp_ratio=2.0, drop_path_rate=0.1, **fields, **FIELDS)


@require_torch
class EsViTViTModelTest(EsViTModelTest):
    tester_class = EsViTViTModelTester

    def setUp(self):
        super().setUp()
        self.model_tester = self.tester_class()

    def check_attentions(self, attentions):
        tester = self.model_tester
        shape = (tester.batch_size, tester.num_heads, tester.num_tokens, tester.num_tokens)
        self.assertListEqual([tuple(weights.shape) for weights in attentions], tester.num_blocks * [shape])
        for weights in attentions:
            torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))

    def check_hidden_states(self, outputs, is_backbone):
        tester = self.model_tester
        sequence = (tester.batch_size, tester.num_tokens, tester.width)
        feature_map = (tester.batch_size, tester.width, 4, 4)
        shape = feature_map if is_backbone else sequence
        shapes = [tuple(state.shape) for state in outputs.hidden_states]
        self.assertListEqual(shapes, (tester.num_blocks + 1) * [shape])
        for state, reshaped in zip(outputs.hidden_states, outputs.get("reshaped_hidden_states") or (), strict=False):
            torch.testing.assert_close(reshaped.flatten(2).transpose(1, 2), state[:, 1:])


@require_torch
class EsViTViTBackboneTest(BackboneTesterMixin, unittest.TestCase):
    all_model_classes = (EsViTBackbone,)
    config_class = EsViTConfig

    def setUp(self):
        self.model_tester = EsViTViTModelTester()


class EsViTAutoModelTester(EsViTViTModelTester):
    def get_config(self):
        fields = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2}
        backbone = {"model_type": "dinov2", "image_size": 32, "patch_size": 8, **fields}
        return EsViTConfig(architecture="auto", backbone_config=backbone, **FIELDS)


@require_torch
class EsViTAutoModelTest(EsViTViTModelTest):
    tester_class = EsViTAutoModelTester

    def check_hidden_states(self, outputs, is_backbone):
        """As the backbone gives them: sequences."""
        tester = self.model_tester
        sequence = (tester.batch_size, tester.num_tokens, tester.width)
        shapes = [tuple(state.shape) for state in outputs.hidden_states]
        self.assertListEqual(shapes, (tester.num_blocks + 1) * [sequence])

    def test_capture_outputs_decorator(self):
        """The original forbids a model that collects its outputs inside another, as either could take what is the other's.
        The backbone inside is such a model; what it has collected is handed over when it is done: all of it, once.
        """
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        config._attn_implementation = config.backbone_config._attn_implementation = "eager"
        model = EsViTModel(config).to(torch_device).eval()
        wanted = {"output_hidden_states": True, "output_attentions": True}
        with torch.no_grad():
            ours, theirs = model(**inputs, **wanted), model.encoder.backbone(**inputs, **wanted)
        for name in ("hidden_states", "attentions"):
            self.assertEqual(len(ours[name]), len(theirs[name]))
            for own, other in zip(ours[name], theirs[name], strict=True):
                torch.testing.assert_close(own, other)


@require_torch
class EsViTAutoBackboneTest(BackboneTesterMixin, unittest.TestCase):
    all_model_classes = (EsViTBackbone,)
    config_class = EsViTConfig

    def setUp(self):
        self.model_tester = EsViTAutoModelTester()
