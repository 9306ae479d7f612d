# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures samples a second of a shuffled stream from parquet and tar shards, decoded to RGB, on one core.

Ours, `datasets` and `webdataset` read the same files. Then images a second of the loader, which also crops (2 x 224,
8 x 96 pixels), with the photometric operations and without (left to the device), and how many such cores a GPU needs.

    python tests/benchmarks/bench_stream.py
    python tests/benchmarks/bench_stream.py --images 2000 --repeats 5
"""

import functools
import itertools
import tempfile
from pathlib import Path

from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.bench_views import jpegs
from tests.benchmarks.harness import Measurement, environment, rows, table, take_turns, write_json


SHARDS, WINDOW = 4, 256
SIZE = (500, 375)
GPU_RATE = 1200  # images/s, assumed: about what a training step of Swin-T on an H200 would consume


def write_shards(folder: Path, images: int) -> None:
    """Writes the same JPEG files, with a class each, in parquet shards and in tar shards."""
    import datasets
    import webdataset

    files = jpegs(SIZE)
    samples = [(index, files[index % len(files)]) for index in range(images)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=images)})
    for shard in range(SHARDS):
        part = samples[shard::SHARDS]
        columns = {"image": [{"bytes": file, "path": None} for _, file in part], "label": [index for index, _ in part]}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{shard}.parquet", batch_size=100)
        with webdataset.TarWriter(str(folder / f"{shard}.tar")) as tar:
            for index, file in part:
                tar.write({"__key__": f"{index:06d}", "jpg": file, "cls": index})


def ours(pattern: str):
    from modeling_esvit.images.decoding import decode
    from training.data.shard_stream import StreamOptions
    from training.data.sources import open_source

    source = open_source(pattern, stream=StreamOptions(shuffle_window=WINDOW), streaming=True)
    epochs = itertools.count()

    def iteration() -> int:
        items = source.rank_items(0, next(epochs), 0, len(source), 0)
        return sum(decode(source.read(item)).width for item in itertools.islice(items, len(source)))

    return iteration


def by_datasets(pattern: str):
    import datasets

    # Else the end of every pass over parquet files waits five seconds.
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
    kind = "parquet" if pattern.endswith("parquet") else "webdataset"
    stream = datasets.load_dataset(kind, data_files=pattern, split="train", streaming=True)
    column = "image" if kind == "parquet" else "jpg"
    epochs = itertools.count()

    def iteration() -> int:
        shuffled = stream.shuffle(seed=next(epochs), buffer_size=WINDOW)
        return sum(sample[column].convert("RGB").width for sample in shuffled)

    return iteration


def by_webdataset(pattern: str):
    import webdataset

    urls = sorted(map(str, Path(pattern).parent.glob(Path(pattern).name)))
    stream = webdataset.WebDataset(urls, shardshuffle=SHARDS).shuffle(WINDOW).decode("pilrgb").to_tuple("jpg", "cls")
    return lambda: sum(image.width for image, _ in stream)


def loader(pattern: str, augment: bool):
    from training.data.batch_order import BatchOrder
    from training.data.loader import make_loader
    from training.data.shard_stream import StreamOptions
    from training.data.sources import open_source
    from training.views.draw import ViewOptions

    source = open_source(pattern, stream=StreamOptions(shuffle_window=WINDOW), streaming=True)
    options, epochs = ViewOptions(), itertools.count()

    def iteration() -> int:
        batches = make_loader(source, options, BatchOrder(seed=0, batch_size=20, epoch=next(epochs)), augment=augment)
        return sum(len(batch.positions) for batch in batches)

    return iteration


def candidates(folder: str) -> dict:
    return {
        "ours, parquet": functools.partial(ours, f"{folder}/*.parquet"),
        "datasets, parquet": functools.partial(by_datasets, f"{folder}/*.parquet"),
        "ours, tar": functools.partial(ours, f"{folder}/*.tar"),
        "datasets, tar": functools.partial(by_datasets, f"{folder}/*.tar"),
        "webdataset, tar": functools.partial(by_webdataset, f"{folder}/*.tar"),
        "loader, crops": functools.partial(loader, f"{folder}/*.parquet", False),
        "loader, views": functools.partial(loader, f"{folder}/*.parquet", True),
    }


def report(results: dict[str, Measurement], images: int) -> str:
    return table(
        ["stream", "samples/s", f"cores for {GPU_RATE}/s", "peak GB"],
        (
            (name, f"{images / m.median:.0f}", f"{GPU_RATE * m.median / images:.1f}", f"{m.peak_bytes / 1e9:.2f}")
            for name, m in results.items()
        ),
    )


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--images", type=parse_count, default=1000, help="images to read")
    parser.add_argument("--repeats", type=parse_count, default=5, help="times that each is measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), arguments.images)
        results = take_turns(candidates(folder), repeats=arguments.repeats, threads=1)
    print(report(results, arguments.images))
    path = write_json("stream", {"images": arguments.images}, {"rows": rows(results.values())})
    print(f"{path}; {environment()}")


if __name__ == "__main__":
    main()
