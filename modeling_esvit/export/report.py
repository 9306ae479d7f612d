# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says what was exported: the files that belong together, and how users prepare images and run the model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modeling_esvit.conversion.timm_swin import make_timm_arguments
from modeling_esvit.modeling_esvit import EsViTModel


Size = tuple[int, int]  # height, width

BATCHES = (1, 4)  # of the comparison; neither is the one that programs are traced with
INPUT, VIEW, REGIONS = "pixel_values", "view_feature", "regions"


@dataclass
class ExportReport:
    """Says what was written where. `difference` is the largest of all outputs, relative to the largest output.

    files: the names of those in `output`; a model is complete with all of them alone.
    notes: lines on how to run the model.
    """

    output: Path
    sizes: list[Size]
    difference: float
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        batches = " and ".join(map(str, BATCHES))
        sizes = ", ".join(f"{height} x {width}" for height, width in self.sizes)
        compared = f"images of {sizes} px, batches of {batches}"
        lines = [
            str(self.output),
            f"hand over all of its files together: {', '.join(self.files)}",
            f"{compared}: largest relative difference {self.difference:.1e}",
        ]
        return "\n  ".join([*lines, *self.notes])


def explain_preparation(processing: dict[str, Any], size: Size | None) -> str:
    """Returns a line on how images become the input, by the entries of `preprocessor_config.json`."""
    crop = "{height} x {width}".format(**processing["crop_size"])
    cut = f"resize the shorter side to {processing['size']['shortest_edge']} px (bicubic), cut out the middle {crop}"
    free = "" if size else " (or prepare another size)"
    mean, std = (", ".join(f"{value:g}" for value in processing[name]) for name in ("image_mean", "image_std"))
    return f"prepare RGB images: {cut}{free}, divide by 255, subtract the mean ({mean}), divide by ({std})"


def explain_usage(model: EsViTModel, to: str, size: Size | None) -> list[str]:
    """Returns lines on how users run the exported model, of images of a size, or of any if that is None."""
    if to != "timm":
        sides = f"{size[0]}, {size[1]}" if size else "height, width"
        taken = "any number of images" + ("" if size else " of any size")
        shape = f"float32 [batch, {model.config.num_channels}, {sides}]"
        usage = [f"input {INPUT} {shape}, outputs {VIEW}, {REGIONS}; {taken}"]
        bf16 = "OpenVINO computes in bf16 on CPUs that have it; INFERENCE_PRECISION_HINT=f32 turns that off"
        return [*usage, bf16] if to == "openvino" else usage
    arguments = make_timm_arguments(model.config)
    named = {name: value for name, value in arguments.items() if name != "model_name"}
    written = ", ".join([repr(arguments["model_name"]), *(f"{name}={value!r}" for name, value in named.items())])
    return [
        "timm.create_model('local-dir:FOLDER', pretrained=True), from the Hub 'hf-hub:NAME', or by its file:",
        f"timm.create_model({written}, checkpoint_path='FOLDER/model.safetensors')",
    ]
