# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the way from JPEG files of 500 x 375 px to their view features by Swin-T, window 7.

There are `pipeline("image-feature-extraction")` with several batch sizes, `modeling_esvit.embed`, a loop of processor
and model, and the model alone on pixels in memory.

    python tests/benchmarks/bench_pipeline.py
    python tests/benchmarks/bench_pipeline.py --dtype bfloat16 --compile
    python tests/benchmarks/bench_pipeline.py --images 8 --repeats 1 --threads 1

With `--compile` all of them compute by a model that is compiled, as `embed --compile on` compiles it: frozen on a CPU
with AMX. The first batches, which compile, are not timed.
"""

import functools
import tempfile
from pathlib import Path

import torch

from modeling_esvit.embed.compiling import OFF, ON, choose_compiler_options
from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.images.precision import DTYPES
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.bench_views import IMAGES, jpegs
from tests.benchmarks.harness import Measurement, environment, name_by_processor, rows, table, take_turns, write_json


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


def load(folder: Path, dtype: torch.dtype, compile: bool):
    from transformers import AutoImageProcessor, AutoModel

    import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)

    model = AutoModel.from_pretrained(folder / "model", dtype=dtype).eval().requires_grad_(False)
    compile_as_embed_does(model, compile)
    return model, AutoImageProcessor.from_pretrained(folder / "model")


def compile_as_embed_does(model: torch.nn.Module, compile: bool) -> None:
    if compile:
        model.compile(dynamic=False, options=choose_compiler_options(torch.device("cpu")))


def model_alone(folder: Path, dtype: torch.dtype, compile: bool):
    model, _ = load(folder, dtype, compile)
    count = len(image_files(folder))
    batches = torch.randn(count, 3, 224, 224, dtype=dtype).split(BATCH)

    def iteration():
        with torch.inference_mode():
            return [model(batch).pooler_output for batch in batches]

    return iteration


def processor_and_model(folder: Path, dtype: torch.dtype, compile: bool):
    """Extracts features as one writes it who does not know better."""
    from PIL import Image

    model, processor = load(folder, dtype, compile)
    files = image_files(folder)

    def iteration():
        features = []
        with torch.inference_mode():
            for start in range(0, len(files), BATCH):
                images = [Image.open(file).convert("RGB") for file in files[start : start + BATCH]]
                features.append(model(**processor(images, return_tensors="pt").to(dtype)).pooler_output)
        return features

    return iteration


def by_pipeline(folder: Path, dtype: torch.dtype, compile: bool, batch_size: int):
    import datasets
    from transformers import pipeline
    from transformers.pipelines.pt_utils import KeyDataset

    import modeling_esvit  # noqa: F401

    rows = datasets.Dataset.from_dict({"image": image_files(folder)}).cast_column("image", datasets.Image())
    extract = pipeline("image-feature-extraction", model=str(folder / "model"), dtype=dtype)
    compile_as_embed_does(extract.model, compile)
    options = {"batch_size": batch_size, "pool": True, "return_tensors": True}
    return lambda: list(extract(KeyDataset(rows, "image"), **options))


def by_embed(folder: Path, dtype: torch.dtype, compile: bool):
    from modeling_esvit.embed.embedder import Embedder, embed

    embedder = Embedder.from_pretrained(str(folder / "model"), dtype=dtype, compile=ON if compile else OFF)
    return functools.partial(embed, embedder, [str(folder / "images")], batch_size=BATCH)


def candidates(folder: Path, dtype: torch.dtype, compile: bool) -> dict:
    """Returns what takes turns; compiled, a pipeline takes batches of one size, so that nothing compiles again."""
    sizes = (BATCH,) if compile else (1, 4, BATCH)
    setups = {
        MODEL_ALONE: model_alone,
        "loop of processor and model": processor_and_model,
        **{f"pipeline, batch_size={size}": functools.partial(by_pipeline, batch_size=size) for size in sizes},
        "embed": by_embed,
    }
    return {name: functools.partial(setup, folder, dtype, compile) for name, setup in setups.items()}


def report(results: dict[str, Measurement], images: int) -> str:
    alone = results[MODEL_ALONE].median
    return table(
        ["", "images/s", "of the model's speed", "peak GB"],
        (
            (name, f"{images / m.median:.1f}", f"{alone / m.median:.0%}", f"{m.peak_bytes / 1e9:.2f}")
            for name, m in results.items()
        ),
    )


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--images", type=parse_count, default=64, help="images to read")
    parser.add_argument("--repeats", type=parse_count, default=5, help="times that each is measured")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="type of weights and images")
    parser.add_argument("--compile", action="store_true", help="compile the model of all of them")
    parser.add_argument("--threads", type=parse_count, help="Default: one a core.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), arguments.images)
        setups = candidates(Path(folder), DTYPES[arguments.dtype], arguments.compile)
        results = take_turns(setups, repeats=arguments.repeats, threads=arguments.threads)
    print(report(results, arguments.images))
    form = "_compiled" if arguments.compile else ""
    dtype = "" if arguments.dtype == "float32" else f"_{arguments.dtype}"
    name = name_by_processor(f"pipeline{dtype}{form}")
    settings = {"images": arguments.images, "threads": arguments.threads}
    print(f"{write_json(name, settings, {'rows': rows(results.values())})}; {environment()}")


if __name__ == "__main__":
    main()
