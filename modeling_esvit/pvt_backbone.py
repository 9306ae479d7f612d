# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines PVT, the Pyramid Vision Transformer (arXiv 2102.12122), as a backbone.

It is a row of the paper's comparison (arXiv 2106.09785, Table 4). transformers has its model, whose weights fit here,
but no `AutoBackbone` of it, and that model takes images of one size alone. The last map is normed and without the class
token, which its tokens attend to.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn import functional as F
from transformers import AutoBackbone, AutoConfig
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput
from transformers.models.pvt.configuration_pvt import PvtConfig
from transformers.models.pvt.modeling_pvt import PvtEncoder, PvtPatchEmbeddings, PvtPreTrainedModel
from transformers.utils.generic import can_return_tuple


@strict
class EsViTPvtConfig(BackboneConfigMixin, PvtConfig):
    """Adds to a [`PvtConfig`] the names of the stages, and of those whose maps are wanted."""

    model_type = "esvit_pvt"

    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        self.stage_names = [f"stage{stage}" for stage in range(1, len(self.depths) + 1)]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)


class EsViTPvtPatchEmbeddings(PvtPatchEmbeddings):
    """Embeds images of any size. The table of positions is resized bilinearly, as PVT's authors do."""

    def interpolate_pos_encoding(self, embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Resizes the positions of the map at construction.

        Args:
            embeddings: `[1, rows * columns, C]`, of the map at construction.
            height, width: of the map at hand, in tokens.

        Returns:
            `[1, height * width, C]`.
        """
        rows, columns = (size // patch for size, patch in zip(self.image_size, self.patch_size, strict=True))
        if (rows, columns) == (height, width):
            return embeddings
        table = embeddings.mT.unflatten(2, (rows, columns))
        return F.interpolate(table, size=(height, width), mode="bilinear").flatten(2).mT


class EsViTPvtBackbone(BackboneMixin, PvtPreTrainedModel):
    """Returns the maps of a PVT's stages."""

    config_class = EsViTPvtConfig

    def __init__(self, config: EsViTPvtConfig):
        super().__init__(config)
        self.num_features = list(config.hidden_sizes)
        self.encoder: Any = PvtEncoder(config)
        self.encoder.patch_embeddings = nn.ModuleList(map(self.for_any_size, range(len(config.depths))))
        self.post_init()

    def for_any_size(self, stage: int) -> EsViTPvtPatchEmbeddings:
        """Returns an embedding for images of any size, in place of the one that transformers built."""
        built = self.encoder.patch_embeddings[stage]
        return EsViTPvtPatchEmbeddings(
            self.config,
            image_size=built.image_size,
            patch_size=built.patch_size,
            stride=self.config.strides[stage],
            num_channels=built.num_channels,
            hidden_size=self.config.hidden_sizes[stage],
            cls_token=built.cls_token is not None,
        )

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> BackboneOutput:
        """Computes the maps of `out_features`.

        Args:
            pixel_values: `[batch, channels, height, width]`, sides of at least 32 pixels for four stages.
            output_hidden_states: also return the maps of all stages.
            output_attentions: also return the weights of each block, `[batch, heads, queries, keys]`.
            return_dict: False returns a tuple.
        """
        maps: list[torch.Tensor] = []
        attentions: list[torch.Tensor] = []
        pixels = pixel_values
        for embed, blocks in zip(self.encoder.patch_embeddings, self.encoder.block, strict=True):
            tokens, height, width = embed(pixels)
            for block in blocks:
                tokens, *weights = block(tokens, height, width, bool(output_attentions))
                attentions.extend(weights)
            if embed.cls_token is not None:
                tokens = self.encoder.layer_norm(tokens)[:, 1:]
            pixels = tokens.mT.unflatten(2, (height, width)).contiguous()
            maps.append(pixels)
        wanted = dict(zip(self.stage_names, maps, strict=True))
        return BackboneOutput(
            feature_maps=tuple(wanted[name] for name in self.out_features),
            hidden_states=tuple(maps) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


# Registered here, as `__init__.py` does not travel with a published model.
AutoConfig.register(EsViTPvtConfig.model_type, EsViTPvtConfig, exist_ok=True)
AutoBackbone.register(EsViTPvtConfig, EsViTPvtBackbone, exist_ok=True)
