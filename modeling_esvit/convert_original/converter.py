# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Converts a checkpoint of the original EsViT (microsoft/esvit) to a model folder.

    python -m modeling_esvit.convert_original checkpoint.pth esvit-swin-t
    python -m modeling_esvit.convert_original checkpoint.pth esvit-student --key student
    python -m modeling_esvit.convert_original checkpoint.pth swin --native

The architecture is read from the shapes of the tensors. A checkpoint with projection heads becomes an
`EsViTForPreTraining` (from which `AutoModel` loads the backbone), one without an `EsViTModel`. `--native` writes the
backbone in transformers' own `swin` format instead; it also takes a model folder of this project.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.initialization import no_init_weights

from modeling_esvit.configuration_esvit import EsViTArchitectureError, EsViTConfig, check_field, find_published_name
from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.native_swin import compute_residual_scale, load_backbone, save_native
from modeling_esvit.conversion.original_architecture import infer_config
from modeling_esvit.conversion.original_checkpoint import OriginalCheckpoint, describe_weights, read_checkpoint
from modeling_esvit.conversion.original_families import join_numbers
from modeling_esvit.conversion.original_resnet import to_torchvision, to_transformers
from modeling_esvit.conversion.stored_archive import describe_part
from modeling_esvit.modeling_esvit import EsViTForPreTraining, EsViTModel
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.atomic import replace_folder
from modeling_esvit.storage.paths import parse_name, parse_path
from modeling_esvit.storage.weight_bars import hide_weight_bars
from modeling_esvit.storage.weights_record import WeightsRecord, read_weights_record, write_weights_record


BACKBONE = "esvit.encoder.backbone."  # what is of transformers, which has its own names: a ResNet
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
    """Says what was written where, and what a user of it should know."""

    source: str
    output: Path
    model_class: str
    config: EsViTConfig
    num_parameters: int
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        config = self.config
        name = find_published_name(config)
        lines = [
            f"{self.source} -> {self.output}",
            f"{self.model_class}, {name or 'no published architecture'}",
            describe_architecture(config),
            f"{self.num_parameters:,} backbone parameters",
            *self.notes,
        ]
        return "\n  ".join(lines)


def describe_architecture(config: EsViTConfig) -> str:
    """Writes a line on the widths, depths, heads and window of a configuration."""
    if config.family.wraps_backbone:
        fields = config.backbone_config
        widths, depths = join_numbers(fields.hidden_sizes), join_numbers(fields.depths)
        return f"{fields.model_type} of transformers, widths {widths}, depths {depths}"
    widths, depths, heads = map(join_numbers, (config.stage_widths(), config.depths, config.num_heads))
    stages = f"widths {widths}, depths {depths}, heads {heads}"
    window = f"window {config.window_size}" if config.family.has_windows else f"patch {config.patch_size}"
    return f"{config.family.name}, {stages}, {window} at {config.image_size} px"


# Tensors


def to_our_name(name: str) -> str:
    """Returns the name in `EsViTForPreTraining` of a tensor of the original."""
    if (inner := to_transformers(name)) != name:
        return BACKBONE + inner
    old, new = next((old, new) for old, new in RENAMED_PREFIXES if name.startswith(old))
    return new + name[len(old) :]


def to_original_name(name: str) -> str:
    """Inverts [`to_our_name`]."""
    if name.startswith(BACKBONE):
        return to_torchvision(name.removeprefix(BACKBONE))
    old, new = next((old, new) for old, new in RENAMED_PREFIXES if name.startswith(new))
    return old + name[len(new) :]


def check_tensors(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    """Compares names and shapes (keys are names in `EsViTForPreTraining`).

    Raises:
        ConversionError: they differ; every missing, unexpected and misshapen tensor is named, as the original names it.
    """
    problems = [
        f"missing: {to_original_name(name)} {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name not in found
    ]
    for name, tensor in found.items():
        if name not in expected:
            problems.append(f"unexpected: {to_original_name(name)} {list(tensor.shape)}")
        elif tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, expected {list(expected[name].shape)}"
            problems.append(f"misshapen: {to_original_name(name)} {shapes}")
    if problems:
        listed = "\n  ".join(problems)
        raise ConversionError(
            f"{len(problems)} tensors do not fit the architecture that the others describe:\n  {listed}"
        )


def describe_tensors(model_class: type[torch.nn.Module], config: EsViTConfig) -> dict[str, torch.Tensor]:
    """Returns names and shapes of a model's tensors, which take no memory: a file may describe any size."""
    with torch.device("meta"), no_init_weights():
        return model_class(config).state_dict()


def check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Checks that all values are finite, also in float32, in which the model is written.

    Raises:
        ConversionError: some are not; the message names their tensors.
    """
    broken = [to_original_name(name) for name, tensor in tensors.items() if not tensor.float().isfinite().all()]
    if broken:
        raise ConversionError(f"NaN or infinite values in float32 (training had diverged): {', '.join(broken)}.")


def build_model(
    checkpoint: OriginalCheckpoint, image_size: int | None, overrides: Mapping[str, Any]
) -> tuple[EsViTForPreTraining | EsViTModel, list[str]]:
    """Builds the model of a checkpoint in float32: `EsViTForPreTraining`, or `EsViTModel` if it has no heads.

    Also returns remarks.

    Raises:
        ConversionError: tensors are missing, unexpected, misshapen or not finite.
    """
    tensors = {to_our_name(name): tensor for name, tensor in checkpoint.state_dict.items()}
    has_heads = any(name.startswith(("view_head.", "region_head.")) for name in tensors)
    if has_heads:
        frozen, reason = find_prototype_norm(checkpoint)
        config = infer_config(checkpoint.state_dict, image_size, **{"norm_last_layer": frozen, **overrides})
        centers, remark = find_centers(checkpoint, config)
        tensors |= centers
        heads = "view and region head" if config.region_head else "view head"
        notes = [f"{heads}, {config.num_prototypes} prototypes, norm_last_layer={frozen} ({reason})", remark]
    else:
        config = infer_config(checkpoint.state_dict, image_size, **overrides)
        notes = ["the checkpoint has no projection heads"]
    model_class, prefix = (EsViTForPreTraining, "") if has_heads else (EsViTModel, "esvit.")
    check_tensors({prefix + name: tensor for name, tensor in describe_tensors(model_class, config).items()}, tensors)
    check_finite(tensors)
    model = model_class(config)
    model.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return model, notes


def find_prototype_norm(checkpoint: OriginalCheckpoint) -> tuple[bool, str]:
    """Returns `norm_last_layer`, which shapes do not tell, and how it is known."""
    if "norm_last_layer" in checkpoint.args:
        return bool(checkpoint.args["norm_last_layer"]), "from the options in the checkpoint"
    norms = [tensor for name, tensor in checkpoint.state_dict.items() if name.endswith("last_layer.weight_g")]
    if all(bool((norm == 1).all()) for norm in norms):
        return True, "assumed: all prototypes have norm 1"
    return False, "the prototypes' norms are not 1"


def find_centers(checkpoint: OriginalCheckpoint, config: EsViTConfig) -> tuple[dict[str, torch.Tensor], str]:
    """Returns the centres `[K]` of the teacher's logits, zero if the checkpoint has none, and a remark on that."""
    wanted = {"center": "view_center", **({"center_grid": "region_center"} if config.region_head else {})}
    centers = {ours: torch.zeros(config.num_prototypes) for ours in wanted.values()}
    centers |= {ours: checkpoint.centers[name].flatten() for name, ours in wanted.items() if name in checkpoint.centers}
    absent = [ours for name, ours in wanted.items() if name not in checkpoint.centers]
    return centers, f"zero, as the checkpoint lacks them: {', '.join(absent)}" if absent else "centres kept"


# Folders


def convert(
    path: str | Path,
    output: str | Path,
    key: str | None = None,
    native: bool = False,
    image_size: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ConversionReport:
    """Converts a checkpoint file (with `native` also a model folder of this project) to a new model folder.

    Args:
        key: network of the file, by an entry or a prefix: `"student"`, `"model_ema"`, `"encoder_q"`; by default the
            teacher, or the only one.
        native: write transformers' own `swin` format, if that can carry the model, and compare its outputs with ours.
        image_size: construction size, where the checkpoint leaves a choice (see [`infer_config`]).
        overrides: other fields of the configuration that its tensors do not tell, such as the heads of a CvT.

    Raises:
        ConversionError: see [`read_checkpoint`], [`build_model`], [`save_native`]; or `output` exists and is not empty.
            In every case `output` is left as it was.
        ProvenanceError: the record of a model folder is damaged.
    """
    path, output = Path(path), Path(output).resolve()
    overrides = overrides or {}
    require_free(output)
    if "image_size" in overrides:
        raise ConversionError("image_size cannot be set among the fields; use --image_size (in Python, image_size=).")
    model, source, notes, record = load_source(path, key, native, image_size, overrides)
    backbone = model.esvit if isinstance(model, EsViTForPreTraining) else model
    with replace_folder(output) as folder, hide_weight_bars():
        if native:
            notes = note_native_limits(backbone.config, save_native(backbone, folder))
        else:
            model.save_pretrained(folder)
        write_weights_record(folder, record)
    written = "transformers' SwinModel" if native else type(model).__name__
    num_parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return ConversionReport(source, output, written, model.config, num_parameters, notes)


def load_source(
    path: Path, key: str | None, native: bool, image_size: int | None, overrides: Mapping[str, Any]
) -> tuple[EsViTForPreTraining | EsViTModel, str, list[str], WeightsRecord | None]:
    """Loads a checkpoint file or model folder.

    Returns the model, words on where it comes from, remarks, and what is known of the weights.
    """
    if path.is_dir():
        if not native:
            raise ConversionError(f"{path} {describe_part(path) or 'is a folder; name the checkpoint file in it.'}")
        if overrides or image_size is not None:
            raise ConversionError(f"{path} is a model folder, whose config.json tells every field; set none.")
        return load_backbone(path), str(path), [], read_weights_record(path)
    checkpoint = read_checkpoint(path, key)
    model, notes = build_model(checkpoint, image_size, overrides)
    if checkpoint.left_out:
        left_out = dict.fromkeys(name.rsplit(".", 1)[-1] for name in checkpoint.left_out)
        notes.append(f"left out: {', '.join(left_out)}")
    epoch = "" if checkpoint.epoch is None else f", epoch {checkpoint.epoch}"
    return model, f"{path} ({checkpoint.source}{epoch})", notes, describe_weights(checkpoint)


def require_free(output: Path) -> None:
    """Checks that a new folder can take this name.

    Raises:
        ConversionError: there is something that is not an empty folder.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ConversionError(f"{output} exists already; name another output folder, or delete it first.")


def note_native_limits(config: EsViTConfig, difference: float) -> list[str]:
    """Returns what a user of the native format must know."""
    size = config.image_size if isinstance(config.image_size, int) else "x".join(map(str, config.image_size))
    scale = compute_residual_scale(config)
    return [
        f"equal to ours at {size} px: largest relative difference {difference:.1e} on random images",
        f"valid at {size} px only: transformers' Swin fails on small images and shifts otherwise on large ones",
        f"outputs are equal, hidden_states are {scale:.4f} times ours (for its fixed epsilons)",
        "the backbone alone; this format has no projection heads and centres",
    ]


def parse_field(text: str) -> tuple[str, Any]:
    """Reads `NAME=VALUE` of the command line."""
    name, _, value = text.partition("=")
    try:
        check_field(name)
        return name, json.loads(value)
    except EsViTArchitectureError as error:
        raise ConversionError(f"--set {text}: {error}") from error
    except ValueError as error:  # no JSON, or a number of thousands of digits
        raise ConversionError(
            f'--set {text}: {value!r} is no JSON; a list is written [1,3,6,12], a text "gelu".'
        ) from error


def main(arguments: list[str] | None = None) -> None:
    parser = ProgramParser(__doc__, prog="python -m modeling_esvit.convert_original")
    parser.add_argument("checkpoint", type=parse_path, help="the checkpoint (.pth, .pt, .safetensors)")
    parser.add_argument("output", type=parse_path, help="the model folder to write; it must not exist yet")
    parser.add_argument(
        "--key",
        type=parse_name,
        help="the network of the file to convert, by the entry or prefix under which it lies, such as student, "
        "model_ema or encoder_q (default: teacher, or the only one)",
    )
    parser.add_argument("--native", action="store_true", help="write the swin format of transformers instead")
    parser.add_argument(
        "--image_size",
        type=int,
        help="side of the images of the training run in pixels; needed only if the tensors do not tell it",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="set a field of the configuration that the tensors do not tell; VALUE is JSON: num_heads=[1,3,6,12]",
    )
    options = parser.parse_args(arguments)
    with exit_with_message():
        overrides = dict(map(parse_field, options.overrides))
        print(convert(options.checkpoint, options.output, options.key, options.native, options.image_size, overrides))
