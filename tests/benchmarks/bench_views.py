# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the way from a JPEG of 500 x 375 px to 2 x 224 + 8 x 96 px views: ours against torchvision on PIL images.

python tests/benchmarks/bench_views.py
python tests/benchmarks/bench_views.py --size 2000 1500   # large photographs are decoded smaller
"""

import functools
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.harness import Measurement, environment, rows, table, take_turns, write_json


IMAGES = 16


def jpegs(size: tuple[int, int]) -> list[bytes]:
    """Returns parts of photographs that scikit-image ships, as JPEG files of (width, height)."""
    from skimage import data

    files = []
    for index in range(IMAGES):
        photograph = Image.fromarray((data.astronaut, data.chelsea, data.coffee, data.rocket)[index % 4]())
        offset = np.random.default_rng(index).integers(0, 40)
        file = BytesIO()
        photograph.crop((offset, offset, *photograph.size)).resize(size).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def by_pil(size: tuple[int, int]):
    from tests.helpers.pil_views import pil_views
    from training.views.draw import ViewKey, ViewOptions

    files, options = jpegs(size), ViewOptions()

    def iteration():
        samples = [pil_views(file, ViewKey(0, 0, index), options) for index, file in enumerate(files)]
        return [torch.stack([sample[crop] for sample in samples]) for crop in range(10)]

    return iteration


def by_ours(size: tuple[int, int], augment: bool = True):
    from modeling_esvit.images.decoding import Record
    from training.data.batch_order import BatchRequest
    from training.data.loader import ViewsDataset
    from training.views.draw import ViewOptions

    class Files:
        has_labels = False
        read = staticmethod(lambda file: Record(file, None, None))

    dataset = ViewsDataset(Files(), ViewOptions(), seed=0, augment=augment)  # type: ignore[arg-type]
    request = BatchRequest(0, range(IMAGES), [[file] for file in jpegs(size)])
    return functools.partial(dataset.__getitem__, request)


def on_device(size: tuple[int, int]):
    """Measures what is left for the device, here on the CPU."""
    from training.views.on_device import augment, make_statistics

    statistics = make_statistics("cpu")

    batch = by_ours(size, augment=False)()

    def iteration():
        return [augment(group, rows, statistics) for group, rows in zip(batch.groups, batch.parameters, strict=True)]

    return iteration


def candidates(size: tuple[int, int]) -> dict:
    return {
        "torchvision on PIL": functools.partial(by_pil, size),
        "ours": functools.partial(by_ours, size),
        "ours, workers' part with --augment_on device": functools.partial(by_ours, size, augment=False),
        "ours, device's part, on this CPU": functools.partial(on_device, size),
    }


def report(results: dict[str, Measurement]) -> str:
    reference = next(iter(results.values()))
    return table(
        ["views", "images/s a core", "ms an image", "faster"],
        (
            (
                name,
                f"{IMAGES / m.median:.0f}",
                f"{m.median / IMAGES * 1e3:.2f}",
                f"{reference.median / m.median:.2f} x",
            )
            for name, m in results.items()
        ),
    )


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--size", type=parse_count, nargs=2, default=[500, 375], help="Width and height of the files.")
    parser.add_argument("--repeats", type=parse_count, default=15, help="times that each is measured")
    arguments = parser.parse_args()
    results = take_turns(candidates(tuple(arguments.size)), repeats=arguments.repeats, threads=1, allocator="glibc")
    print(report(results))
    path = write_json("views", {"size": arguments.size, "images": IMAGES}, {"rows": rows(results.values())})
    print(f"{path}; {environment()}")


if __name__ == "__main__":
    main()
