# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines how the encoders of all families pass tokens on, and the parts that they share.

A forward pass takes crops of several sizes at once. Their tokens are *packed*: one tensor `[1, T, C]` that holds group
after group, each group being `n` images of `h` x `w` tokens (a *grid*). Everything that works per token sees the packed
tensor once; only what looks at places goes grid by grid. A single group stays `[n, h * w, C]`.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .errors import EsViTError


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


Grid = tuple[int, int, int]  # images, rows, columns
TokenFunction = Callable[[torch.Tensor], torch.Tensor]
AttentionWeights = torch.Tensor | tuple[torch.Tensor, ...] | None  # one tensor a group


class EsViTInputError(EsViTError, ValueError):
    """Raised when a model cannot take pixel values: wrong rank, type or channels, or an impossible size."""


def check_pixels(images: object) -> torch.Tensor:
    """Returns pixel values, if they are a tensor of floats.

    Raises:
        EsViTInputError: they are something else; the message says what makes them right.
    """
    if not isinstance(images, torch.Tensor):
        kind = type(images)
        array = kind.__module__.partition(".")[0] == "numpy"
        advice = (
            "pass torch.from_numpy(array), [batch, channels, height, width], normalised and of floats"
            if array
            else "make a tensor of it: AutoImageProcessor.from_pretrained(...)(image, return_tensors='pt').pixel_values"
        )
        raise EsViTInputError(f"pixel_values is a {kind.__module__}.{kind.__qualname__}, no tensor; {advice}.")
    if not images.is_floating_point():
        raise EsViTInputError(
            f"pixel_values has type {images.dtype}; rescale and normalise the image to a float tensor first "
            "(AutoImageProcessor does)."
        )
    return images


def check_patch(height: int, width: int, side: int) -> None:
    """Checks that an image of this size has a patch.

    Raises:
        EsViTInputError: it has none.
    """
    if min(height, width) < side:
        raise EsViTInputError(
            f"An image of {height} x {width} pixels is smaller than one patch of {side} x {side}; enlarge it first."
        )


class EsViTStage(nn.Module):
    """Marks a stage of an encoder. Its first output is a hidden state; so is the first input of the first stage."""


class EsViTLayer(GradientCheckpointingLayer):
    """Marks a block of an encoder. Its second output is recorded as attentions."""


@dataclass(frozen=True)
class EncoderRequest:
    """Says what an encoder returns beside the regions and the view feature.

    attentions: have each block compute its attention weights, which the model records.
    maps: the maps of the stem and of the stages (one group only).
    before_merging: take these maps before patch merging, at the resolution of the stage. This is for Swin alone: stages
        of the others merge at their beginning.
    last_blocks: the pooled outputs of this many last blocks, counted over all stages.
    """

    attentions: bool = False
    maps: bool = False
    before_merging: bool = False
    last_blocks: int = 0


@dataclass
class EncoderOutput:
    """Holds what an encoder returns for a list of crop groups.

    tokens: regions after the final norm, `[n, h * w, C]` for one group, else packed `[1, sum n * h * w, C]`.
    grids: one `(n, h, w)` a group.
    pooled: the view feature of each image, `[sum n, C]`.
    maps: `[n, C_s, h_s, w_s]` of the stem and each stage, if they were asked for.
    last_blocks: pooled outputs `[sum n, C_b]` of the last blocks, if they were asked for.
    """

    tokens: torch.Tensor
    grids: list[Grid]
    pooled: torch.Tensor
    maps: tuple[torch.Tensor | None, ...] | None = None
    last_blocks: tuple[torch.Tensor, ...] = ()


def count_tokens(grids: list[Grid]) -> list[int]:
    return [n * h * w for n, h, w in grids]


def split_groups(tokens: torch.Tensor, grids: list[Grid]) -> list[torch.Tensor]:
    """Splits `[B, T, C]`, packed or not, into one `[n, h, w, C]` a group."""
    groups = tokens.flatten(0, 1).split(count_tokens(grids)) if len(grids) > 1 else [tokens]
    return [group.reshape(n, h, w, tokens.shape[-1]) for group, (n, h, w) in zip(groups, grids, strict=True)]


def is_recomputed(module: nn.Module, x: torch.Tensor) -> bool:
    """Returns whether norms and activations are computed again in the backward pass: in training on a CPU.

    An accelerator takes longer to compute them than to read them, and asks for whole blocks where its memory is small
    (`gradient_checkpointing`). A compiler chooses by itself.
    """
    in_training = module.training and torch.is_grad_enabled()
    return in_training and x.device.type == "cpu" and not torch.compiler.is_compiling()


def recompute_inner(linear: nn.Module, function: TokenFunction, x: torch.Tensor) -> torch.Tensor:
    """Returns `linear(function(x))`, and computes `function(x)` again in the backward pass if [`is_recomputed`].

    `function` is a norm or an activation. Its result costs little, and would be half of what a block stores.
    """
    if not is_recomputed(linear, x):
        return linear(function(x))
    return checkpoint(lambda x: linear(function(x)), x, use_reentrant=False)


class EsViTMLP(nn.Module):
    """Holds the two linear layers of a block, by the names that timm and the original have for them."""

    def __init__(self, config: "EsViTConfig", dim: int):
        super().__init__()
        hidden = int(dim * config.mlp_ratio)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, norm: TokenFunction) -> torch.Tensor:
        """Transforms any `[..., C]`; `norm` is applied first."""
        hidden = recompute_inner(self.fc1, norm, hidden_states)
        return self.dropout(recompute_inner(self.fc2, lambda hidden: self.dropout(self.act(hidden)), hidden))


def pack_groups(groups: list[torch.Tensor]) -> torch.Tensor:
    """Packs one `[n, ..., C]` a group; a single group becomes `[n, T, C]`."""
    if len(groups) == 1:
        return groups[0].flatten(1, -2)
    return torch.cat([group.flatten(0, -2) for group in groups]).unsqueeze(0)


def split_images(grids: list[Grid], limit: int) -> list[list[Grid]]:
    """Splits the images of all groups, in order, into parts of at most `limit` tokens.

    An image that has more is a part of its own.
    """
    parts: list[list[Grid]] = [[]]
    room = limit
    for n, h, w in grids:
        while n:
            taken = min(n, max(room // (h * w), 0 if parts[-1] else 1))
            if taken:
                parts[-1].append((taken, h, w))
            n, room = n - taken, room - taken * h * w
            if n:
                parts.append([])
                room = limit
    return parts


def pool_groups(tokens: torch.Tensor, grids: list[Grid]) -> torch.Tensor:
    """Averages the tokens of each image: `[sum n, C]`, group after group."""
    return torch.cat([group.mean(dim=(1, 2)) for group in split_groups(tokens, grids)])


def to_map(tokens: torch.Tensor, grids: list[Grid]) -> torch.Tensor:
    """Returns the tokens of the only group, `[n, h * w, C]`, as `[n, C, h, w]`."""
    (group,) = split_groups(tokens, grids)
    return group.permute(0, 3, 1, 2).contiguous()


def add_branch(tokens: torch.Tensor, branch: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
    """Adds a branch to the tokens, times the factor of each token where there are factors."""
    if factors is None:
        return tokens + branch
    with torch.autocast(tokens.device.type, enabled=False):  # it would convert the branch by a kernel of its own
        return torch.addcmul(tokens, branch, factors)


def spread_drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Returns the rate of each block of each stage: from 0 to `rate`, linearly over all blocks."""
    last = max(sum(depths) - 1, 1)
    rates = iter([rate * block / last for block in range(sum(depths))])
    return [list(itertools.islice(rates, depth)) for depth in depths]


class EsViTDropPath(nn.Module):
    """Draws stochastic depth: one factor for each crop of each image, expanded to the tokens of that crop."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def draw(self, num_samples: int, like: torch.Tensor) -> torch.Tensor:
        """Draws factors `[num_samples]`: 0 with probability `rate`, else 1 / (1 - rate)."""
        keep = 1.0 - self.rate
        return like.new_empty(num_samples).bernoulli_(keep).div_(keep)

    def forward(self, grids: list[Grid], like: torch.Tensor) -> torch.Tensor | None:
        """Returns the factor of each token of packed groups, `[T, 1]`; None if all are 1."""
        if self.rate == 0.0 or not self.training:
            return None
        factors = self.draw(sum(n for n, _, _ in grids), like).split([n for n, _, _ in grids])
        return torch.cat([f.repeat_interleave(h * w) for f, (_, h, w) in zip(factors, grids, strict=True)]).unsqueeze(1)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"
