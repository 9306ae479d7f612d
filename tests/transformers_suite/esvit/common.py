# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Fits transformers' common model, backbone and configuration tests to our classes; a file for each family uses it.

Every departure from the common tests:

* `test_attention_outputs`, `test_hidden_states_output` are overridden, as in upstream's own Swin tests: attention is by
  window (first dimension images * windows), tokens and width change from stage to stage, and models that return hidden
  states also return them as maps. Beyond upstream's shapes, every block's weights are checked, under eager and sdpa.
* `test_model_get_set_embeddings` is overridden, as in upstream's Swin tests: the input embedding is a convolution.
* `test_training` and `test_training_gradient_checkpointing*` run unchanged, but with a `loss` added to what
  EsViTForPreTraining returns: its loss compares two models, and is a function outside of it.
* `test_resize_embeddings = False`: there are no token embeddings to resize.

The tests that the mixins skip by themselves are for what these models do not have (text, caches, experts, rotary
embeddings, sub-configurations, tensor parallel plans, flash attention) or for machines with an accelerator.
"""

from unittest.mock import patch

import torch
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_BACKBONE_MAPPING_NAMES,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)
from transformers.testing_utils import torch_device

from modeling_esvit import (
    EsViTBackbone,
    EsViTConfig,
    EsViTForImageClassification,
    EsViTForPreTraining,
    EsViTModel,
)

from ...test_backbone_common import BackboneTesterMixin
from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin, floats_tensor


# By these names the common tests know which classes take labels, and which have no loss.
MODEL_MAPPING_NAMES["esvit"] = "EsViTModel"
MODEL_FOR_BACKBONE_MAPPING_NAMES["esvit"] = "EsViTBackbone"
MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES["esvit"] = "EsViTForImageClassification"


class EsViTModelTester:
    """Describes a model by its stages, from 16 to 4 tokens a side. A family sets `fields` and what differs.

    num_prefix: class tokens before the others in the hidden states.
    """

    batch_size = 13
    image_size = 32
    is_training = True
    depths = [2, 2, 1]
    num_heads = [2, 2, 4]
    map_sizes = [16, 8, 4]
    widths = [16, 32, 64]
    window_size = 4
    num_prefix = 0
    fields = {}

    def get_config(self):
        return EsViTConfig(
            image_size=self.image_size,
            num_prototypes=32,
            head_hidden_size=24,
            head_bottleneck_size=16,
            norm_last_layer=False,
            out_features=["stage1", "stage2"],
            out_indices=[1, 2],
            **self.fields,
        )

    def prepare_config_and_inputs_for_common(self):
        pixel_values = floats_tensor([self.batch_size, 3, self.image_size, self.image_size])
        return self.get_config(), {"pixel_values": pixel_values}


class EsViTHierarchicalTester(EsViTModelTester):
    """Describes a model of stages of several resolutions, whose common fields it sets."""

    def get_config(self):
        sizes = {"embed_dim": self.widths[0], "depths": self.depths, "num_heads": self.num_heads}
        self.fields = {"window_size": self.window_size, "mlp_ratio": 2.0, "drop_path_rate": 0.1, **sizes, **self.fields}
        return super().get_config()


def forward_with_loss(forward):
    """Returns EsViTForPreTraining.forward with a scalar that depends on both heads as its loss."""

    def wrapper(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        view_logits = output.view_embeddings @ output.view_prototypes.T
        region_logits = output.region_embeddings @ output.region_prototypes.T
        output["loss"] = -view_logits.log_softmax(-1)[:, 0].mean() - region_logits.log_softmax(-1)[:, 0].mean()
        return output

    return wrapper


class EsViTModelTestMixin(ModelTesterMixin):
    """Holds the tests of all model classes of a family, which names its tester."""

    model_tester_class = EsViTModelTester
    all_model_classes = (EsViTModel, EsViTBackbone, EsViTForImageClassification, EsViTForPreTraining)
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = self.model_tester_class()
        self.config_tester = ConfigTester(
            self,
            config_class=EsViTConfig,
            embed_dim=48,
            has_text_modality=False,
            common_properties=["image_size", "patch_size", "num_channels", "hidden_size", "num_attention_heads"],
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_training(self):
        with patch.object(EsViTForPreTraining, "forward", forward_with_loss(EsViTForPreTraining.forward)):
            super().test_training()

    def check_training_gradient_checkpointing(self, gradient_checkpointing_kwargs=None):
        with patch.object(EsViTForPreTraining, "forward", forward_with_loss(EsViTForPreTraining.forward)):
            super().check_training_gradient_checkpointing(gradient_checkpointing_kwargs)

    def test_model_get_set_embeddings(self):
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            self.assertIsInstance(model.get_input_embeddings(), torch.nn.Conv2d)
            self.assertIsNone(model.get_output_embeddings())

    def attention_shapes(self):
        """Returns the shape of the weights of each block."""
        tester = self.model_tester
        shapes = [
            (tester.batch_size * (size // tester.window_size) ** 2, heads, tester.window_size**2, tester.window_size**2)
            for size, heads in zip(tester.map_sizes, tester.num_heads, strict=True)
        ]
        return [shape for shape, depth in zip(shapes, tester.depths, strict=True) for _ in range(depth)]

    def check_attentions(self, attentions):
        self.assertListEqual([tuple(weights.shape) for weights in attentions], self.attention_shapes())
        for weights in attentions:
            torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))

    def run_model(self, model, **kwargs):
        _, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        with torch.no_grad():
            return model.to(torch_device).eval()(**inputs, **kwargs)

    def test_attention_outputs(self):
        for model_class in self.all_model_classes:
            for implementation in ("eager", "sdpa"):
                config = self.model_tester.get_config()
                model = model_class._from_config(config, attn_implementation=implementation)
                outputs = self.run_model(model, output_attentions=True, output_hidden_states=False)
                self.check_attentions(outputs.attentions)

                with_states = self.run_model(model, output_attentions=True, output_hidden_states=True)
                self.assertEqual(set(with_states) - set(outputs) - {"reshaped_hidden_states"}, {"hidden_states"})
                self.check_attentions(with_states.attentions)
            # transformers' configurations take the flag with eager attention only.
            config._attn_implementation = "eager"
            config.output_attentions = True
            model = model_class(config)
            self.check_attentions(self.run_model(model).attentions)
            self.assertIsNone(self.run_model(model, output_attentions=False).attentions)

    def stages_of_states(self, is_backbone):
        """Returns the stage whose resolution each hidden state has: its own, as stages merge at their beginning."""
        return (0, *range(len(self.model_tester.depths)))

    def check_hidden_states(self, outputs, is_backbone):
        tester = self.model_tester
        stages = self.stages_of_states(is_backbone)
        maps = [(tester.batch_size, tester.widths[s], tester.map_sizes[s], tester.map_sizes[s]) for s in stages]
        tokens = [(batch, tester.num_prefix + h * w, width) for batch, width, h, w in maps]
        shapes = [tuple(state.shape) for state in outputs.hidden_states]
        self.assertListEqual(shapes, maps if is_backbone else tokens)
        for state, reshaped in zip(outputs.hidden_states, outputs.get("reshaped_hidden_states") or (), strict=False):
            torch.testing.assert_close(reshaped.flatten(2).transpose(1, 2), state[:, tester.num_prefix :])

    def test_hidden_states_output(self):
        for model_class in self.all_model_classes:
            is_backbone = model_class is EsViTBackbone
            model = model_class(self.model_tester.get_config())
            self.check_hidden_states(self.run_model(model, output_hidden_states=True), is_backbone)
            model.config.output_hidden_states = True
            self.check_hidden_states(self.run_model(model), is_backbone)


class EsViTBackboneTestMixin(BackboneTesterMixin):
    """Holds the tests of the backbone class of a family, which names its tester."""

    model_tester_class = EsViTModelTester
    all_model_classes = (EsViTBackbone,)
    config_class = EsViTConfig

    def setUp(self):
        self.model_tester = self.model_tester_class()
