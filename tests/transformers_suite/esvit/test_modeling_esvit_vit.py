# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs transformers' common tests on ViT and on a backbone of transformers, here DINOv2.

They depart from the common ones as `common.py` lists; hidden states have a class token in front, and maps have not.
"""

import unittest

import torch
from transformers.testing_utils import torch_device

from modeling_esvit import EsViTModel

from .common import EsViTBackboneTestMixin, EsViTModelTester, EsViTModelTestMixin


class EsViTViTModelTester(EsViTModelTester):
    """Describes sequences of 1 + 16 tokens; each of the three blocks is a stage."""

    depths = [1, 1, 1]
    num_heads = [2, 2, 2]
    map_sizes = [4, 4, 4]
    widths = [16, 16, 16]
    num_prefix = 1
    fields = {
        **{"architecture": "vit", "patch_size": 8, "embed_dim": 16, "depths": [3], "num_heads": [2]},
        **{"mlp_ratio": 2.0, "drop_path_rate": 0.1},
    }


class EsViTViTModelTest(EsViTModelTestMixin, unittest.TestCase):
    model_tester_class = EsViTViTModelTester

    def attention_shapes(self):
        return 3 * [(self.model_tester.batch_size, 2, 17, 17)]


class EsViTViTBackboneTest(EsViTBackboneTestMixin, unittest.TestCase):
    model_tester_class = EsViTViTModelTester


class EsViTAutoModelTester(EsViTViTModelTester):
    """Describes a DINOv2 of the same sizes."""

    backbone = {
        **{"model_type": "dinov2", "image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 3},
        **{"num_attention_heads": 2, "mlp_ratio": 2},
    }
    fields = {"architecture": "auto", "backbone_config": backbone}


class EsViTAutoModelTest(EsViTViTModelTest):
    model_tester_class = EsViTAutoModelTester

    def check_hidden_states(self, outputs, is_backbone):
        """Expects sequences from the backbone, whichever class asks for them."""
        shapes = [tuple(state.shape) for state in outputs.hidden_states]
        self.assertListEqual(shapes, 4 * [(self.model_tester.batch_size, 17, 16)])

    def test_capture_outputs_decorator(self):
        """Checks that all that the backbone inside collects is handed over, once.

        The original forbids a model that collects its outputs inside another, as either could take the other's.
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


class EsViTAutoBackboneTest(EsViTBackboneTestMixin, unittest.TestCase):
    model_tester_class = EsViTAutoModelTester
