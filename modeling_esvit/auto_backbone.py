# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns any backbone of transformers (`AutoBackbone`) into an encoder.

The tokens of its last feature map are the regions, and their mean is the view feature, as the paper does with ResNet-50
and PVT (arXiv 2106.09785, Table 4). A backbone is taken as it is, with its own initialisation, norms and attention.
Crops of each size go through it separately, so that each size has batch statistics of its own.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoBackbone
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils.output_capturing import install_output_capuring_hook

from .backbone_probe import (
    TIMM,
    EsViTBackboneError,
    can_recompute,
    compute_last_map,
    describe_backbone,
    find_unused_parameters,
    list_backbone_stages,
    name_backbone,
    resolve_backbone,
)
from .family import DEFAULT_STRIDE, Family, TokenGrid
from .tokens import (
    AttentionWeights,
    EncoderOutput,
    EncoderRequest,
    EsViTInputError,
    EsViTLayer,
    EsViTStage,
    Grid,
    pack_groups,
    pool_groups,
)


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


class EsViTAutoStage(EsViTStage):
    """Marks the boundary of two stages of the backbone, where the model records hidden states."""

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return after


class EsViTAutoLayer(EsViTLayer):
    """Stands for a layer of the backbone, whose attention the model records."""

    def forward(self, weights: AttentionWeights) -> tuple[None, AttentionWeights]:
        return None, weights


@contextmanager
def use_plain_attention(config: PreTrainedConfig) -> Iterator[None]:
    """Makes a model compute plain attention inside the block, as fused kernels do not return weights."""
    chosen = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = chosen


class EsViTAutoEncoder(nn.Module):
    """Holds a backbone of transformers. Whether its last map is normed is up to the backbone."""

    def __init__(self, config: "EsViTConfig"):
        super().__init__()
        self.stage_names = config.stage_names
        self.last_stage = config.stage_names[-1]
        self.backbone: Any = AutoBackbone.from_config(request_outputs(config))
        self.is_timm = config.backbone_config.model_type == TIMM
        self.norm = nn.Identity()
        self.stage = EsViTAutoStage()
        self.layer = EsViTAutoLayer()
        self.install_hooks()
        self.description = describe_backbone(config.backbone_config)
        self.freeze()

    def install_hooks(self) -> None:
        """Registers the hooks that record hidden states and attentions.

        They are registered by name, not by the search through all modules: the backbone has its own hooks, and a second
        set of them would give each of its hidden states twice, and from these the wrong maps.
        """
        install_output_capuring_hook(self.stage, "hidden_states", 0)
        install_output_capuring_hook(self.layer, "attentions", 1)

    @property
    def supports_gradient_checkpointing(self) -> bool:
        return can_recompute(self.backbone)

    def input_embedding(self) -> nn.Module:
        return next(module for module in self.backbone.modules() if isinstance(module, nn.Conv2d))

    def check_size(self, height: int, width: int) -> None:
        """Checks that the backbone takes an image of this size; its own code would stop somewhere in the middle.

        Raises:
            EsViTInputError: it does not.
        """
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        try:
            compute_last_map(self.description, height, width)
        except EsViTBackboneError as error:
            raise EsViTInputError(str(error)) from error

    def freeze(self) -> None:
        """Takes the gradient from parameters that the last map does not depend on: DDP would wait for it."""
        for name in find_unused_parameters(self.description):
            self.backbone.get_parameter(name).requires_grad_(False)

    def forward(self, crops: list[torch.Tensor], request: EncoderRequest) -> EncoderOutput:
        """Encodes groups of crops, each `[n, channels, height, width]`.

        Attention weights keep the backbone's own layout. With `request.maps` the backbone's hidden states are recorded,
        and the output has the maps of the stages in `out_features`, and None for the others. The last block is the view
        feature; there are no others.

        Raises:
            EsViTBackboneError: attention weights are asked for, and the backbone returns none.
        """
        outputs = [self.run(images, request.attentions, request.maps) for images in crops]
        if request.attentions:
            self.record_attentions([output.attentions for output in outputs])
        if request.maps:
            states = outputs[0].feature_maps if self.is_timm else outputs[0].hidden_states or ()
            for before, after in itertools.pairwise(states):
                self.stage(before, after)
        maps = [output.feature_maps[-1].permute(0, 2, 3, 1) for output in outputs]
        grids: list[Grid] = [(m.shape[0], m.shape[1], m.shape[2]) for m in maps]
        tokens = pack_groups(maps)
        pooled = pool_groups(tokens, grids)
        return EncoderOutput(
            tokens=tokens,
            grids=grids,
            pooled=pooled,
            maps=self.pick_maps(outputs[0]) if request.maps else None,
            last_blocks=(pooled,) if request.last_blocks else (),
        )

    def run(self, images: torch.Tensor, output_attentions: bool, output_hidden_states: bool) -> Any:
        """Returns the backbone's output for one group, with the attentions and hidden states that were asked for."""
        name, attends = name_backbone(self.backbone.config), self.backbone.has_attentions and not self.is_timm
        if output_attentions and not attends:
            raise EsViTBackboneError(f"The backbone {name} has no attention weights to return.")
        with use_plain_attention(self.backbone.config) if output_attentions else nullcontext():
            output = self.backbone.forward_with_filtered_kwargs(
                images,
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states and not self.is_timm,
            )
        if output_attentions and not output.attentions:
            raise EsViTBackboneError(f"The backbone {name} does not return its attention weights.")
        return output

    def record_attentions(self, groups: list[tuple[torch.Tensor, ...]]) -> None:
        """Records the weights of each layer; those of several groups as a tuple."""
        for weights in zip(*groups, strict=True):
            self.layer(weights[0] if len(weights) == 1 else weights)

    def pick_maps(self, output: Any) -> tuple[torch.Tensor | None, ...]:
        """Returns the map of each stage, or None for a stage that the backbone was not asked for."""
        maps = dict(zip(self.backbone.out_features, output.feature_maps, strict=True))
        return tuple(maps.get(name) for name in self.stage_names)


def request_outputs(config: "EsViTConfig") -> PreTrainedConfig:
    """Returns the backbone's configuration, after naming in it the stages whose maps are wanted.

    Some backbones have a norm for each of these. A timm model has none, and has no other hidden states than its maps.
    """
    backbone = config.backbone_config
    if backbone.model_type == TIMM:
        backbone.out_indices = list(range(len(config.stage_names)))
    else:
        wanted = [name for name in config.stage_names if name in (*config.out_features, config.stage_names[-1])]
        backbone.set_output_features_output_indices(out_features=wanted, out_indices=None)
    return backbone


# The family

RESNET_50 = {
    "model_type": "resnet",
    "embedding_size": 64,
    "hidden_sizes": [256, 512, 1024, 2048],
    "depths": [3, 4, 6, 3],
    "layer_type": "bottleneck",
    "hidden_act": "relu",
}
# Tables 1 and 7 of PVT (arXiv 2102.12122); widths, heads, ratios and patches are the same in all.
PVT_DEPTHS = {
    "pvt-tiny": [2, 2, 2, 2],
    "pvt-small": [3, 4, 6, 3],
    "pvt-medium": [3, 4, 18, 3],
    "pvt-large": [3, 8, 27, 3],
}
# Fields of a backbone's configuration that have no influence on its last map in evaluation.
NOT_COMPUTED = (
    *("transformers_version", "_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type"),
    *("out_features", "out_indices", "stage_names", "initializer_range", "output_attentions", "output_hidden_states"),
    *("return_dict", "drop_path_rate", "chunk_size_feed_forward", "is_encoder_decoder"),
)


def complete(config: "EsViTConfig") -> None:
    """Sets the fields that follow from `backbone_config`, which holds all that is known of a backbone.

    A backbone has no blocks that could be counted, so it counts as one.
    """
    if config.backbone_config is None:
        raise EsViTBackboneError(
            "The architecture 'auto' needs a backbone_config: the configuration of a backbone of transformers, the "
            "name of a model on the Hub, a model folder, or a config.json."
        )
    config.backbone_config = resolve_backbone(config.backbone_config)
    config.num_channels = getattr(config.backbone_config, "num_channels", 3)
    config.embed_dim = list(list_backbone_stages(config.backbone_config).values())[-1]
    config.depths, config.num_heads, config.patch_size = [1], [1], 1


def find_token_grids(config: "EsViTConfig", height: int, width: int) -> list[TokenGrid]:
    """Returns the grid of the last map alone."""
    _, rows, columns = compute_last_map(describe_backbone(config.backbone_config), height, width)
    return [TokenGrid(rows, columns, None, 0.0, (height, width))]


def validate(config: "EsViTConfig") -> None:
    """Checks nothing: what can be wrong stops the completion."""


def list_unseen(config: "EsViTConfig") -> dict[str, Any]:
    fields = config.backbone_config.to_dict()
    return {f"backbone_config.{name}": fields[name] for name in sorted(fields) if name not in NOT_COMPUTED}


AUTO = Family(
    key="auto",
    name="Backbone of transformers",
    encoder=EsViTAutoEncoder,
    variants={
        "resnet-50": {"backbone_config": RESNET_50},
        **{
            name: {"backbone_config": {"model_type": "pvt", "depths": depths, "drop_path_rate": 0.1}}
            for name, depths in PVT_DEPTHS.items()
        },
    },
    options=("backbone_config",),
    identity=("backbone_config",),
    token_grids=find_token_grids,
    validate=validate,
    unseen=list_unseen,
    region_stride=lambda config: DEFAULT_STRIDE,
    complete=complete,
    completed=("num_channels", "embed_dim", "depths", "num_heads", "patch_size"),
    stages=lambda config: list_backbone_stages(config.backbone_config),
    wraps_backbone=True,
)
