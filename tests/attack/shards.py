# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Attacks the reading of shards: tar files, their indexes, and parquet files whose rows name other files."""

import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modeling_esvit.images.decoding import Record, UnreadableImageError, decode
from tests.attack.mutations import mutate_bytes
from tests.attack.outcomes import Attack, Surface, WrongError
from tests.helpers.shard_server import picture, write_members, write_parquet, write_tar
from training.data.shard_stream import StreamOptions
from training.data.stream_opening import open_stream


SECRET = picture(99)
LENGTHS = [5]
LINK, HARD_LINK = b"2", b"1"
# What the members of a tar file of a stranger may be called, and lead to.
NAMES = ("0.png", "0.cls", "../0.png", "/0.png", ".hidden", "0", "a/./0.png", "0.png/", "\x00", "a" * 300, "é.png")
LABELS = (b"7", b"", b"-1", b"9" * 25, b"\xff", b"1.5", b"dog\n", b"7" * 2000)


def read_all(path: Path, options: StreamOptions, **columns: str) -> list[Record]:
    """Reads every record of a shard, and decodes those that can be."""
    stream = open_stream([str(path)], options, **columns)
    records = [stream.read(item) for item in stream.rows(0, len(stream))]
    for record in records:
        try:
            image = decode(record)
        except UnreadableImageError:
            continue
        if isinstance(record.image, str) and image.size == (12, 12) and not is_inside(record, path.parent):
            raise WrongError(f"a row opened {record.image}")
    return records


def is_inside(record: Record, folder: Path) -> bool:
    place = str(record.image).rpartition("file://")[2]
    return os.path.realpath(os.path.join(folder, place)).startswith(f"{os.path.realpath(folder)}{os.sep}")


def prepare_tar(folder: Path) -> Attack:
    whole = Path(write_tar(folder, LENGTHS)[0]).read_bytes()
    path = folder / "tried.tar"

    def attack(random: Random) -> None:
        if random.random() < 0.5:
            path.write_bytes(mutate_bytes(random, whole, whole[512:]))
        else:
            members: dict[str, Any] = {f"{number}.png": picture(number) for number in range(2)}
            for _ in range(random.randrange(1, 4)):
                content = random.choice(
                    [*LABELS, SECRET, *((kind, each) for kind in (LINK, HARD_LINK) for each in NAMES)]
                )
                members[random.choice(NAMES)] = content
            write_members(path, {name: content for name, content in members.items() if "\x00" not in name})
            path.write_bytes(path.read_bytes() * random.choice([1, 1, 2]))
        read_all(path, StreamOptions(max_unreadable=1.0))

    return attack


def prepare_index(folder: Path) -> Attack:
    path = Path(write_tar(folder, LENGTHS)[0])
    options = StreamOptions(index_dir=folder / "index")
    expected = read_all(path, options)
    shutil.copytree(folder / "index", folder / "whole")

    def attack(random: Random) -> None:
        """Damages an index or its record, or changes the file that it is of."""
        shutil.rmtree(folder / "index")
        shutil.copytree(folder / "whole", folder / "index")
        damaged = random.choice(sorted((folder / "index").iterdir()))
        damaged.write_bytes(mutate_bytes(random, damaged.read_bytes()))
        if read_all(path, options) != expected:
            raise WrongError("a damaged index was used")

    return attack


def prepare_parquet(folder: Path) -> Attack:
    (folder / "data").mkdir()
    whole = Path(write_parquet(folder, LENGTHS)[0]).read_bytes()
    path, secret, pipe = folder / "data" / "tried.parquet", folder / "secret.png", folder / "data" / "pipe.png"
    secret.write_bytes(SECRET)
    os.mkfifo(pipe)
    (folder / "data" / "link.png").symlink_to(secret)
    places = [str(secret), "../secret.png", f"file://{secret}", "link.png", str(pipe), "pipe.png", "/dev/zero"]
    places += ["", "\x00", f"zip://a.png::{secret}", f"simplecache::{secret}", "http://127.0.0.1:9/a.png"]
    places += ["tried.parquet", "."]

    def attack(random: Random) -> None:
        columns = {}
        if random.random() < 0.5:
            path.write_bytes(mutate_bytes(random, whole, whole[100:]))
        else:
            images: list[Any] = [random.choice([None, SECRET, b"", random.randbytes(9)]) for _ in range(3)]
            names = [random.choice([None, *places]) for _ in range(3)]
            table = random.choice([
                {"image": pa.array([{"bytes": i, "path": n} for i, n in zip(images, names, strict=True)])},
                {"image": pa.array(names, pa.string())},
                {"image": pa.array(images, pa.binary())},
                {"image": pa.array(images, pa.large_binary()), "label": pa.array([1, None, 2**62])},
                {"image": pa.array([1, 2, 3])},
                {"image": pa.array([[1], [2], None])},
            ])  # fmt: skip
            pq.write_table(pa.table(table), path)
            columns = random.choice([{}, {"image_column": "image"}, {"image_column": "image", "label_column": "label"}])
        read_all(path, StreamOptions(), **columns)

    return attack


SURFACES = [
    Surface("tar shards, damaged and crafted", prepare_tar, 2),
    Surface("indexes of tar shards, damaged", prepare_index, 1),
    Surface("parquet, damaged and crafted rows", prepare_parquet, 2),
]
