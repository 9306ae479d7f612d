# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows what a trained backbone sees in photographs, in seconds on a CPU and without a network.

    pip install -e ".[training,examples,demo]"
    python examples/first_look.py first-look

The program writes a small backbone with ImageNet weights (`real_backbone.py`), and then does what you can do with every
model and image of your own. It paints similar regions in similar colours (`training/region_colours.py`), matches the
regions of two views of a scene, and counts the right ones (`correspondences.py`). The photographs are those of
scikit-image.
Finished parts are reused.
"""

from pathlib import Path

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import torch
from PIL import Image

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package("pip install -e '.[training,examples,demo]'"):
    import skimage.data

from examples.checkout import run_program
from examples.real_backbone import write_backbone
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.paths import parse_path
from training.options.command import run_command


PHOTOGRAPHS = ("chelsea", "coffee", "rocket")
SIDE = 768  # pixels of the longer side: 24 regions


def write_photographs(folder: Path) -> list[Path]:
    """Writes the photographs as PNG files; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in PHOTOGRAPHS]
    for path in paths:
        Image.fromarray(getattr(skimage.data, path.stem)()).save(path)
    return paths


def look(output: Path) -> Path:
    """Writes backbone, photographs and both pictures below a folder; returns the backbone.

    Raises:
        RealBackboneError: See `write_backbone`.
    """
    model = output / "backbone"
    if not model.exists():
        write_backbone(model, "model")
    photographs = write_photographs(output / "photographs")
    colours = [model, *photographs, "--image_size", SIDE, "--smooth", "--output", output / "colours.png"]
    run_program("training/region_colours.py", *colours)
    run_program("examples/correspondences.py", model, "--output", output / "matches.png")
    return model


def main(arguments: list[str] | None = None) -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("output", type=parse_path, help="the folder for the backbone and the pictures")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = look(options.output)
    print(f"The backbone is {model}; {options.output} has colours.png and matches.png.")


if __name__ == "__main__":
    run_command(main)
