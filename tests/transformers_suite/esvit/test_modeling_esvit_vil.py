# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""transformers' common tests on ViL. They depart from the common ones as those of `test_modeling_esvit.py` do, and:

* the weights of sparse attention are those of each chunk, and beside them those of the global tokens;
* `test_retain_grad_hidden_states_attentions` is overridden, as it knows of one tensor a block.
"""

import unittest

import torch
from transformers.testing_utils import require_torch

from modeling_esvit import EsViTBackbone, EsViTConfig, EsViTModel

from ...test_backbone_common import BackboneTesterMixin
from .test_modeling_esvit import EsViTModelTest, EsViTModelTester


class EsViTViLModelTester(EsViTModelTester):
    """Stages of 16, 8 and 4 tokens a side: two sparse ones in chunks of 4 and 3 x 3 tokens, and a full one."""

    def get_config(self):
        return EsViTConfig(
            architecture="vil",
            image_size=self.image_size,
            patch_size=2,
            patch_strides=[2, 2, 2],
            sparse_stages=[1, 1, 0],
            global_tokens=[1, 2, 0],
            vil_mode=1,
            embed_dim=self.widths[0],
            depths=self.depths,
            num_heads=self.num_heads,
            window_size=3,
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
class EsViTViLModelTest(EsViTModelTest):
    def setUp(self):
        super().setUp()
        self.model_tester = EsViTViLModelTester()

    def check_attentions(self, attentions):
        tester, config = self.model_tester, self.model_tester.get_config()
        self.assertEqual(len(attentions), sum(tester.depths))
        stages = [stage for stage, depth in enumerate(tester.depths) for _ in range(depth)]
        for stage, weights in zip(stages, attentions, strict=True):
            size, heads, num_global = tester.map_sizes[stage], tester.num_heads[stage], config.global_tokens[stage]
            if config.sparse_stages[stage]:
                chunks = tester.batch_size * (-(-size // 3)) ** 2
                shapes = [
                    (chunks, heads, 9, num_global + 81),
                    (tester.batch_size, heads, num_global, num_global + size**2),
                ]
                self.assertListEqual([tuple(part.shape) for part in weights], shapes)
            else:
                self.assertEqual(tuple(weights.shape), (tester.batch_size, heads, size**2, size**2))
            for part in weights if isinstance(weights, tuple) else [weights]:
                torch.testing.assert_close(part.sum(-1), torch.ones_like(part[..., 0]))

    def test_retain_grad_hidden_states_attentions(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = EsViTModel._from_config(config, attn_implementation="eager")
        outputs = model(**inputs, output_attentions=True, output_hidden_states=True)
        kept = [outputs.hidden_states[0], *outputs.attentions[0], outputs.attentions[-1]]
        for tensor in kept:
            tensor.retain_grad()
        outputs.last_hidden_state.flatten()[0].backward()
        for tensor in kept:
            self.assertGreater(tensor.grad.abs().max(), 0)

    def check_hidden_states(self, outputs, is_backbone):
        """A stage merges at its beginning, so that all its states are of its own resolution."""
        tester = self.model_tester
        stages = (0, *range(len(tester.depths)))
        maps = [(tester.batch_size, tester.widths[s], tester.map_sizes[s], tester.map_sizes[s]) for s in stages]
        tokens = [(batch, h * w, width) for batch, width, h, w in maps]
        shapes = [tuple(state.shape) for state in outputs.hidden_states]
        self.assertListEqual(shapes, maps if is_backbone else tokens)
        for state, reshaped in zip(outputs.hidden_states, outputs.get("reshaped_hidden_states") or (), strict=False):
            torch.testing.assert_close(reshaped.flatten(2).transpose(1, 2), state)


@require_torch
class EsViTViLBackboneTest(BackboneTesterMixin, unittest.TestCase):
    all_model_classes = (EsViTBackbone,)
    config_class = EsViTConfig

    def setUp(self):
        self.model_tester = EsViTViLModelTester()
