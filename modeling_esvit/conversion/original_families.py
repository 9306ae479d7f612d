# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Describes how the original names the tensors of each family, and what their shapes tell of an architecture."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.original_resnet import infer_resnet_fields
from modeling_esvit.cvt import CVT, CVT_CONSTANTS
from modeling_esvit.families import FAMILIES
from modeling_esvit.vil_architecture import make_width_fields


DEFAULT_IMAGE_SIZE = 224
VIL_STAGE = re.compile(r"^layer(\d+)\.0\.proj\.")
CVT_BLOCK = re.compile(r"^stage(\d+)\.1\.layers\.(\d+)\.")
RESNET_WIDTH = re.compile(r"^layer\d+\.0\.conv[23]\.weight$")
SWIN_BLOCK = re.compile(r"^layers\.(\d+)\.blocks\.(\d+)\.")


def join_numbers(numbers) -> str:
    """Writes numbers as 2-2-6-2."""
    return "-".join(str(number) for number in numbers)


def preview(content: Mapping) -> str:
    """Writes the first names of a state dict."""
    names = [str(name) for name in content]
    return ", ".join(names[:8]) + (f", ... ({len(names)} entries)" if len(names) > 8 else "")


def shape_of(state_dict: Mapping[str, torch.Tensor], pattern: str, rank: int) -> tuple[int, ...]:
    """Returns the shape of the first tensor whose name matches.

    Raises:
        ConversionError: there is none, or it has not `rank` dimensions.
    """
    for name, tensor in state_dict.items():
        if fnmatchcase(name, pattern):
            if tensor.ndim != rank:
                raise ConversionError(f"{name} has shape {list(tensor.shape)}; it must have {rank} dimensions.")
            return tuple(tensor.shape)
    raise ConversionError(f"The tensor {pattern} is missing.")


def infer_mlp_ratio(hidden: int, width: int) -> float:
    """Returns a ratio r with int(width * r) == hidden. With the last stage's it fits the narrower ones, too."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


# Swin


def infer_swin(state_dict: Mapping[str, torch.Tensor], image_size: int | None) -> dict[str, Any]:
    blocks = {(int(match[1]), int(match[2])) for name in state_dict if (match := SWIN_BLOCK.match(name))}
    stages = range(max(len({stage for stage, _ in blocks}), 1))
    tables = [shape_of(state_dict, f"layers.{stage}.blocks.*.relative_position_bias_table", 2) for stage in stages]
    windows = [infer_window(rows) for rows, _ in tables]
    embed_dim, num_channels, patch_size, _ = shape_of(state_dict, "patch_embed.proj.weight", 4)
    hidden, width = shape_of(state_dict, f"layers.{max(stages)}.blocks.*.mlp.fc1.weight", 2)
    num_positions = shape_of(state_dict, "absolute_pos_embed", 3)[1] if "absolute_pos_embed" in state_dict else None
    return {
        "image_size": infer_image_size(windows, patch_size, num_positions, image_size),
        "patch_size": patch_size,
        "num_channels": num_channels,
        "embed_dim": embed_dim,
        "depths": [sum(stage == other for other, _ in blocks) for stage in stages],
        "num_heads": [heads for _, heads in tables],
        "window_size": max(windows),
        "mlp_ratio": infer_mlp_ratio(hidden, width),
        "qkv_bias": any(name.endswith(".attn.qkv.bias") for name in state_dict),
        "patch_norm": any(name.startswith("patch_embed.norm.") for name in state_dict),
        "use_absolute_embeddings": "absolute_pos_embed" in state_dict,
    }


def infer_window(rows: int) -> int:
    """Returns the window of a relative position bias table, which has (2 w - 1)^2 rows."""
    side = math.isqrt(rows)
    if side * side != rows or side % 2 == 0:
        raise ConversionError(
            f"A relative position bias table has {rows} rows; no window w gives (2 w - 1)^2 = {rows}."
        )
    return (side + 1) // 2


def infer_image_size(
    windows: list[int], patch_size: int, num_positions: int | None = None, requested: int | None = None
) -> int:
    """Returns the construction size: `requested`, else 224, if it gives these windows, else the one that does.

    With g patches a side, stage s has maps of side g >> s and the window min(window, g >> s), so clipped windows bound
    g; a position embedding fixes it. Sizes that give the same windows may still differ in which stages shift (those
    whose maps are larger than the window), and then nothing but the caller can tell.
    """
    window = max(windows)
    lowest = max(side << stage for stage, side in enumerate(windows))
    highest = min((((side + 1) << stage) - 1 for stage, side in enumerate(windows) if side < window), default=math.inf)
    if num_positions is not None:
        side = math.isqrt(num_positions)
        lowest, highest = max(lowest, side), min(highest, side)
    origin = f"The windows {join_numbers(windows)}, patches of {patch_size} px"
    origin += "" if num_positions is None else f" and {num_positions} positions"
    if lowest > highest:
        raise ConversionError(f"{origin} do not come from any one image size, so these tensors are not of one Swin.")
    preferred = DEFAULT_IMAGE_SIZE if requested is None else requested
    if lowest <= preferred // patch_size <= highest:
        return preferred
    shifting = {(window + 1) << stage for stage in range(len(windows))}  # from such a grid on, one more stage shifts
    sizes = [grid * patch_size for grid in sorted({lowest, *shifting}) if lowest <= grid <= highest]
    if requested is None and len(sizes) == 1:
        return sizes[0]
    raise ConversionError(
        f"{origin} do not come from images of {preferred} px. Sizes that fit: {', '.join(map(str, sizes))}. They "
        "differ in which stages shift their windows; give the size of the training run (--image_size)."
    )


# ViL


def infer_vil(state_dict: Mapping[str, torch.Tensor], image_size: int | None) -> dict[str, Any]:
    stages = sorted({int(match[1]) for name in state_dict if (match := VIL_STAGE.match(name))})
    embeddings = [shape_of(state_dict, f"layer{stage}.0.proj.weight", 4) for stage in stages]
    strides = [shape[2] for shape in embeddings]
    sides = {math.prod(strides[: i + 1]): infer_vil_side(state_dict, stage) for i, stage in enumerate(stages)}
    heads = [infer_vil_heads(state_dict, stage) for stage in stages]
    hidden, width = shape_of(state_dict, f"layer{stages[-1]}.*.mlp.fc1.weight", 2)
    return {
        **make_width_fields([shape[0] for shape in embeddings]),
        **infer_vil_window(state_dict, stages),
        "image_size": infer_vil_image_size({pixels: side for pixels, side in sides.items() if side}, image_size),
        "num_channels": embeddings[0][1],
        "depths": [count_vil_blocks(state_dict, stage) for stage in stages],
        "num_heads": None if None in heads else heads,
        "patch_size": strides[0],
        "patch_strides": strides,
        "sparse_stages": [int(is_vil_sparse(state_dict, stage)) for stage in stages],
        "global_tokens": [count_global_tokens(state_dict, stage) for stage in stages],
        "absolute_positions": [int(has_vil_positions(state_dict, stage)) for stage in stages],
        "mlp_ratio": infer_mlp_ratio(hidden, width),
        "qkv_bias": any(name.endswith((".attn.kv.bias", ".attn.qkv.bias")) for name in state_dict),
        "vil_shared_weights": not any(".attn.kv_global." in name for name in state_dict),
    }


def has_vil_positions(state_dict: Mapping[str, torch.Tensor], stage: int) -> bool:
    """Returns whether a stage has position embeddings, and so no tables of position biases."""
    return f"layer{stage}.0.x_pos_embed" in state_dict


def is_vil_sparse(state_dict: Mapping[str, torch.Tensor], stage: int) -> bool:
    return any(fnmatchcase(name, f"layer{stage}.*.attn.kv.weight") for name in state_dict)


def find_vil_table(state_dict: Mapping[str, torch.Tensor], stage: int) -> tuple[int, ...]:
    """Returns the shape of the table of position biases of a stage: rows, heads."""
    return shape_of(state_dict, f"layer{stage}.*.local_relative_position_bias_table", 2)


def infer_vil_heads(state_dict: Mapping[str, torch.Tensor], stage: int) -> int | None:
    """Returns the attention heads of a stage, which only a table of position biases tells."""
    return None if has_vil_positions(state_dict, stage) else find_vil_table(state_dict, stage)[1]


def infer_vil_side(state_dict: Mapping[str, torch.Tensor], stage: int) -> int | None:
    """Returns the side of a stage's map at construction, if its tensors tell it."""
    if has_vil_positions(state_dict, stage):
        return shape_of(state_dict, f"layer{stage}.0.x_pos_embed", 3)[1]
    return None if is_vil_sparse(state_dict, stage) else infer_window(find_vil_table(state_dict, stage)[0])


def infer_vil_window(state_dict: Mapping[str, torch.Tensor], stages: list[int]) -> dict[str, int | None]:
    """Returns the side of a chunk, None where no table of position biases tells it; nothing without sparse stages."""
    sparse = [stage for stage in stages if is_vil_sparse(state_dict, stage)]
    tables = [find_vil_table(state_dict, stage) for stage in sparse if not has_vil_positions(state_dict, stage)]
    # Chunks of W have tables of (4 W - 1)^2 rows, as windows of 2 W have.
    chunks = {infer_window(rows) // 2 for rows, _ in tables}
    return {"window_size": chunks.pop() if chunks else None} if sparse else {}


def find_empty_positions(state_dict: Mapping[str, torch.Tensor]) -> list[str]:
    """Returns the names of empty position embeddings of global tokens, in stages that have no global tokens."""
    prefixes = {f"layer{match[1]}.0." for name in state_dict if (match := VIL_STAGE.match(name))}
    names = {
        f"{prefix}cls_pos_embed"
        for prefix in prefixes
        if f"{prefix}x_pos_embed" in state_dict and f"{prefix}cls_token" not in state_dict
    }
    return [name for name in state_dict if name in names and not state_dict[name].numel()]


def count_vil_blocks(state_dict: Mapping[str, torch.Tensor], stage: int) -> int:
    return sum(fnmatchcase(name, f"layer{stage}.*.attn.proj.weight") for name in state_dict)


def count_global_tokens(state_dict: Mapping[str, torch.Tensor], stage: int) -> int:
    name = f"layer{stage}.0.cls_token"
    return shape_of(state_dict, name, 3)[1] if name in state_dict else 0


def infer_vil_image_size(sides: dict[int, int], requested: int | None) -> int:
    """Returns the construction size: `requested`, else 224, if full stages then have maps of these sides.

    If neither was asked for nor fits, it is the smallest size that does. `sides` are by the pixels that a token of the
    stage covers on each side.
    """
    preferred = requested or DEFAULT_IMAGE_SIZE
    if all(preferred // pixels == side for pixels, side in sides.items()):
        return preferred
    smallest = max(side * pixels for pixels, side in sides.items())
    if requested is None and all(smallest // pixels == side for pixels, side in sides.items()):
        return smallest
    maps = ", ".join(f"{side} of {pixels} px" for pixels, side in sides.items())
    raise ConversionError(f"Maps at construction, whose sides are {maps}, do not come from images of {preferred} px.")


# ViT

VIT_HEAD_WIDTH = 64  # of every published DeiT and ViT; no tensor tells it


def infer_vit(state_dict: Mapping[str, torch.Tensor], image_size: int | None) -> dict[str, Any]:
    embed_dim, num_channels, patch_size, _ = shape_of(state_dict, "patch_embed.proj.weight", 4)
    _, num_positions, _ = shape_of(state_dict, "pos_embed", 3)
    hidden, width = shape_of(state_dict, "blocks.0.mlp.fc1.weight", 2)
    blocks = {name.split(".")[1] for name in state_dict if name.startswith("blocks.")}
    return {
        "image_size": infer_vit_image_size(num_positions, patch_size, image_size),
        "patch_size": patch_size,
        "num_channels": num_channels,
        "embed_dim": embed_dim,
        "depths": [len(blocks)],
        "num_heads": None if embed_dim % VIT_HEAD_WIDTH else [embed_dim // VIT_HEAD_WIDTH],
        "mlp_ratio": infer_mlp_ratio(hidden, width),
        "qkv_bias": any(name.endswith(".attn.qkv.bias") for name in state_dict),
    }


def infer_vit_image_size(num_positions: int, patch_size: int, requested: int | None) -> int:
    """Returns the construction size: `requested`, else 224, if it gives so many positions, else the one that does."""
    side = math.isqrt(num_positions - 1)
    if side**2 + 1 != num_positions:
        raise ConversionError(
            f"pos_embed has {num_positions} positions; a square image and a class token have k^2 + 1."
        )
    preferred = requested or DEFAULT_IMAGE_SIZE
    if preferred // patch_size == side:
        return preferred
    if requested is None:
        return side * patch_size
    raise ConversionError(
        f"pos_embed has {num_positions} positions, as {side * patch_size} px give; --image_size is {requested}."
    )


# ResNet


def infer_resnet(state_dict: Mapping[str, torch.Tensor], image_size: int | None) -> dict[str, Any]:
    for pattern in ("conv1.weight", *(name for name in state_dict if RESNET_WIDTH.match(name))):
        shape_of(state_dict, pattern, 4)
    try:
        backbone = infer_resnet_fields(state_dict)
    except KeyError as error:
        raise ConversionError(f"The tensor {error.args[0]} is missing.") from error
    return {"backbone_config": backbone, "image_size": image_size or DEFAULT_IMAGE_SIZE}


# CvT


def infer_cvt(state_dict: Mapping[str, torch.Tensor], image_size: int | None) -> dict[str, Any]:
    """Infers a CvT. Strides and paddings are the original's.

    The number of heads leaves no trace in the tensors: it is that of the published architecture of these widths and
    depths, if there is one.
    """
    blocks = {(int(match[1]), int(match[2])) for name in state_dict if (match := CVT_BLOCK.match(name))}
    stages = range(max(len({stage for stage, _ in blocks}), 1))
    shapes = [shape_of(state_dict, f"stage{stage}.0.proj.weight", 4) for stage in stages]
    hidden, width, _, _ = shape_of(state_dict, f"stage{max(stages)}.1.layers.*.fn.net.0.weight", 4)
    fields = {
        **{name: value[: len(stages)] if isinstance(value, list) else value for name, value in CVT_CONSTANTS.items()},
        "image_size": image_size or DEFAULT_IMAGE_SIZE,
        "num_channels": shapes[0][1],
        "embed_dim": shapes[0][0],
        "stage_dims": [shape[0] for shape in shapes],
        "patch_kernels": [shape[2] for shape in shapes],
        "depths": [sum(stage == other for other, _ in blocks) for stage in stages],
        "mlp_ratio": infer_mlp_ratio(hidden, width),
        "qkv_bias": any(name.endswith(".qkv.pw.bias") for name in state_dict),
        "num_heads": None,
    }
    for published in CVT.variants.values():
        if all(published[name] == fields[name] for name in ("stage_dims", "depths")):
            fields["num_heads"] = published["num_heads"]
    return fields


# The table


@dataclass(frozen=True)
class OriginalFamily:
    """Describes how the original names the tensors of a family.

    keys: matches the start of the name of a tensor that this family alone has.
    derived: found in the names of tensors that are left out, as the model makes them itself.
    fields: fields of a configuration, from the tensors and the construction size that the caller names; None for what
        they do not tell.
    empty: the names of tensors without values that the original saves for parts that a network does not have.
    alias: found in the names of tensors that may be second names of others, whose names lack it. These tensors are
        left out if all of them are.
    name: as people write it, if that is not the name of the family.
    """

    keys: re.Pattern
    derived: re.Pattern
    fields: Callable[[Mapping[str, torch.Tensor], int | None], dict[str, Any]]
    empty: Callable[[Mapping[str, torch.Tensor]], list[str]] = lambda state_dict: []
    alias: re.Pattern | None = None
    name: str | None = None


# The keys are those of FAMILIES.
ORIGINAL_FAMILIES = {
    "vit": OriginalFamily(
        keys=re.compile(r"(cls_token|pos_embed)$|blocks\.\d+\."),
        derived=re.compile(r"(?!)"),
        fields=infer_vit,
    ),
    "auto": OriginalFamily(
        keys=re.compile(r"conv1\.|layer1\.0\.conv1\."),
        derived=re.compile(r"^fc\."),  # the classifier of torchvision's networks
        fields=infer_resnet,
        name="ResNet",
    ),
    "swin": OriginalFamily(
        keys=re.compile(r"patch_embed\.|layers\.0\.blocks\."),
        derived=re.compile(r"\.(relative_position_index|attn_mask)$"),
        fields=infer_swin,
    ),
    "vil": OriginalFamily(
        keys=re.compile(r"layer1\.0\.(cls_token|proj\.|norm_embed\.)"),
        derived=re.compile(r"\.relative_position_index$"),
        fields=infer_vil,
        empty=find_empty_positions,
        alias=re.compile(r"_global(?=\.(weight|bias)$)"),
    ),
    "cvt": OriginalFamily(
        keys=re.compile(r"stage0\.0\."),
        derived=re.compile(r"\.rel_pos_idx$"),
        fields=infer_cvt,
    ),
}
NAMES = " or ".join(family.name or FAMILIES[key].name for key, family in ORIGINAL_FAMILIES.items())


def find_family(names: Iterable[str]) -> str | None:
    """Returns the key of the family that tensors of these names are of, if any."""
    found = [name for name, family in ORIGINAL_FAMILIES.items() if any(family.keys.match(key) for key in names)]
    return found[0] if found else None
