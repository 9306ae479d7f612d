# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the projection head of both tasks: an MLP, L2 normalisation, weight-normalised prototypes."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .configuration_esvit import EsViTConfig


class EsViTPrototypes(nn.Module):
    """Holds K prototypes of unit direction and norm g: row k is `g_k * v_k / |v_k|`.

    They are plain parameters, not torch's weight norm hook, so that the teacher can be a deep copy of the student.
    """

    def __init__(self, num_prototypes: int, dim: int, trainable_norm: bool):
        super().__init__()
        self.weight_g = nn.Parameter(torch.empty(num_prototypes, 1), requires_grad=trainable_norm)
        self.weight_v = nn.Parameter(torch.empty(num_prototypes, dim))

    def init_weights(self, std: float) -> None:
        init.ones_(self.weight_g)
        bound = 1 / math.sqrt(self.weight_v.shape[1])
        init.uniform_(self.weight_v, -bound, bound)

    def forward(self) -> torch.Tensor:
        """Returns the effective weight `[K, bottleneck]`."""
        return torch._weight_norm(self.weight_v, self.weight_g, 0)


class EsViTProjectionHead(nn.Module):
    """Projects backbone features to bottleneck vectors.

    The logits are their products with the prototypes. They are never formed here, as the loss needs them in chunks.
    """

    def __init__(self, config: EsViTConfig):
        super().__init__()
        widths = [config.hidden_size] + [config.head_hidden_size] * (config.head_num_layers - 1)
        layers: list[nn.Module] = []
        for width, next_width in zip(widths[:-1], widths[1:], strict=True):
            layers.append(nn.Linear(width, next_width))
            if config.head_batch_norm:
                layers.append(nn.BatchNorm1d(next_width))
            layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], config.head_bottleneck_size))
        self.last_layer = EsViTPrototypes(
            config.num_prototypes, config.head_bottleneck_size, trainable_norm=not config.norm_last_layer
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Projects `[rows, C]` to unit vectors z `[rows, bottleneck]`, in float32 (float64 stays)."""
        bottleneck = self.mlp(features)
        return F.normalize(bottleneck.to(torch.promote_types(bottleneck.dtype, torch.float32)), dim=-1)
