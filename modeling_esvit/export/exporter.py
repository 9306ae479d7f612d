# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Exports a model in a format that other programs run.

    python -m modeling_esvit.export runs/mine exported --to onnx
    python -m modeling_esvit.export org/esvit-swin-b exported --to torch --image_size 384
    python -m modeling_esvit.export MODEL exported --to openvino --dynamic_size

* `onnx`: `OUTPUT/model.onnx` and its weights `model.onnx.data`, for onnxruntime and others. Each needs the other.
* `openvino`: `OUTPUT/openvino_model.xml` and its weights `openvino_model.bin`, for OpenVINO. Each needs the other.
* `torch`: `OUTPUT/model.pt2`, a program of `torch.export`, which needs torch alone.
* `timm`: `OUTPUT/model.safetensors` and `config.json`, which `timm.create_model("local-dir:OUTPUT", pretrained=True)`
  loads. Only Swins, at the size of their construction.

Programs (all but `timm`) take batches `pixel_values` `[B, channels, height, width]` of any number B of images and one
size, or any size with `--dynamic_size`, and return `view_feature` `[B, C]` and `regions` `[B, T, C]`. What was written
is loaded again and compared with the model, at two sizes of batches, before it is kept. transformers' exporters write
ONNX and OpenVINO, so `ExportedModel.from_pretrained(OUTPUT)` of `transformers.exporters` runs them, too. The command
prints the files that belong together, and how images are to be prepared, as `OUTPUT/preprocessor_config.json` has it.
(transformers' own `swin` format is written by `convert_original --native`.)
"""

import argparse
import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim
from transformers.utils.versions import require_version

from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.native_swin import compare_outputs, draw_images, load_backbone
from modeling_esvit.conversion.timm_swin import load_timm, save_timm
from modeling_esvit.convert_original.converter import require_free
from modeling_esvit.export.report import (
    BATCHES,
    INPUT,
    REGIONS,
    VIEW,
    ExportReport,
    Size,
    explain_preparation,
    explain_usage,
)
from modeling_esvit.modeling_esvit import EsViTModel, describe_preprocessing, write_preprocessing
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.notes import hide_notes
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.atomic import replace_folder
from modeling_esvit.storage.paths import parse_name, parse_path


Outputs = tuple[torch.Tensor, torch.Tensor]  # view feature and regions
Run = Callable[[torch.Tensor], Outputs]

EXPORTERS = "transformers>=5.24"  # since then its exporters load and run what they wrote; the package needs less
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx>=1.18", "onnxruntime>=1.20", "onnxscript>=0.6", EXPORTERS),
    "openvino": ("openvino>=2026.3", EXPORTERS),
    "timm": ("timm>=1.0.31",),
    "torch": (),
}
WINDOWS = "its windows are cut by index tables that are computed for one size"
FIXED_SIZE = {
    **{(to, family): WINDOWS for to in ("onnx", "openvino", "torch") for family in ("cvt", "swin", "vil")},
    ("torch", "vit"): "torch.export does not resize its position embeddings to every size; --to onnx does",
}
TRACED = 2
TOLERANCE = 1e-4  # of the largest output


@dataclass(frozen=True)
class Sizes:
    """Holds the size of the images that an exported model takes; with `dynamic`, it takes others as well."""

    base: Size
    dynamic: bool = False

    @property
    def traced(self) -> Size:
        """Returns the size to trace with: not `base`, for which models may take a shortcut, and no square."""
        height, width = self.base
        return (2 * height, 3 * width) if self.dynamic else self.base

    @property
    def compared(self) -> list[Size]:
        """Returns the sizes to compare at: of any size also odd ones, which pooling rounds otherwise."""
        height, width = self.base
        others = [(2 * height, width), (height, 2 * width), (height + 1, width + 1)]
        return [self.base, *others] if self.dynamic else [self.base]

    @property
    def dynamic_axes(self) -> dict[int, Any]:
        return {0: Dim("batch", min=1), **({2: Dim.DYNAMIC, 3: Dim.DYNAMIC} if self.dynamic else {})}


class Features(nn.Module):
    """Returns the outputs of a backbone as a tuple, as graphs have them."""

    def __init__(self, model: EsViTModel):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        outputs = self.model(pixel_values)
        return outputs.pooler_output, outputs.last_hidden_state


class NamedFeatures(nn.Module):
    """Returns the outputs by name; transformers' exporters name those of the graph after them."""

    def __init__(self, model: EsViTModel):
        super().__init__()
        self.features = Features(model)

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip((VIEW, REGIONS), self.features(pixel_values), strict=True))


@torch.no_grad()  # a change of the mode inside of the model would be a node that torch cannot save
def write_torch(model: EsViTModel, folder: Path, sizes: Sizes) -> Run:
    """Writes a program of `torch.export`.

    transformers' exporter would replace fused attention by its plain form, which is slower.
    """
    try:
        images = draw_images(model.config, TRACED, sizes.traced)
        program = torch.export.export(Features(model).eval(), (images,), dynamic_shapes=(sizes.dynamic_axes,))
    except RuntimeError as error:  # what torch's own errors of tracing and of memory are derived from
        raise ConversionError(f"torch.export cannot trace this {type(model).__name__}: {error}") from error
    path = folder / "model.pt2"
    torch.export.save(program, path)
    return torch.export.load(path).module()


def write_onnx(model: EsViTModel, folder: Path, sizes: Sizes) -> Run:
    try:
        exported = trace_and_export(model, sizes, "onnx")
    except RuntimeError as error:  # torch's errors of tracing and those of its ONNX exporter are derived from it
        raise ConversionError(f"ONNX cannot express this {type(model).__name__}: {error}") from error
    name_axes(exported.program.graph)
    exported.save_pretrained(folder)
    return load_exported(folder)


def name_axes(graph: Any) -> None:
    """Names the open axes of an ONNX graph after those of its input, where transformers' exporter numbers them."""
    axes = zip(graph.inputs[0].shape, ("batch", "channels", "height", "width"), strict=True)
    names = {str(number): name for number, name in axes}
    for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
        for axis, length in enumerate(value.shape or ()):
            if not isinstance(length, int):
                value.shape[axis] = names.get(str(length), length)


def write_openvino(model: EsViTModel, folder: Path, sizes: Sizes) -> Run:
    from openvino.frontend import OpConversionFailure

    try:
        exported = trace_and_export(model, sizes, "openvino")
    except (RuntimeError, OpConversionFailure) as error:
        raise ConversionError(f"OpenVINO cannot express this {type(model).__name__}: {error}") from error
    if not sizes.dynamic:  # OpenVINO's converter frees every axis, and would let images in for which the graph is wrong
        exported.program.reshape([-1, model.config.num_channels, *sizes.base])
    exported.save_pretrained(folder)
    # On CPUs that have bf16, OpenVINO computes in bf16 unless it is told not to.
    return load_exported(folder, config={"INFERENCE_PRECISION_HINT": "f32"})


def trace_and_export(model: EsViTModel, sizes: Sizes, export_format: str) -> Any:
    """Returns transformers' `ExportedModel`, which names the class of the model as its architecture."""
    from transformers.exporters import AutoExportConfig, AutoHfExporter

    plain = copy.deepcopy(model)  # the exporters add a search for rows without keys to fused attention
    plain.set_attn_implementation("eager")
    config = AutoExportConfig.from_dict(
        {"export_format": export_format, "dynamic_shapes": {INPUT: sizes.dynamic_axes}},
    )
    features: Any = NamedFeatures(plain).eval()  # exporters take any module, though they are typed for less
    inputs: Any = {INPUT: draw_images(model.config, TRACED, sizes.traced)}
    exported = AutoHfExporter.from_config(config).export(features, inputs, config)
    for component in exported.components.values():
        component.metadata.architecture = type(model).__name__  # of the model, not of what names its outputs
    return exported


def load_exported(folder: Path, **options: Any) -> Run:
    """Returns a function that runs the model of a folder on the CPU."""
    from transformers.exporters import ExportedModel

    program = ExportedModel.from_pretrained(folder, device="cpu", **options)

    def run(images: torch.Tensor) -> Outputs:
        outputs = program(pixel_values=images)
        return outputs[VIEW], outputs[REGIONS]

    return run


def write_timm(model: EsViTModel, folder: Path, sizes: Sizes) -> Run:
    if sizes.base != find_construction_size(model):
        height, width = sizes.base
        raise ConversionError(
            f"timm's Swin takes images of one size, which is that of the construction, {model.config.image_size}; "
            f"leave out --image_size {height} {width}."
        )
    save_timm(model, folder)
    theirs = load_timm(folder)

    def run(images: torch.Tensor) -> Outputs:
        maps = theirs.forward_features(images)
        return theirs.forward_head(maps), maps.flatten(1, 2)

    return run


WRITERS: dict[str, Callable[[EsViTModel, Path, Sizes], Run]] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "timm": write_timm,
    "torch": write_torch,
}


def find_construction_size(model: EsViTModel) -> Size:
    size = model.config.image_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def choose_sizes(model: EsViTModel, to: str, image_size: Size | None, dynamic: bool) -> Sizes:
    """Checks that the model takes all images that it shall be exported for.

    Raises:
        ConversionError: the size is to be dynamic, but the format or the family needs a fixed one.
        EsViTInputError: the architecture does not take images of such a size.
    """
    sizes = Sizes(image_size or find_construction_size(model), dynamic)
    family = model.config.family
    reason = "timm's Swin takes images of one size" if to == "timm" else FIXED_SIZE.get((to, family.key))
    if dynamic and reason:
        raise ConversionError(
            f"--to {to} cannot leave the size of images open for this {family.name}: {reason}. Leave out "
            "--dynamic_size, and export once for each --image_size that you need."
        )
    for size in sizes.compared:
        model.encoder.check_size(*size)
    return sizes


@torch.no_grad()
def measure_difference(run: Run, model: EsViTModel, sizes: list[Size]) -> float:
    """Returns the largest difference of view features and regions, relative to the largest output (at least 1).

    Raises:
        ConversionError: the exported model stops on some images.
    """
    differences = []
    for batch, (height, width) in itertools.product(BATCHES, sizes):
        try:
            images = draw_images(model.config, batch, (height, width))
            outputs = run(images)
        except (RuntimeError, AssertionError) as error:  # the second by the guards of torch.export
            raise ConversionError(
                f"The exported model stops on images of {height} x {width} pixels and was not kept: {error}"
            ) from error
        differences.append(compare_outputs(Features(model)(images), outputs))
    return torch.tensor(differences).max().item()  # NaN if one is


def export(
    model: str | Path, output: str | Path, to: str, image_size: Size | None = None, dynamic_size: bool = False
) -> ExportReport:
    """Writes the backbone of a model folder of this project, or of one on the Hub, to a new folder.

    Args:
        to: `"onnx"`, `"openvino"`, `"timm"` or `"torch"`.
        image_size: height and width, that of the construction by default.
        dynamic_size: whether the exported model takes images of other sizes, too.

    Raises:
        ConversionError: there is no such format, or it cannot carry the model, a package is missing, outputs differ,
            `model` holds another model, or `output` exists. In every case `output` is left as it was.
        EsViTInputError: the architecture does not take images of that size.
    """
    require_packages(to)
    output = Path(output).resolve()
    require_free(output)
    backbone = load_backbone(model).eval()
    sizes = choose_sizes(backbone, to, image_size, dynamic_size)
    with replace_folder(output) as folder:
        with hide_notes():
            difference = measure_difference(WRITERS[to](backbone, folder, sizes), backbone, sizes.compared)
        if not difference <= TOLERANCE:
            raise ConversionError(
                f"The {to} model differs from ours by {difference:.1e} of the largest output, more than "
                f"{TOLERANCE:.0e}; it was not kept."
            )
        processing = write_preprocessor(backbone, folder, sizes.base)
        files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    size = None if sizes.dynamic else sizes.base
    notes = [*explain_usage(backbone, to, size), explain_preparation(processing, size)]
    return ExportReport(output, sizes.compared, difference, files, notes)


def write_preprocessor(model: EsViTModel, folder: Path, size: Size) -> dict[str, Any]:
    """Writes how images are prepared, and returns it."""
    config = copy.copy(model.config)
    config.image_size = list(size)
    write_preprocessing(config, folder / "preprocessor_config.json")
    return describe_preprocessing(config)


def require_packages(to: str) -> None:
    """Checks that there is such a format, and that its packages are installed.

    Raises:
        ConversionError: there is not, or some are missing or too old; the message has the command that installs them.
    """
    if to not in REQUIREMENTS:
        raise ConversionError(f"There is no format {to!r}; choose one of {', '.join(REQUIREMENTS)}.")
    missing = [requirement for requirement in REQUIREMENTS[to] if not is_installed(requirement)]
    if missing:
        quoted = " ".join(f"'{requirement}'" for requirement in missing)
        raise ConversionError(f"--to {to} needs {', '.join(missing)}. Install with: pip install {quoted}")


def is_installed(requirement: str) -> bool:
    try:
        require_version(requirement)
    except ImportError:
        return False
    return True


def make_parser() -> argparse.ArgumentParser:
    command = ProgramParser(__doc__, prog="python -m modeling_esvit.export")
    command.add_argument("model", type=parse_name, help="a model folder, or the name of a model on the Hub")
    command.add_argument("output", type=parse_path, help="the folder to write; it must not exist yet")
    command.add_argument("--to", choices=sorted(WRITERS), required=True, help="the format")
    command.add_argument(
        "--image_size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="pixels of a side, or of height and width (default: the size for which the model was built)",
    )
    command.add_argument(
        "--dynamic_size",
        action="store_true",
        help="take images of any size: convolutional networks in onnx, openvino and torch, ViT in onnx and openvino",
    )
    return command


def main(arguments: list[str] | None = None) -> None:
    command = make_parser()
    options: Any = command.parse_args(arguments)
    sides = options.image_size
    if sides is not None and len(sides) > 2:
        command.error("--image_size takes one number, the side, or two, height and width.")
    with exit_with_message():
        size = None if sides is None else (sides[0], sides[-1])
        print(export(options.model, options.output, options.to, size, options.dynamic_size))
