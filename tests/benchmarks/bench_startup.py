# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the way from a new process to the features of a first image through `pipeline`.

Ours and transformers' own Swin-T take turns.

    python tests/benchmarks/bench_startup.py --repeats 20
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.harness import environment, table, write_json


ROOT = Path(__file__).resolve().parents[2]


PROGRAM = """
import sys
{imports}
from transformers import pipeline
extract = pipeline("image-feature-extraction", model=sys.argv[1], device="cpu")
extract(sys.argv[2])
"""
PROGRAMS = {
    "transformers, Swin": PROGRAM.format(imports=""),
    "ours": PROGRAM.format(imports="import modeling_esvit"),
}


def save_models(folder: Path) -> dict[str, Path]:
    """Saves models with random weights: what they are costs nothing."""
    from transformers import SwinConfig, SwinModel, ViTImageProcessor

    from modeling_esvit import EsViTConfig, EsViTModel
    from modeling_esvit.modeling_esvit import describe_preprocessing

    paths = {name: folder / name.split(",")[0] for name in PROGRAMS}
    SwinModel(SwinConfig()).save_pretrained(paths["transformers, Swin"])
    ViTImageProcessor().save_pretrained(paths["transformers, Swin"])
    model = EsViTModel(EsViTConfig.from_architecture("swin-tiny"))
    model.save_pretrained(paths["ours"])
    from transformers import BitImageProcessor

    BitImageProcessor.from_dict(describe_preprocessing(model.config)).save_pretrained(paths["ours"])
    return paths


def seconds(program: str, *arguments: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True, cwd=ROOT, capture_output=True)
    return time.perf_counter() - started


def measure(repeats: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = save_models(folder)
        image = folder / "image.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(image)
        taken: dict[str, list[float]] = {program: [] for program in PROGRAMS}
        for repeat in range(repeats + 1):
            for program, code in PROGRAMS.items():
                elapsed = seconds(code, paths[program], image)
                if repeat:  # the first fills the file cache
                    taken[program].append(elapsed)
    return taken


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--repeats", type=parse_count, default=20, help="times that each is measured")
    arguments = parser.parse_args()
    taken = measure(arguments.repeats)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    reference = next(iter(medians.values()))
    print(
        table(
            ["process to first features", "median s", "of transformers' Swin"],
            ((name, f"{m:.2f}", f"{m / reference:.3f}") for name, m in medians.items()),
        )
    )
    path = write_json(
        "startup", {}, {"rows": [{"name": n, "seconds": v, "median_seconds": medians[n]} for n, v in taken.items()]}
    )
    print(f"{path}; {environment()}")


if __name__ == "__main__":
    main()
