# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Lets many visitors use the page at once, some of whom send bombs: it answers all, and its memory stays bounded.

PYTHONPATH=. python tests/examples/test_app_load.py MODEL    # ten sessions on a model of yours; prints the figures
"""

import http.client
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from modeling_esvit import EsViTConfig, EsViTModel
from tests.helpers.app_server import serve_app


MEGABYTE = 2**20
# What the page may take beyond what it takes for one visitor: 6 bytes for each of 50 million pixels, the bytes of an
# upload, and what allocators keep.
ALLOWED = 6 * 50 + 33 + 200


def write_bombs(folder: Path) -> list[Path]:
    """Writes files of kilobytes with as many pixels as the page takes, or far more."""
    shapes = {"L": (7000, 7000), "1": (7000, 7000), "RGB": (6000, 6000), "P": (7000, 7000), "RGBA": (6000, 6000)}
    for mode, size in shapes.items():
        Image.new(mode, size).save(folder / f"allowed-{mode}.png")
    Image.fromarray(np.zeros((7000, 7000), np.uint16)).save(folder / "allowed-16.png")
    Image.new("L", (7000, 7000)).save(folder / "allowed.webp")
    Image.new("RGB", (7000, 7000)).save(folder / "allowed.jpg")
    Image.new("1", (30_000, 30_000)).save(folder / "refused.png")
    Image.new("RGB", (60_000, 1)).save(folder / "line.png")
    return sorted(folder.iterdir())


def upload(address: str, file: Path) -> int:
    """Uploads a file as the browser does. Returns the status."""
    border = "border"
    head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'.encode()
    tail = f"\r\n--{border}--\r\n".encode()
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={border}")
    connection.putheader("Content-Length", str(len(head) + file.stat().st_size + len(tail)))
    connection.endheaders()
    try:
        connection.send(head)
        with file.open("rb") as stream:
            while part := stream.read(MEGABYTE):
                connection.send(part)
        connection.send(tail)
    except (BrokenPipeError, ConnectionResetError):  # the page has answered already, and reads no more
        pass
    try:
        return connection.getresponse().status
    except (ConnectionResetError, http.client.RemoteDisconnected):
        return 413
    finally:
        connection.close()


@contextmanager
def watch_memory(process: psutil.Process) -> Iterator[Callable[[], float]]:
    """Yields a function that returns the most memory that a process had so far, in megabytes."""
    peak, ended = [process.memory_info().rss], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: peak[0] / MEGABYTE
    finally:
        ended.set()
        thread.join()


def visit(address: str, files: list[Path]) -> list[str]:
    """Opens the page, uploads each file as image A, and returns what the page says, or the error that it shows."""
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False, download_files=False)
    numbers = {name: number for number, name in find_events(client)}
    said = []
    for file in files:
        try:
            client.predict(handle_file(str(file)), fn_index=numbers["take_upload"])
            said.append(client.predict(fn_index=numbers["refresh"])[4])
        except AppError as error:
            said.append(f"error: {error}")
    return said


def find_events(client: Any) -> Iterator[tuple[int, str]]:
    """Yields the number and the handler of the first upload, and of a refresh."""
    dependencies = client.config["dependencies"]
    uploads = [each for each in dependencies if ["upload" in target for target in each["targets"]] == [True]]
    yield uploads[0]["id"], "take_upload"
    yield next(e["id"] for e in dependencies if e.get("trigger_after") == uploads[0]["id"]), "refresh"


def use_at_once(address: str, process: psutil.Process, folder: Path, sessions: int) -> dict[str, Any]:
    """Lets one visitor use the page, and then many at once with bombs. Returns memory and answers."""
    photograph = folder / "photograph.png"
    Image.linear_gradient("L").resize((640, 480)).save(photograph)
    (folder / "bombs").mkdir()
    bombs = write_bombs(folder / "bombs")
    with watch_memory(process) as peak:
        alone = visit(address, [photograph])
        calm = peak()
        started = time.perf_counter()
        with ThreadPoolExecutor(sessions) as pool:
            plans = [
                [*bombs[number // 2 :: 5], photograph] if number % 2 else [photograph] for number in range(sessions)
            ]
            answers = list(pool.map(lambda plan: visit(address, plan), plans))
        seconds = time.perf_counter() - started
        return {"calm": calm, "peak": peak(), "seconds": seconds, "alone": alone, "answers": answers}


def write_model(folder: Path) -> str:
    torch.manual_seed(0)
    config = EsViTConfig(image_size=64, embed_dim=16, depths=[2, 2], num_heads=[1, 2], window_size=4, patch_size=8)
    EsViTModel(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_ten_visitors_with_bombs(tmp_path):
    pytest.importorskip("gradio", reason="pip install '.[app]'")
    with serve_app(write_model(tmp_path / "model"), tmp_path, "--image_size", "64") as (address, process):
        found = use_at_once(address, psutil.Process(process.pid), tmp_path, sessions=10)
    assert len(found["answers"]) == 10
    assert all("Click a point" in answers[-1] for answers in [found["alone"], *found["answers"]])
    refused = [answer for answers in found["answers"] for answer in answers if answer.startswith("error: ")]
    assert refused and all("pixels are more than" in answer for answer in refused)
    assert found["peak"] < found["calm"] + ALLOWED, found


@pytest.mark.slow
def test_uploads_are_limited_and_deleted(tmp_path):
    """Trial 20: a file that is too large is cut off as it arrives, and 200 photographs do not stay."""
    pytest.importorskip("gradio", reason="pip install '.[app]'")
    with (tmp_path / "zeros.png").open("wb") as file:
        file.truncate(2 * 2**30)
    Image.linear_gradient("L").save(tmp_path / "photograph.png")
    kept = tmp_path / "kept"
    with serve_app(write_model(tmp_path / "model"), tmp_path, "--image_size", "64", "--keep", "0.1", kept=kept) as (
        address,
        _,
    ):
        assert upload(address, tmp_path / "zeros.png") == 413
        names = [f"{number}.png" for number in range(200)]
        with ThreadPoolExecutor(4) as pool:
            copies = [tmp_path / "photograph.png"] * len(names)
            assert set(pool.map(lambda file: upload(address, file), copies)) == {200}
        assert sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) < 40 * MEGABYTE
        deadline = time.monotonic() + 120
        while (left := [path for path in kept.rglob("photograph*") if path.is_file()]) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert left == []


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        with serve_app(sys.argv[1], Path(scratch)) as (address, process):
            print(use_at_once(address, psutil.Process(process.pid), Path(scratch), sessions=10))
