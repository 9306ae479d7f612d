# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs transformers' common tests on ViL.

They depart from the common ones as `common.py` lists, and:

* the weights of sparse attention are those of each chunk, and beside them those of the global tokens;
* `test_retain_grad_hidden_states_attentions` is overridden, as it knows of one tensor a block.
"""

import unittest

import torch

from modeling_esvit import EsViTModel

from .common import EsViTBackboneTestMixin, EsViTHierarchicalTester, EsViTModelTestMixin


class EsViTViLModelTester(EsViTHierarchicalTester):
    """Describes two sparse stages in chunks of 3 x 3 tokens, the second with position embeddings, and a full one."""

    window_size = 3
    fields = {
        **{"architecture": "vil", "patch_size": 2, "patch_strides": [2, 2, 2], "vil_mode": 1},
        **{"sparse_stages": [1, 1, 0], "global_tokens": [1, 2, 0], "absolute_positions": [0, 1, 0]},
    }


class EsViTViLModelTest(EsViTModelTestMixin, unittest.TestCase):
    model_tester_class = EsViTViLModelTester

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
        model = EsViTModel._from_config(config, attn_implementation="eager").eval()
        outputs = model(**inputs, output_attentions=True, output_hidden_states=True)
        kept = [outputs.hidden_states[0], *outputs.attentions[0], outputs.attentions[-1]]
        for tensor in kept:
            tensor.retain_grad()
        outputs.last_hidden_state.flatten()[0].backward()
        for tensor in kept:
            self.assertGreater(tensor.grad.abs().max(), 0)


class EsViTViLBackboneTest(EsViTBackboneTestMixin, unittest.TestCase):
    model_tester_class = EsViTViLModelTester
