# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Holds what the models return."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class EsViTModelOutput(ModelOutput):
    """Holds the outputs of [`EsViTModel`].

    last_hidden_state (`[B, T, C]`): The regions: tokens of the last stage after the final norm, row by row. For a list
        of crop groups they are packed, `[1, sum of n * T, C]`, group after group, image after image.
    pooler_output (`[B, C]`): The view feature: the mean of the regions; of a ViT the class token after the final norm.
        For groups `[sum of n, C]`.
    hidden_states: The embedded patches and the output of each stage (after merging), `[B, T_s, C_s]`; of a ViT the
        output of each block, with the class token first. A backbone of transformers gives its own.
    attentions: The weights of each block in its own windows, `[B * windows, heads, window**2, window**2]`, in the
        rolled and padded frame where the block is shifted or the map padded. For groups a tuple of these. Sparse
        attention of ViL gives a pair, see [`EsViTViLSparseAttention.forward`].
    reshaped_hidden_states: `hidden_states` as maps `[B, C_s, H_s, W_s]`; of a backbone of transformers its maps of
        `out_features`, None for other stages.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class EsViTImageClassifierOutput(ModelOutput):
    """Holds the outputs of [`EsViTForImageClassification`].

    loss (scalar): The loss, if labels were given.
    logits (`[B, num_labels]`): The scores of the classes.
    hidden_states, attentions, reshaped_hidden_states: The same as in [`EsViTModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class EsViTForPreTrainingOutput(ModelOutput):
    """Holds what the losses of `losses.py` need: never the logits, only their two factors.

    view_embeddings (`[N, bottleneck]`): Unit vectors z of the views, crop group after crop group.
    view_prototypes (`[K, bottleneck]`): Effective weight of the view head's last layer; logits are z times its
        transpose.
    region_features (`[R, C]`): Regions of all views, by which they are matched.
    region_embeddings (`[R, bottleneck]`), region_prototypes (`[K, bottleneck]`): The same for the region head, if any.
    """

    view_embeddings: torch.Tensor = None  # type: ignore[assignment]  # always there; ModelOutput wants a default
    view_prototypes: torch.Tensor = None  # type: ignore[assignment]
    region_features: torch.Tensor = None  # type: ignore[assignment]
    region_embeddings: torch.Tensor | None = None
    region_prototypes: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
