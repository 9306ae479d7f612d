# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the CvT backbone as EsViT uses it (arXiv 2106.09785, section 3.1; CvT: arXiv 2103.15808).

It differs from transformers' own CvT where published EsViT weights depend on it: attention is by window, and a map
smaller than the window makes it smaller; logits are scaled by the full width C^-0.5, not by that of a head; queries,
keys and values share one depthwise convolution and its BatchNorm; padding comes before that convolution, is not masked
and counts in the batch statistics; the activation is QuickGELU; DropPath is on both branches.

Tokens of several crop sizes are packed (see `tokens.py`). Convolutions, BatchNorm and attention go group by group:
BatchNorm sees one resolution at a time, in the order of the groups, as in the original.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init
from transformers.activations import ACT2FN

from .attention import attention_function
from .batch_norm import BatchStatistics, EsViTBatchNorm
from .family import (
    NETWORK_OPTIONS,
    AttentionLayout,
    Family,
    TokenGrid,
    require_heads,
    require_stages,
    require_widths,
)
from .tokens import (
    AttentionWeights,
    EncoderOutput,
    EncoderRequest,
    EsViTDropPath,
    EsViTInputError,
    EsViTLayer,
    EsViTStage,
    Grid,
    TokenFunction,
    add_branch,
    is_recomputed,
    pack_groups,
    pool_groups,
    recompute_inner,
    split_groups,
    spread_drop_path_rates,
    to_map,
)
from .windows import compute_padded_size, cut_windows, is_gathered, join_windows, split_heads, to_tokens, to_windows


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


class EsViTCvtConv2d(nn.Conv2d):
    def init_weights(self, std: float) -> None:
        """Initialises the convolution as a linear layer, unlike Swin's."""
        init.trunc_normal_(self.weight, std=std)
        if self.bias is not None:
            init.zeros_(self.bias)


class EsViTCvtPointwise(EsViTCvtConv2d):
    """Applies a 1 x 1 convolution to tokens `[..., C]`."""

    def __init__(self, dim: int, out_dim: int, bias: bool = True):
        super().__init__(dim, out_dim, kernel_size=1, bias=bias)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.linear(input, self.weight.flatten(1), self.bias)


class EsViTCvtEmbed(nn.Module):
    """Embeds overlapping patches of images, or of the maps of the stage before."""

    def __init__(self, config: "EsViTConfig", stage: int):
        super().__init__()
        widths = [config.num_channels, *config.stage_widths()]
        kernel, stride, padding = config.patch_convolution(stage)
        self.proj = EsViTCvtConv2d(widths[stage], widths[stage + 1], kernel, stride, padding)
        self.norm = nn.LayerNorm(widths[stage + 1], eps=config.layer_norm_eps)

    def forward(self, maps: list[torch.Tensor]) -> tuple[torch.Tensor, list[Grid]]:
        """Embeds one `[n, C, H, W]` a group; returns packed tokens and their grids."""
        embedded = [self.proj(group).permute(0, 2, 3, 1) for group in maps]
        grids = [(group.shape[0], group.shape[1], group.shape[2]) for group in embedded]
        return self.norm(pack_groups(embedded)), grids


class EsViTCvtProjection(nn.Module):
    """Projects to queries, keys and values: they share a depthwise convolution, its BatchNorm, and a pointwise one."""

    def __init__(self, config: "EsViTConfig", dim: int):
        super().__init__()
        self.dw = EsViTCvtConv2d(dim, dim, kernel_size=3, padding=1, groups=dim, bias=False)
        self.bn = EsViTBatchNorm(dim)
        self.pw = EsViTCvtPointwise(dim, 3 * dim, bias=config.qkv_bias)

    def forward(self, padded: torch.Tensor) -> tuple[torch.Tensor, BatchStatistics | None]:
        """Projects `[n, H, W, C]` to `[n, H, W, 3C]`; in training also returns the statistics of the batch."""
        convolved = self.dw(padded.permute(0, 3, 1, 2))
        if not is_recomputed(self, convolved) or self.bn.joint:
            return self.normalize_and_project(convolved)
        # Normalising again costs less than keeping its result.
        return checkpoint(self.normalize_and_project, convolved, use_reentrant=False, preserve_rng_state=False)

    def normalize_and_project(self, convolved: torch.Tensor) -> tuple[torch.Tensor, BatchStatistics | None]:
        normalized, batch = self.bn.normalize(convolved)
        return self.pw(normalized.permute(0, 2, 3, 1)), batch


class EsViTCvtAttention(nn.Module):
    """Computes multi-head self-attention inside windows that do not overlap."""

    def __init__(self, config: "EsViTConfig", dim: int, num_heads: int):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scaling = dim**-0.5
        self.is_causal = False
        self.attention_dropout = config.attention_probs_dropout_prob
        self.qkv = EsViTCvtProjection(config, dim)
        self.proj_out = EsViTCvtPointwise(dim, dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_states: torch.Tensor, grids: list[Grid], output_attentions: bool = False
    ) -> tuple[torch.Tensor, AttentionWeights, list[BatchStatistics | None]]:
        """Attends inside the windows of normed, packed tokens.

        Also returns the weights of each group `[n * windows, heads, window**2, window**2]` if they are asked for, and
        in training the batch statistics of each group.
        """
        groups = [self.attend(group, output_attentions) for group in split_groups(hidden_states, grids)]
        outputs, weights, statistics = zip(*groups, strict=True)
        attended = self.dropout(self.proj_out(pack_groups(list(outputs)).view_as(hidden_states)))
        if not output_attentions:
            return attended, None, list(statistics)
        return attended, weights[0] if len(weights) == 1 else weights, list(statistics)

    def attend(
        self, tokens: torch.Tensor, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, BatchStatistics | None]:
        """Attends inside the windows of one group, `[n, h, w, C]`."""
        n, h, w, width = tokens.shape
        window = min(self.config.window_size, h, w)
        height, width_in_tokens = compute_padded_size(h, w, window)
        padded = F.pad(tokens, (0, 0, 0, width_in_tokens - w, 0, height - h))
        projected, batch = self.qkv(padded)
        grid = (n, height, width_in_tokens)
        if is_gathered(projected):
            rows = to_windows(projected.reshape(-1, self.head_dim), [grid], window, 0, self.num_heads)
            query, key, value = rows.view(3, -1, self.num_heads, window**2, self.head_dim).unbind(0)
        else:
            query, key, value = split_heads(cut_windows(projected, window, 0), self.num_heads)
        output, weights = attention_function(self.config, output_attentions)(
            self,
            query,
            key,
            value,
            None,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
        )
        if is_gathered(projected):
            rows = output.transpose(1, 2).reshape(-1, self.head_dim)
            image = to_tokens(rows, [grid], window, 0, self.num_heads).view(*grid, width)[:, :h, :w]
        else:
            image = join_windows(output.flatten(2), (n, h, w), window, 0)
        return image, weights, batch


class EsViTCvtMLP(nn.Module):
    def __init__(self, config: "EsViTConfig", dim: int):
        super().__init__()
        hidden = int(dim * config.mlp_ratio)
        self.net = nn.ModuleList(
            [EsViTCvtPointwise(dim, hidden), ACT2FN[config.hidden_act], EsViTCvtPointwise(hidden, dim)]
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, norm: TokenFunction) -> torch.Tensor:
        """Transforms any `[..., C]`; `norm` is applied first."""
        first, activation, second = self.net
        hidden = recompute_inner(first, norm, hidden_states)
        return self.dropout(recompute_inner(second, lambda hidden: self.dropout(activation(hidden)), hidden))


class EsViTCvtBranch(nn.Module):
    """Holds a norm and the function that follows it, which has its name, `fn`, from the original."""

    def __init__(self, config: "EsViTConfig", dim: int, function: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.fn = function


class EsViTCvtLayer(EsViTLayer, nn.ModuleList):
    """Holds a block, a list of two as in the original: window attention and MLP, pre-normed, residual, DropPath."""

    def __init__(self, config: "EsViTConfig", dim: int, num_heads: int, drop_path: float):
        super().__init__()
        self.append(EsViTCvtBranch(config, dim, EsViTCvtAttention(config, dim, num_heads)))
        self.append(EsViTCvtBranch(config, dim, EsViTCvtMLP(config, dim)))
        self.drop_path = EsViTDropPath(drop_path)

    def forward(
        self, hidden_states: torch.Tensor, grids: list[Grid], output_attentions: bool = False
    ) -> tuple[torch.Tensor, AttentionWeights, list[BatchStatistics | None]]:
        """Transforms packed tokens.

        Also returns the batch statistics for [`update`], which is not called again where this is computed again.
        """
        attention: Any = self[0]
        mlp: Any = self[1]
        factors = [self.drop_path(grids, hidden_states) for _ in ("attention", "mlp")]
        branch, weights, statistics = attention.fn(attention.norm(hidden_states), grids, output_attentions)
        tokens = add_branch(hidden_states.flatten(0, 1), branch.flatten(0, 1), factors[0])
        # The norm's call, not the norm: Accelerate's hooks move every module that they find among the arguments.
        tokens = add_branch(tokens, mlp.fn(tokens, mlp.norm.__call__), factors[1])
        return tokens.view_as(hidden_states), weights, statistics

    def update(self, statistics: list[BatchStatistics | None]) -> None:
        """Moves the running statistics of the attention's norm."""
        attention: Any = self[0]
        for batch in statistics:
            attention.fn.qkv.bn.update(batch)


class EsViTCvtStage(EsViTStage):
    """Holds the blocks of one resolution."""

    def __init__(self, config: "EsViTConfig", index: int, drop_path: list[float]):
        super().__init__()
        dim, heads = config.stage_widths()[index], config.num_heads[index]
        self.layers = nn.ModuleList(EsViTCvtLayer(config, dim, heads, rate) for rate in drop_path)

    def forward(
        self, hidden_states: torch.Tensor, grids: list[Grid], output_attentions: bool = False, last_blocks: int = 0
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Returns the tokens, and those of the last `last_blocks` blocks."""
        kept = []
        block: Any
        for index, block in enumerate(self.layers):
            hidden_states, _, statistics = block(hidden_states, grids, output_attentions)
            block.update(statistics)
            if index >= len(self.layers) - last_blocks:
                kept.append(hidden_states)
        return hidden_states, kept


class EsViTCvtEncoder(nn.Module):
    """Holds stages `stage0`, `stage1`, ..., each a patch embedding and its blocks, and the final norm."""

    def __init__(self, config: "EsViTConfig"):
        super().__init__()
        self.config = config
        self.depths = config.depths
        for stage, rates in enumerate(spread_drop_path_rates(config.drop_path_rate, config.depths)):
            parts = [EsViTCvtEmbed(config, stage), EsViTCvtStage(config, stage, rates)]
            self.add_module(f"stage{stage}", nn.ModuleList(parts))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def input_embedding(self) -> nn.Module:
        return self.get_submodule("stage0.0.proj")

    def check_size(self, height: int, width: int) -> None:
        """Checks that an image of this size has a token in each stage.

        Raises:
            EsViTInputError: it has none in some stage.
        """
        if min(self.config.region_grid(height, width)) < 1:
            raise EsViTInputError(
                f"An image of {height} x {width} pixels is smaller than one patch of a stage (kernels "
                f"{self.config.patch_kernels}, paddings {self.config.patch_paddings}); enlarge it first."
            )

    def forward(self, crops: list[torch.Tensor], request: EncoderRequest) -> EncoderOutput:
        """Encodes groups of crops, each `[n, channels, height, width]`."""
        maps: list[torch.Tensor] = []
        pooled_blocks: list[torch.Tensor] = []
        for index in range(len(self.depths)):
            embed, stage = self.get_submodule(f"stage{index}").children()
            tokens, grids = embed(crops)
            if request.maps and index == 0:
                maps.append(to_map(tokens, grids))
            wanted = max(request.last_blocks - sum(self.depths[index + 1 :]), 0)
            tokens, blocks = stage(tokens, grids, request.attentions, wanted)
            if request.maps:
                maps.append(to_map(tokens, grids))
            crops = [group.permute(0, 3, 1, 2) for group in split_groups(tokens, grids)]
            is_last = index == len(self.depths) - 1
            pooled_blocks += [pool_groups(self.norm(block) if is_last else block, grids) for block in blocks]
        tokens = self.norm(tokens)
        maps_or_none = tuple(maps) if request.maps else None
        return EncoderOutput(tokens, grids, pool_groups(tokens, grids), maps_or_none, tuple(pooled_blocks))


# The family

CVT_CONSTANTS: dict[str, Any] = {
    **{"patch_kernels": [7, 3, 3, 3], "patch_strides": [4, 2, 2, 2], "patch_paddings": [2, 1, 1, 1]},
    **{"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"},
}


def find_token_grids(config: "EsViTConfig", height: int, width: int) -> list[TokenGrid]:
    """Returns the grid of each stage.

    Embeddings overlap and are not symmetric about their patches, so a token lies where the centre of its kernel does.
    """
    rows, columns, apart, first = height, width, 1, 0.5
    grids = []
    for stage in range(len(config.depths)):
        kernel, stride, padding = config.patch_convolution(stage)
        first += apart * ((kernel - 1) / 2 - padding)
        apart *= stride
        rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in (rows, columns))
        grids.append(TokenGrid(rows, columns, apart, first, (height, width)))
    return grids


def find_attention_layouts(
    encoder: EsViTCvtEncoder, config: "EsViTConfig", grids: Sequence[TokenGrid]
) -> list[AttentionLayout]:
    windows = [min(config.window_size, grid.rows, grid.columns) for grid in grids]
    return [
        AttentionLayout(stage, window=windows[stage]) for stage, depth in enumerate(config.depths) for _ in range(depth)
    ]


def validate(config: "EsViTConfig") -> None:
    names = ("patch_kernels", "patch_strides", "patch_paddings")
    require_stages(config, **{name: getattr(config, name) for name in names})
    for stage, (kernel, padding) in enumerate(zip(config.patch_kernels, config.patch_paddings, strict=True)):
        if padding >= kernel:
            raise ValueError(f"patch_paddings[{stage}]={padding} must be less than patch_kernels[{stage}]={kernel}.")
    require_widths(config)
    require_heads(config)


def list_unseen(config: "EsViTConfig") -> dict[str, Any]:
    names = ("num_heads", "window_size", "patch_strides", "patch_paddings", "layer_norm_eps", "hidden_act")
    return {name: getattr(config, name) for name in names}


CVT = Family(
    key="cvt",
    name="CvT",
    encoder=EsViTCvtEncoder,
    variants={
        "cvt-tiny": {  # experiments/imagenet/cvt_v4/s1.yaml of the original
            **{"embed_dim": 64, "stage_dims": [64, 192, 384, 768], "depths": [2, 2, 6, 2], "num_heads": [1, 3, 6, 12]},
            **{**CVT_CONSTANTS, "drop_path_rate": 0.1},
        },
        "cvt-small": {  # s3.yaml
            **{"embed_dim": 64, "stage_dims": [64, 128, 256, 512], "depths": [2, 2, 10, 4], "num_heads": [2, 4, 8, 16]},
            **{**CVT_CONSTANTS, "drop_path_rate": 0.2},
        },
    },
    options=(*NETWORK_OPTIONS, "window_size", "stage_dims", "patch_strides", "patch_kernels", "patch_paddings"),
    identity=(
        *("num_channels", "stage_dims", "depths", "num_heads", "window_size", "mlp_ratio", "qkv_bias"),
        *("patch_kernels", "patch_strides", "patch_paddings", "layer_norm_eps", "hidden_act"),
    ),
    token_grids=find_token_grids,
    validate=validate,
    unseen=list_unseen,
    attention_layouts=find_attention_layouts,
)
