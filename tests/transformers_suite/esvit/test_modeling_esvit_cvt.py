# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""transformers' common tests on CvT. They depart from the common ones as those of `test_modeling_esvit.py` do."""

import unittest

import torch
from transformers.testing_utils import require_torch

from modeling_esvit import EsViTBackbone, EsViTConfig

from ...test_backbone_common import BackboneTesterMixin
from .test_modeling_esvit import EsViTModelTest, EsViTModelTester


class EsViTCvtModelTester(EsViTModelTester):
    """Stages of 16, 8 and 4 tokens a side, the last narrower than twice the width before it."""

    widths = [16, 32, 48]

    def get_config(self):
        return EsViTConfig(
            architecture="cvt",
            image_size=self.image_size,
            patch_kernels=[3, 3, 3],
            patch_strides=[2, 2, 2],
            patch_paddings=[1, 1, 1],
            embed_dim=self.widths[0],
            stage_dims=self.widths,
            depths=self.depths,
            num_heads=self.num_heads,
            window_size=self.window_size,
            hidden_act="quick_gelu",
            layer_norm_eps=1e-5,
            mlp_ratio=2.0,
            drop_path_rate=0.1,
            num_prototypes=32,
            head_hidden_size=24,
            head_bottleneck_size=16,
            norm_last_layer=False,
            out_features=["stage1", "stage2"],
            out_indices=[1, 2],
        )


@require_torch
class EsViTCvtModelTest(EsViTModelTest):
    def setUp(self):
        super().setUp()
        self.model_tester = EsViTCvtModelTester()

    def check_hidden_states(self, outputs, is_backbone):
        """A stage embeds its patches itself, so that all its states are of its own resolution."""
        tester = self.model_tester
        stages = (0, *range(len(tester.depths)))
        maps = [(tester.batch_size, tester.widths[s], tester.map_sizes[s], tester.map_sizes[s]) for s in stages]
        tokens = [(batch, h * w, width) for batch, width, h, w in maps]
        shapes = [tuple(state.shape) for state in outputs.hidden_states]
        self.assertListEqual(shapes, maps if is_backbone else tokens)
        for state, reshaped in zip(outputs.hidden_states, outputs.get("reshaped_hidden_states") or (), strict=False):
            torch.testing.assert_close(reshaped.flatten(2).transpose(1, 2), state)


@require_torch
class EsViTCvtBackboneTest(BackboneTesterMixin, unittest.TestCase):
    all_model_classes = (EsViTBackbone,)
    config_class = EsViTConfig

    def setUp(self):
        self.model_tester = EsViTCvtModelTester()
