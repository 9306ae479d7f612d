# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes miniatures of data sets of the Hub, under their real names and in their real shapes, of generated JPEGs.

Every sample has a number, counted through the shards of its split; name, label and picture are functions of it, so
that a test can tell which samples came. Shards differ in length, as real ones do.
"""

import io
import json
import tarfile
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from tests.hub.protocol import Repository


NUM_CLASSES = 1000
ROWS_PER_GROUP = 2
JPEG_SIZE = 1024
TAR_BOUNDARY = 3 * 7 * 512


def shard_lengths(shards: int, mean: int = 4) -> list[int]:
    """Returns the number of samples of each shard: in turn one more than `mean`, one less, and as many."""
    return [mean + (1, -1, 0)[index % 3] for index in range(shards)]


def label_of(split: str, number: int) -> int:
    """Returns the class of a sample; the test split of ImageNet has none, -1."""
    return -1 if split == "test" else number * 7 % NUM_CLASSES


def key_of(split: str, number: int) -> str:
    """Returns the name of a sample without its extension, such as "n00000042_00000006" or "ILSVRC2012_val_00000006"."""
    if split == "train":
        return f"n{label_of(split, number):08d}_{number:08d}"
    return f"ILSVRC2012_{split.replace('validation', 'val')}_{number:08d}"


@cache
def jpeg(split: str, number: int) -> bytes:
    """Returns the file of a sample: a smooth picture of 64 x 48 pixels, JPEG_SIZE bytes long."""
    rng = np.random.default_rng([number, len(split)])
    corners = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    corners.resize((64, 48), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=50)
    return buffer.getvalue().ljust(JPEG_SIZE, b"\0")  # readers of JPEG stop at its end marker


def class_names() -> list[str]:
    return [f"class {index}" for index in range(NUM_CLASSES)]


# -- parquet -----------------------------------------------------------------------------------------------------------


def parquet_schema() -> pa.Schema:
    """Returns the schema as `datasets` writes it: its metadata holds the features, which name the classes."""
    features = {"image": {"_type": "Image"}, "label": {"names": class_names(), "_type": "ClassLabel"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([("image", image), ("label", pa.int64())], metadata=metadata)


def parquet_shard(split: str, start: int, length: int, schema: pa.Schema) -> bytes:
    """Returns samples `start` to `start + length` in row groups of ROWS_PER_GROUP."""
    numbers = range(start, start + length)
    columns = {
        "image": [{"bytes": jpeg(split, number), "path": f"{key_of(split, number)}.JPEG"} for number in numbers],
        "label": [label_of(split, number) for number in numbers],
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer, row_group_size=ROWS_PER_GROUP)
    return buffer.getvalue()


def imagenet_card(lengths: dict[str, list[int]]) -> str:
    """Returns README.md with the YAML header that declares columns, splits and files, as the data set's card does."""
    names = {str(index): name for index, name in enumerate(class_names())}
    splits = [{"name": split, "num_bytes": 0, "num_examples": sum(shards)} for split, shards in lengths.items()]
    header = {
        "pretty_name": "ImageNet",
        "task_categories": ["image-classification"],
        "extra_gated_prompt": "By clicking on 'Access repository' below, you also agree to the terms of access.",
        "dataset_info": {
            "features": [
                {"name": "image", "dtype": "image"},
                {"name": "label", "dtype": {"class_label": {"names": names}}},
            ],
            "splits": splits,
            "download_size": 0,
            "dataset_size": 0,
        },
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in lengths],
            }
        ],
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n# A miniature of ImageNet\n"


def imagenet_1k(train: int = 294, validation: int = 14, test: int = 28, mean: int = 4) -> Repository:
    """Makes `ILSVRC/imagenet-1k`: gated parquet files of `image` and `label`; the user "granted" may read it.

    Args:
        train, validation, test: Number of files of each split; a split of none is left out.
        mean: See `shard_lengths`.
    """
    counts = {"train": train, "validation": validation, "test": test}
    lengths = {split: shard_lengths(count, mean) for split, count in counts.items() if count}
    schema, files = parquet_schema(), {"README.md": imagenet_card(lengths).encode()}
    for split, shards in lengths.items():
        starts = np.cumsum([0, *shards]).tolist()
        for index, length in enumerate(shards):
            name = f"data/{split}-{index:05d}-of-{len(shards):05d}.parquet"
            files[name] = parquet_shard(split, starts[index], length, schema)
    return Repository("ILSVRC/imagenet-1k", files, gated="auto", granted=["granted"])


# -- WebDataset --------------------------------------------------------------------------------------------------------


def tar_shard(split: str, start: int, length: int) -> bytes:
    """Returns samples `start` to `start + length`, each of the members jpg, cls and json.

    A sample takes 7 of the archive's blocks of 512 bytes. Python's tar streams read one block and then 20 at a time: a
    stream that breaks for good after TAR_BOUNDARY bytes ends after the third sample, where no reader notices.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(start, start + length):
            label, key = label_of(split, number), key_of(split, number)
            described = json.dumps({"label": label, "filename": f"{key}.JPEG"}).encode()
            for extension, content in {
                "jpg": jpeg(split, number),
                "cls": str(label).encode(),
                "json": described,
            }.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


WEBDATASET_CARD = """\
---
pretty_name: ImageNet-1K
task_categories:
- image-classification
tags:
- webdataset
---

# A miniature of ImageNet-1K in WebDataset format
"""


def imagenet_1k_wds(train: int = 1024, validation: int = 64, mean: int = 4) -> Repository:
    """Makes `timm/imagenet-1k-wds`: tar files in the root of the repository; see `imagenet_1k` for the arguments."""
    files = {"README.md": WEBDATASET_CARD.encode()}
    for split, count in {"train": train, "validation": validation}.items():
        lengths = shard_lengths(count, mean)
        starts = np.cumsum([0, *lengths]).tolist()
        for index, length in enumerate(lengths):
            files[f"imagenet1k-{split}-{index:04d}.tar"] = tar_shard(split, starts[index], length)
    return Repository("timm/imagenet-1k-wds", files)
