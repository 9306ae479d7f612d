# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the way from JPEG files of 500 x 375 px to their view features by Swin-T, window 7.

There are `pipeline("image-feature-extraction")` with several batch sizes, `modeling_esvit.embed`, a loop of processor
and model, and the model alone on pixels in memory.

    python tests/benchmarks/bench_pipeline.py
    python tests/benchmarks/bench_pipeline.py --images 8 --repeats 1 --threads 1
"""

import functools
import tempfile
from pathlib import Path

import torch

from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.bench_views import IMAGES, jpegs
from tests.benchmarks.harness import Measurement, environment, rows, table, take_turns, write_json


BATCH = 16
SIZE = (500, 375)
MODEL_ALONE = "model alone, pixels in memory"


def write_files(folder: Path, count: int) -> None:
    """Writes a model folder and `count` JPEG files."""
    from modeling_esvit import EsViTConfig, EsViTModel

    EsViTModel(EsViTConfig.from_architecture("swin-tiny", window_size=7)).save_pretrained(folder / "model")
    (folder / "images").mkdir()
    files = jpegs(SIZE)
    for number in range(count):
        (folder / "images" / f"{number:04d}.jpg").write_bytes(files[number % IMAGES])


def image_files(folder: Path) -> list[str]:
    return sorted(str(path) for path in (folder / "images").iterdir())


def load(folder: Path):
    from transformers import AutoImageProcessor, AutoModel

    import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)

    model = AutoModel.from_pretrained(folder / "model").eval().requires_grad_(False)
    return model, AutoImageProcessor.from_pretrained(folder / "model")


def model_alone(folder: Path):
    model, _ = load(folder)
    count = len(image_files(folder))
    batches = torch.randn(count, 3, 224, 224).split(BATCH)

    def iteration():
        with torch.inference_mode():
            return [model(batch).pooler_output for batch in batches]

    return iteration


def processor_and_model(folder: Path):
    """Extracts features as one writes it who does not know better."""
    from PIL import Image

    model, processor = load(folder)
    files = image_files(folder)

    def iteration():
        features = []
        with torch.inference_mode():
            for start in range(0, len(files), BATCH):
                images = [Image.open(file).convert("RGB") for file in files[start : start + BATCH]]
                features.append(model(**processor(images, return_tensors="pt")).pooler_output)
        return features

    return iteration


def by_pipeline(folder: Path, batch_size: int):
    import datasets
    from transformers import pipeline
    from transformers.pipelines.pt_utils import KeyDataset

    import modeling_esvit  # noqa: F401

    rows = datasets.Dataset.from_dict({"image": image_files(folder)}).cast_column("image", datasets.Image())
    extract = pipeline("image-feature-extraction", model=str(folder / "model"))
    options = {"batch_size": batch_size, "pool": True, "return_tensors": True}
    return lambda: list(extract(KeyDataset(rows, "image"), **options))


def by_embed(folder: Path):
    from modeling_esvit.embed.embedder import Embedder, embed

    embedder = Embedder.from_pretrained(str(folder / "model"))
    return functools.partial(embed, embedder, [str(folder / "images")], batch_size=BATCH)


def candidates(folder: Path) -> dict:
    return {
        MODEL_ALONE: functools.partial(model_alone, folder),
        "loop of processor and model": functools.partial(processor_and_model, folder),
        **{f"pipeline, batch_size={size}": functools.partial(by_pipeline, folder, size) for size in (1, 4, 16)},
        "embed": functools.partial(by_embed, folder),
    }


def report(results: dict[str, Measurement], images: int) -> str:
    alone = results[MODEL_ALONE].median
    return table(
        ["", "images/s", "of the model's speed", "peak GB"],
        (
            (name, f"{images / m.median:.1f}", f"{alone / m.median:.0%}", f"{m.peak_bytes / 1e9:.2f}")
            for name, m in results.items()
        ),
    )


def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--images", type=int, default=64, help="images to read")
    parser.add_argument("--repeats", type=int, default=5, help="times that each is measured")
    parser.add_argument("--threads", type=int, help="Default: one a core.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), arguments.images)
        results = take_turns(candidates(Path(folder)), repeats=arguments.repeats, threads=arguments.threads)
    print(report(results, arguments.images))
    print(f"{write_json('pipeline', {'images': arguments.images, 'rows': rows(results.values())})}; {environment()}")


if __name__ == "__main__":
    main()
