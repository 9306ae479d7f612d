# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""
Convert a checkpoint of the original EsViT (microsoft/esvit) to a model folder:

    python -m modeling_esvit.convert_original checkpoint.pth out/ [--key teacher|student] [--native] [--image-size 224]

The architecture is read from the shapes of the tensors. A checkpoint with projection heads becomes an
`EsViTForPreTraining` (from which `AutoModel` loads the backbone), one without an `EsViTModel`. `--native` writes the
backbone in transformers' own `swin` format instead; it also takes a model folder of this project.
"""

import argparse
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError

from .configuration_esvit import ARCHITECTURES, EsViTConfig
from .modeling_esvit import EsViTForPreTraining, EsViTModel
from .native_swin import load_backbone, residual_scale, save_native
from .original_checkpoint import ConversionError, OriginalCheckpoint, load_original_state_dict, read_checkpoint


DEFAULT_IMAGE_SIZE = 224
BLOCK = re.compile(r"^layers\.(\d+)\.blocks\.(\d+)\.")
BACKBONE_FIELDS = (
    *("image_size", "patch_size", "num_channels", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio"),
    *("qkv_bias", "use_absolute_embeddings", "patch_norm"),
)
# Original name or prefix and ours; the first that fits counts, the last fits all.
RENAMED_PREFIXES = (
    ("head.", "view_head."),
    ("head_dense.", "region_head."),
    ("dino_loss.center_grid", "region_center"),
    ("dino_loss.center", "view_center"),
    ("absolute_pos_embed", "esvit.encoder.patch_embed.absolute_pos_embed"),
    ("", "esvit.encoder."),
)


@dataclass
class ConversionReport:
    """What was written where, and what a user of it should know."""

    source: str
    output: Path
    model_class: str
    config: EsViTConfig
    num_parameters: int
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        config = self.config
        name = published_name(config)
        stages = f"width {config.embed_dim}, depths {joined(config.depths)}, heads {joined(config.num_heads)}"
        lines = [
            f"{self.source} -> {self.output}",
            f"{self.model_class}, {name or 'no published architecture'}",
            f"Swin, {stages}, window {config.window_size} at {config.image_size} px",
            f"{self.num_parameters:,} backbone parameters",
            *self.notes,
        ]
        return "\n  ".join(lines)


def joined(numbers) -> str:
    return "-".join(str(number) for number in numbers)


# Architecture


def infer_config(state_dict: Mapping[str, torch.Tensor], image_size: int | None = None, **overrides) -> EsViTConfig:
    """
    The configuration of a network from the shapes of its tensors (on any device, `meta` too).

    Args:
        state_dict: original names, as from [`load_original_state_dict`].
        image_size: construction size, where the shapes leave a choice; the default is 224 if that fits.
        overrides: what shapes cannot tell, such as `norm_last_layer`.

    Raises:
        ConversionError: a tensor that decides is missing or has an impossible shape, or the image size is not decided.
    """
    blocks = {(int(match[1]), int(match[2])) for name in state_dict if (match := BLOCK.match(name))}
    stages = range(max(len({stage for stage, _ in blocks}), 1))
    tables = [shape_of(state_dict, f"layers.{stage}.blocks.*.relative_position_bias_table", 2) for stage in stages]
    windows = [window_of(rows) for rows, _ in tables]
    embed_dim, num_channels, patch_size, _ = shape_of(state_dict, "patch_embed.proj.weight", 4)
    hidden, width = shape_of(state_dict, f"layers.{max(stages)}.blocks.*.mlp.fc1.weight", 2)
    num_positions = shape_of(state_dict, "absolute_pos_embed", 3)[1] if "absolute_pos_embed" in state_dict else None
    fields = {
        "image_size": infer_image_size(windows, patch_size, num_positions, image_size),
        "patch_size": patch_size,
        "num_channels": num_channels,
        "embed_dim": embed_dim,
        "depths": [sum(stage == other for other, _ in blocks) for stage in stages],
        "num_heads": [heads for _, heads in tables],
        "window_size": max(windows),
        "mlp_ratio": mlp_ratio(hidden, width),
        "qkv_bias": any(name.endswith(".attn.qkv.bias") for name in state_dict),
        "patch_norm": any(name.startswith("patch_embed.norm.") for name in state_dict),
        "use_absolute_embeddings": "absolute_pos_embed" in state_dict,
        **infer_heads(state_dict),
        **overrides,
    }
    try:
        config = EsViTConfig(**fields)
        name = published_name(config)
        return config if name is None else EsViTConfig(**{**ARCHITECTURES[name], **fields})
    except StrictDataclassError as error:
        raise ConversionError(f"The shapes of the tensors contradict each other: {error}") from error


def shape_of(state_dict: Mapping[str, torch.Tensor], pattern: str, rank: int) -> tuple[int, ...]:
    """Shape of the first tensor whose name matches, which must have `rank` dimensions."""
    for name, tensor in state_dict.items():
        if fnmatchcase(name, pattern):
            if tensor.ndim != rank:
                raise ConversionError(f"{name} has shape {list(tensor.shape)}; it must have {rank} dimensions.")
            return tuple(tensor.shape)
    raise ConversionError(f"The tensor {pattern} is missing.")


def window_of(rows: int) -> int:
    """Window of a relative position bias table, which has (2 w - 1)^2 rows."""
    side = math.isqrt(rows)
    if side * side != rows or side % 2 == 0:
        raise ConversionError(
            f"A relative position bias table has {rows} rows; no window w gives (2 w - 1)^2 = {rows}."
        )
    return (side + 1) // 2


def mlp_ratio(hidden: int, width: int) -> float:
    """A ratio r with int(width * r) == hidden. From the last stage, as the narrower ones then follow."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def infer_image_size(
    windows: list[int], patch_size: int, num_positions: int | None = None, requested: int | None = None
) -> int:
    """
    The construction size: `requested`, else 224, if it gives these windows, else the one that does.

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
    origin = f"The windows {joined(windows)}, patches of {patch_size} px"
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
        "differ in which stages shift their windows; give the size of the training run (--image-size)."
    )


def infer_heads(state_dict: Mapping[str, torch.Tensor]) -> dict:
    """Fields of the projection heads; none if the network has no heads."""
    heads = {name.split(".")[0] for name in state_dict} & {"head", "head_dense"}
    if not heads:
        return {}
    head = min(heads)
    names = [name for name in state_dict if re.fullmatch(rf"{head}\.mlp\.\d+\.weight", name)]
    names = [name for name in names if state_dict[name].ndim == 2]  # not those of BatchNorms
    if not names:
        raise ConversionError(f"The tensors {head}.mlp.*.weight are missing.")
    linears = [state_dict[name].shape for name in sorted(names, key=lambda name: int(name.split(".")[2]))]
    fields = {
        "num_prototypes": shape_of(state_dict, f"{head}.last_layer.weight_[gv]", 2)[0],
        "head_num_layers": len(linears),
        "head_bottleneck_size": linears[-1][0],
        "head_batch_norm": any(name.endswith(".running_mean") for name in state_dict),
        "region_head": "head_dense" in heads,
    }
    return fields if len(linears) == 1 else {**fields, "head_hidden_size": linears[0][0]}


def published_name(config: EsViTConfig) -> str | None:
    """Name of the published architecture whose backbone this is, whatever its window."""
    for name in ARCHITECTURES:
        published = EsViTConfig.from_architecture(name, window_size=config.window_size)
        if all(getattr(config, field) == getattr(published, field) for field in BACKBONE_FIELDS):
            return name
    return None


# Tensors


def our_name(name: str) -> str:
    """Name in `EsViTForPreTraining` of a tensor of the original."""
    old, new = next((old, new) for old, new in RENAMED_PREFIXES if name.startswith(old))
    return new + name[len(old) :]


def original_name(name: str) -> str:
    """Inverse of [`our_name`]."""
    old, new = next((old, new) for old, new in RENAMED_PREFIXES if name.startswith(new))
    return old + name[len(new) :]


def check_tensors(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    """
    Compare names and shapes (keys are names in `EsViTForPreTraining`).

    Raises:
        ConversionError: they differ; every missing, unexpected and misshapen tensor is named, as the original names it.
    """
    problems = [
        f"missing: {original_name(name)} {list(tensor.shape)}" for name, tensor in expected.items() if name not in found
    ]
    for name, tensor in found.items():
        if name not in expected:
            problems.append(f"unexpected: {original_name(name)} {list(tensor.shape)}")
        elif tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, expected {list(expected[name].shape)}"
            problems.append(f"misshapen: {original_name(name)} {shapes}")
    if problems:
        listed = "\n  ".join(problems)
        raise ConversionError(f"{len(problems)} tensors do not fit the Swin that the others describe:\n  {listed}")


def check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    broken = [original_name(name) for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise ConversionError(f"NaN or infinite values (training had diverged): {', '.join(broken)}.")


def build_model(
    checkpoint: OriginalCheckpoint, image_size: int | None
) -> tuple[EsViTForPreTraining | EsViTModel, list[str]]:
    """
    The model of a checkpoint, in float32: `EsViTForPreTraining`, or `EsViTModel` if it has no heads. With remarks.

    Raises:
        ConversionError: tensors are missing, unexpected, misshapen or not finite.
    """
    tensors = {our_name(name): tensor for name, tensor in checkpoint.state_dict.items()}
    has_heads = any(name.startswith(("view_head.", "region_head.")) for name in tensors)
    if has_heads:
        frozen, reason = prototype_norm_frozen(checkpoint)
        config = infer_config(checkpoint.state_dict, image_size, norm_last_layer=frozen)
        centers, remark = centers_of(checkpoint, config)
        tensors |= centers
        heads = "view and region head" if config.region_head else "view head"
        notes = [f"{heads}, {config.num_prototypes} prototypes, norm_last_layer={frozen} ({reason})", remark]
    else:
        config = infer_config(checkpoint.state_dict, image_size)
        notes = ["the checkpoint has no projection heads"]
    model = EsViTForPreTraining(config) if has_heads else EsViTModel(config)
    prefix = "" if has_heads else "esvit."
    check_tensors({prefix + name: tensor for name, tensor in model.state_dict().items()}, tensors)
    check_finite(tensors)
    model.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return model, notes


def prototype_norm_frozen(checkpoint: OriginalCheckpoint) -> tuple[bool, str]:
    """`norm_last_layer`, which shapes do not tell, and how it is known."""
    if "norm_last_layer" in checkpoint.args:
        return bool(checkpoint.args["norm_last_layer"]), "from the options in the checkpoint"
    norms = [tensor for name, tensor in checkpoint.state_dict.items() if name.endswith("last_layer.weight_g")]
    if all(bool((norm == 1).all()) for norm in norms):
        return True, "assumed: all prototypes have norm 1"
    return False, "the prototypes' norms are not 1"


def centers_of(checkpoint: OriginalCheckpoint, config: EsViTConfig) -> tuple[dict[str, torch.Tensor], str]:
    """Centres `[K]` of the teacher's logits, zero where the checkpoint has none; and a remark on that."""
    wanted = {"center": "view_center", **({"center_grid": "region_center"} if config.region_head else {})}
    centers = {ours: torch.zeros(config.num_prototypes) for ours in wanted.values()}
    centers |= {ours: checkpoint.centers[name].flatten() for name, ours in wanted.items() if name in checkpoint.centers}
    absent = [ours for name, ours in wanted.items() if name not in checkpoint.centers]
    return centers, f"zero, as the checkpoint lacks them: {', '.join(absent)}" if absent else "centres kept"


# Folders


def convert(
    path: str | Path, output: str | Path, key: str = "teacher", native: bool = False, image_size: int | None = None
) -> ConversionReport:
    """
    Convert a checkpoint file (with `native` also a model folder of this project) to a new model folder.

    Args:
        key: network of a training checkpoint, `"teacher"` or `"student"`.
        native: write transformers' own `swin` format, if that can carry the model, and compare its outputs with ours.
        image_size: construction size, where the checkpoint leaves a choice (see [`infer_config`]).

    Raises:
        ConversionError: see [`read_checkpoint`], [`build_model`], [`save_native`]; or `output` exists and is not empty.
            In every case `output` is left as it was.
    """
    path, output = Path(path), Path(output).resolve()
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ConversionError(f"{output} exists already; name another output folder, or delete it first.")
    model, source, notes = load_source(path, key, native, image_size)
    backbone = model.esvit if isinstance(model, EsViTForPreTraining) else model
    with staged_folder(output) as folder:
        if native:
            notes = native_notes(backbone.config, save_native(backbone, folder))
        else:
            model.save_pretrained(folder)
    written = "transformers' SwinModel" if native else type(model).__name__
    num_parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return ConversionReport(source, output, written, model.config, num_parameters, notes)


def load_source(
    path: Path, key: str, native: bool, image_size: int | None
) -> tuple[EsViTForPreTraining | EsViTModel, str, list[str]]:
    """The model of a checkpoint file or model folder, a description of where it comes from, and remarks."""
    if path.is_dir():
        if not native:
            raise ConversionError(f"{path} is a folder; name the checkpoint file in it.")
        return load_backbone(path), str(path), []
    checkpoint = read_checkpoint(path, key)
    model, notes = build_model(checkpoint, image_size)
    if checkpoint.left_out:
        left_out = dict.fromkeys(name.rsplit(".", 1)[-1] for name in checkpoint.left_out)
        notes.append(f"left out: {', '.join(left_out)}")
    epoch = "" if checkpoint.epoch is None else f", epoch {checkpoint.epoch}"
    return model, f"{path} ({checkpoint.source}{epoch})", notes


@contextmanager
def staged_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside `output` that becomes `output` if the body succeeds, and vanishes if not."""
    existing = next(parent for parent in output.parents if parent.is_dir())
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=existing) as scratch:
        folder = Path(scratch) / output.name
        yield folder
        output.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(output)


def native_notes(config: EsViTConfig, difference: float) -> list[str]:
    """What a user of the native format must know."""
    size = config.image_size if isinstance(config.image_size, int) else "x".join(map(str, config.image_size))
    return [
        f"equal to ours at {size} px: largest relative difference {difference:.1e} on random images",
        f"valid at {size} px only: transformers' Swin fails on small images and shifts otherwise on large ones",
        f"outputs are equal, hidden_states are {residual_scale(config):.4f} times ours (for its fixed epsilons)",
        "the backbone alone; this format has no projection heads and centres",
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m modeling_esvit.convert_original", description="Convert an original EsViT checkpoint."
    )
    parser.add_argument("checkpoint", help="checkpoint file (.pth, .pt, .safetensors)")
    parser.add_argument("output", help="new model folder")
    parser.add_argument("--key", choices=("teacher", "student"), default="teacher", help="which network of the file")
    parser.add_argument("--native", action="store_true", help="write transformers' own swin format")
    parser.add_argument("--image-size", type=int, help="image size of the training run, where the tensors do not tell")
    options = parser.parse_args(arguments)
    try:
        print(convert(options.checkpoint, options.output, options.key, options.native, options.image_size))
    except (ConversionError, OSError) as error:
        sys.exit(f"error: {error}")


__all__ = ["ConversionError", "ConversionReport", "convert", "infer_config", "load_original_state_dict"]

if __name__ == "__main__":
    main()
