# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks backbones of transformers in runs: their weights, their stochastic depth, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoBackbone

from modeling_esvit import (
    EsViTArchitectureError,
    EsViTBackboneError,
    EsViTConfig,
)
from tests.helpers.tiny_models import DINO_V2, HIERA, RESNET, SWIN_V2
from tests.helpers.tiny_runs import tiny_auto
from training.learning.networks import build_config, build_networks
from training.options.errors import OptionError
from training.options.pretrain_options import parse_options
from training.pretrain import Pretraining


def test_pretrained_weights_of_the_backbone(images, tmp_path):
    torch.manual_seed(7)
    pretrained = AutoBackbone.from_config(EsViTConfig(architecture="auto", backbone_config=DINO_V2).backbone_config)
    pretrained.save_pretrained(tmp_path / "dinov2")
    given = tiny_auto(images, tmp_path / "run", DINO_V2, "--max_steps 1")
    given[given.index("--backbone") + 1] = str(tmp_path / "dinov2")
    with_weights, without = (Pretraining(parse_options([*given, *more])) for more in (["--backbone_weights"], []))
    for name, tensor in pretrained.state_dict().items():
        assert torch.equal(with_weights.student.esvit.encoder.backbone.state_dict()[name], tensor)
        assert torch.equal(with_weights.teacher.esvit.encoder.backbone.state_dict()[name], tensor)
    embedding = "embeddings.patch_embeddings.projection.weight"
    random = without.student.esvit.encoder.backbone.state_dict()[embedding]
    assert not torch.equal(random, pretrained.state_dict()[embedding])


def test_weights_of_another_network_are_refused(images, tmp_path):
    """transformers would only warn, and leave all weights random."""
    config = EsViTConfig(architecture="auto", backbone_config=DINO_V2).backbone_config
    AutoBackbone.from_config(config).save_pretrained(tmp_path / "dinov2")
    save_file({"other.weight": torch.zeros(1)}, tmp_path / "dinov2" / "model.safetensors", {"format": "pt"})
    given = tiny_auto(images, tmp_path / "run", DINO_V2, "--backbone_weights")
    given[given.index("--backbone") + 1] = str(tmp_path / "dinov2")
    with pytest.raises(OptionError, match="has none that can be read: none of its tensors is one of a dinov2"):
        build_networks(parse_options(given), torch.device("cpu"))


def test_stochastic_depth_of_the_student_alone(images, tmp_path):
    run = Pretraining(parse_options(tiny_auto(images, tmp_path / "run", SWIN_V2, "--drop_path_rate 0.4")))
    rates = [
        max(m.drop_prob for m in network.modules() if type(m).__name__.endswith("DropPath"))
        for network in (run.student, run.teacher)
    ]
    assert rates == [pytest.approx(0.4), 0.0]


@pytest.mark.parametrize(
    ("fields", "changes", "message"),
    [
        (HIERA, "", "local_crop_sizes 32: The backbone hiera cannot take images of 32 x 32 .* it takes 64 x 64"),
        ({**HIERA, "image_size": [32, 32]}, "", "global_crop_size 64: .* built for 32 x 32"),
        ({"model_type": "bert"}, "", "no backbone of type 'bert'"),
        (RESNET, "--gradient_checkpointing", "gradient_checkpointing: not possible with resnet, which is not"),
        (RESNET, "--drop_path_rate 0.1", "resnet has no stochastic depth"),
        (RESNET, "--embed_dim 8", "embed_dim is for a Swin or CvT .*; not for a Backbone of transformers. Those of"),
        (RESNET, "--window_size 7", "window_size is for a Swin or CvT or ViL; not for a Backbone of transformers"),
        (RESNET, "--attn_implementation sdpa", "attn_implementation: resnet has no sdpa"),
        (RESNET, "--backbone_weights", "backbone_weights: there are none in .*run.json"),
        ([RESNET], "", "must be a configuration, a dict or a name, got"),
        ({**RESNET, "depths": "two"}, "", "cannot be used: StrictDataclassFieldValidationError.*depths|depths"),
        ({**RESNET, "num_labels": 10**12}, "", "num_labels in its config.json is 1000000000000"),
        (
            {**DINO_V2, "num_hidden_layers": 2**20},
            "",
            "num_hidden_layers in its config.json is 1048576, more than 4096",
        ),
        ({"model_type": "timm_backbone", "backbone": "local-dir:/a"}, "", "names local-dir:/a, which is no part"),
        (7, "", "must be a configuration, a dict or a name, got .*, which holds no fields"),
        ({**DINO_V2, "reshape_hidden_states": False}, "", r"dinov2 gives no feature map, but \[1, 65, 16\]"),
    ],
)
def test_refused_before_training(fields, changes, message, images, tmp_path):
    with pytest.raises((EsViTArchitectureError, EsViTBackboneError, OptionError), match=f"(?s){message}"):
        Pretraining(parse_options(tiny_auto(images, tmp_path / "run", fields, changes)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "--architecture vil-tiny --local_crop_sizes 24",
            "local_crop_sizes 24: a crop of so few pixels has no region in a ViL",
        ),
        (
            "--architecture deit-tiny --global_crop_size 12",
            "global_crop_size 12: a crop of so few pixels has no region in a ViT",
        ),
        ("--architecture deit-tiny --window_size 7", "window_size is for a Swin or CvT or ViL; not for a ViT"),
        ("--architecture swin-tiny --vil_mode 1", "vil_mode is for a ViL; not for a Swin"),
        ("--architecture cvt-tiny --patch_size 8", "patch_size is for a Swin or ViL or ViT; not for a CvT"),
        (
            "--architecture auto --backbone no/where.json",
            "backbone 'no/where.json' is neither a folder nor a config.json",
        ),
    ],
)
def test_refused_of_other_architectures(given, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises((EsViTArchitectureError, OptionError), match=message):
        build_config(parse_options(given.split()))
