# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Exports a model in a format that other programs run.

    python -m modeling_esvit.export MODEL OUTPUT --to onnx|timm|torch [--image-size 224]

* `onnx`: `OUTPUT/model.onnx`, for onnxruntime and others.
* `torch`: `OUTPUT/model.pt2`, a program of `torch.export`, which needs torch alone.
* `timm`: `OUTPUT/model.safetensors` and `config.json`, which `timm.create_model("local-dir:OUTPUT", pretrained=True)`
  loads. Only Swins, at the size of their construction.

ONNX and torch programs take batches `pixel_values` `[B, channels, height, width]` of any number B of images and one
size, and return `view_feature` `[B, C]` and `regions` `[B, T, C]`. What was written is loaded again and compared with
the model, at two sizes of batches, before it is kept. (transformers' own `swin` format is written by
`convert_original --native`.)
"""

import argparse
import copy
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.native_swin import draw_images, load_backbone
from modeling_esvit.conversion.timm_swin import load_timm, make_timm_arguments, save_timm
from modeling_esvit.convert_original.converter import require_free
from modeling_esvit.errors import EsViTError
from modeling_esvit.modeling_esvit import EsViTModel, describe_preprocessing
from modeling_esvit.storage.atomic import replace_folder


Size = tuple[int, int]  # height, width
Outputs = tuple[torch.Tensor, torch.Tensor]  # view feature and regions
Run = Callable[[torch.Tensor], Outputs]

PACKAGES: dict[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "timm": ("timm",), "torch": ()}
BATCHES = (1, 4)  # of the comparison; neither is the one that programs are traced with
TRACED = 2
TOLERANCE = 1e-4  # of the largest output
INPUT, VIEW, REGIONS = "pixel_values", "view_feature", "regions"


@dataclass
class ExportReport:
    """Says what was written where. `difference` is the largest of all outputs, relative to the largest output."""

    output: Path
    size: Size
    difference: float
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        batches = " and ".join(map(str, BATCHES))
        compared = f"images of {self.size[0]} x {self.size[1]} px, batches of {batches}"
        lines = [str(self.output), f"{compared}: largest relative difference {self.difference:.1e}", *self.notes]
        return "\n  ".join(lines)


class Features(nn.Module):
    """Returns the outputs of a backbone as a tuple, as graphs have them."""

    def __init__(self, model: EsViTModel):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        outputs = self.model(pixel_values)
        return outputs.pooler_output, outputs.last_hidden_state


@torch.no_grad()  # a change of the mode inside of the model would be a node that torch cannot save
def trace_model(model: EsViTModel, size: Size) -> torch.export.ExportedProgram:
    """Traces the model as a graph for any number of images of one size.

    Raises:
        ConversionError: torch cannot trace it; its own reason is in the message.
    """
    images = draw_images(model.config, TRACED, size)
    try:
        return torch.export.export(
            Features(model).eval(), (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
        )
    except RuntimeError as error:  # what torch's own errors of tracing are derived from
        raise ConversionError(f"torch.export cannot trace this {type(model).__name__}: {error}") from error


def write_torch(model: EsViTModel, folder: Path, size: Size) -> Run:
    path = folder / "model.pt2"
    torch.export.save(trace_model(model, size), path)
    return torch.export.load(path).module()


def write_onnx(model: EsViTModel, folder: Path, size: Size) -> Run:
    path = folder / "model.onnx"
    plain = copy.deepcopy(model)  # the layout of what a fused kernel returns does not survive its decomposition
    plain.set_attn_implementation("eager")
    try:
        torch.onnx.export(
            trace_model(plain, size),
            f=path,
            input_names=[INPUT],
            output_names=[VIEW, REGIONS],
            dynamic_shapes={INPUT: {0: "batch"}},
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise ConversionError(f"ONNX cannot express this {type(model).__name__}: {error}") from error
    return run_onnx(path)


def run_onnx(path: Path) -> Run:
    """Returns a function that runs the model of a file, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: torch.Tensor) -> Outputs:
        view, regions = session.run([VIEW, REGIONS], {INPUT: images.numpy()})
        return torch.from_numpy(view), torch.from_numpy(regions)

    return run


def write_timm(model: EsViTModel, folder: Path, size: Size) -> Run:
    if size != find_construction_size(model):
        raise ConversionError(
            f"timm's Swin takes images of one size, which is that of the construction, {model.config.image_size}; "
            f"leave out --image-size {size[0]} {size[1]}."
        )
    save_timm(model, folder)
    theirs = load_timm(folder)

    def run(images: torch.Tensor) -> Outputs:
        maps = theirs.forward_features(images)
        return theirs.forward_head(maps), maps.flatten(1, 2)

    return run


WRITERS: dict[str, Callable[[EsViTModel, Path, Size], Run]] = {
    "onnx": write_onnx,
    "timm": write_timm,
    "torch": write_torch,
}


def find_construction_size(model: EsViTModel) -> Size:
    size = model.config.image_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@torch.no_grad()
def measure_difference(run: Run, model: EsViTModel, size: Size) -> float:
    """Returns the largest difference of view features and regions, relative to the largest output (at least 1)."""
    differences = []
    for batch in BATCHES:
        images = draw_images(model.config, batch, size)
        for ours, theirs in zip(Features(model)(images), run(images), strict=True):
            differences.append(((ours - theirs).abs().max() / ours.abs().max().clamp(min=1)).item())
    return max(differences)


def explain_usage(model: EsViTModel, to: str) -> list[str]:
    """Returns lines on how users run the exported model."""
    if to != "timm":
        return [f"input {INPUT} [batch, channels, height, width], outputs {VIEW}, {REGIONS}; any number of images"]
    arguments = make_timm_arguments(model.config)
    named = {name: value for name, value in arguments.items() if name != "model_name"}
    written = ", ".join([repr(arguments["model_name"]), *(f"{name}={value!r}" for name, value in named.items())])
    return [
        "timm.create_model('local-dir:FOLDER', pretrained=True), from the Hub 'hf-hub:NAME', or by its file:",
        f"timm.create_model({written}, checkpoint_path='FOLDER/model.safetensors')",
    ]


def export(model: str | Path, output: str | Path, to: str, image_size: Size | None = None) -> ExportReport:
    """Writes the backbone of a model folder of this project, or of one on the Hub, to a new folder.

    Args:
        to: `"onnx"`, `"timm"` or `"torch"`.
        image_size: height and width, that of the construction by default.

    Raises:
        ConversionError: the format cannot carry the model, a package is missing, outputs differ, `model` holds
            another model, or `output` exists. In every case `output` is left as it was.
        EsViTInputError: the architecture does not take images of that size.
    """
    require_packages(to)
    output = Path(output).resolve()
    require_free(output)
    backbone = load_backbone(model).eval()
    size = image_size or find_construction_size(backbone)
    backbone.encoder.check_size(*size)
    with replace_folder(output) as folder:
        difference = measure_difference(WRITERS[to](backbone, folder, size), backbone, size)
        if not difference <= TOLERANCE:
            raise ConversionError(
                f"The {to} model differs from ours by {difference:.1e} of the largest output, more than "
                f"{TOLERANCE:.0e}; it was not kept."
            )
        write_preprocessor(backbone, folder, size)
    return ExportReport(output, size, difference, explain_usage(backbone, to))


def write_preprocessor(model: EsViTModel, folder: Path, size: Size) -> None:
    config = copy.copy(model.config)
    config.image_size = list(size)
    text = json.dumps(describe_preprocessing(config), indent=2)
    (folder / "preprocessor_config.json").write_text(text + "\n")


def require_packages(to: str) -> None:
    """Checks that the packages of a format are installed.

    Raises:
        ConversionError: some are not; the message names them.
    """
    missing = [name for name in PACKAGES[to] if importlib.util.find_spec(name) is None]
    if missing:
        raise ConversionError(f"--to {to} needs {', '.join(missing)}; install this package with its extra `export`.")


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="python -m modeling_esvit.export", description="Exports a model in a format that other programs run."
    )
    command.add_argument("model", help="model folder, or its name on the Hub")
    command.add_argument("output", help="new folder")
    command.add_argument("--to", choices=sorted(WRITERS), required=True, help="the format")
    command.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="one side, or height and width; the size at construction by default",
    )
    return command


def main(arguments: list[str] | None = None) -> None:
    command = parser()
    options: Any = command.parse_args(arguments)
    sides = options.image_size
    if sides is not None and len(sides) > 2:
        command.error("--image-size takes one number, the side, or two, height and width.")
    try:
        print(export(options.model, options.output, options.to, None if sides is None else (sides[0], sides[-1])))
    except (EsViTError, OSError) as error:
        sys.exit(f"error: {error}")
