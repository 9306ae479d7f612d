# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Workers are forked after threads of the program have fetched images of the same server, and none of them hangs.

Lightning-AI/litData issue 823, datasets issue 3148, s3fs issues 369, 889 and 914, filesystem_spec issue 835: a lock
or a connection that a thread holds at the fork is held for ever in the worker.
"""

import zipfile
from pathlib import Path

import datasets
import pytest

from tests.helpers.shard_server import FileServer, picture, serve
from tests.helpers.tiny_runs import read_losses, tiny
from training.pretrain import main


pytestmark = pytest.mark.slow
COUNT = 12
PLACES = {"files": "{server}/{number}.png", "archive": "zip://{number}.png::{server}/all.zip"}


def save_rows(folder: Path, server: FileServer, place: str, first: int) -> Path:
    """Saves a data set whose images are named by where the server has them."""
    numbers = range(first, first + COUNT)
    paths = [place.format(server=server.url("").rstrip("/"), number=number) for number in numbers]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": None, "path": path} for path in paths], "label": [number % 2 for number in numbers]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("kind", PLACES)
def test_workers_fetch_what_threads_have_fetched_before(kind, tmp_path):
    (tmp_path / "files").mkdir()
    with zipfile.ZipFile(tmp_path / "files" / "all.zip", "w") as archive:
        for number in range(2 * COUNT):
            (tmp_path / "files" / f"{number}.png").write_bytes(picture(number, 48))
            archive.writestr(f"{number}.png", picture(number, 48))
    with serve(tmp_path / "files") as server:
        train, test = (save_rows(tmp_path / f"{first}", server, PLACES[kind], first) for first in (0, COUNT))
        knn = f"--allow_paths --knn_every 1 --knn_k 1 --knn_train {train} --knn_test {test}"
        for workers in (0, 2):
            more = f"{knn} --batch_size 4 --workers {workers} --max_unreadable 0 --process_timeout 2"
            main(tiny(train, tmp_path / f"run{workers}", more))
    assert read_losses(tmp_path / "run2") == read_losses(tmp_path / "run0") != []
