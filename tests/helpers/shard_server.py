# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes shards of images that tell their number, and serves files with faults on demand."""

import io
import re
import socket
import struct
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import datasets
import numpy as np
import pyarrow.parquet as pq
from PIL import Image


FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})


def picture(number: int, size: int = 12) -> bytes:
    """Returns a noisy PNG, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(folder: Path, lengths: list[int], group: int = 3, size: int = 12) -> list[str]:
    """Writes shards of these lengths, whose rows are labelled by their number in all; `group` rows a row group."""
    first, paths = 0, []
    for index, length in enumerate(lengths):
        numbers = range(first, first + length)
        images = [{"bytes": picture(number, size), "path": f"{number}.png"} for number in numbers]
        data = datasets.Dataset.from_dict({"image": images, "label": list(numbers)}, features=FEATURES)
        paths.append(str(folder / f"train-{index:05d}.parquet"))
        pq.write_table(data.with_format("arrow")[:], paths[-1], row_group_size=group)
        first += length
    return paths


def write_tar(folder: Path, lengths: list[int], size: int = 12) -> list[str]:
    """Writes the same in tar files: `png`, `cls` and `json` of each sample."""
    first, paths = 0, []
    for index, length in enumerate(lengths):
        paths.append(str(folder / f"train-{index:05d}.tar"))
        with tarfile.open(paths[-1], "w") as tar:
            for number in range(first, first + length):
                members = {"png": picture(number, size), "cls": str(number).encode(), "json": b"{}" * 50}
                for extension, content in members.items():
                    member = tarfile.TarInfo(f"all/{number:05d}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        first += length
    return paths


class FileServer(ThreadingHTTPServer):
    """Serves a folder, ranges included. `faults` are dealt one to each GET; `sent` counts bytes by path."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.faults, self.sent, self.tags = folder, list[str](), Counter[str](), True

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault.isdigit():
            self.send_response(int(fault))
            self.send_header("Retry-After", "1" if fault == "429" else "soon")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault == "stall":
            time.sleep(1.0)
            self.close_connection = True
        elif fault == "drop":
            self.close_connection = True
        else:
            self._answer(head=False, short=fault == "short", broken=fault == "broken")

    def _answer(self, head: bool, short: bool = False, broken: bool = False) -> None:
        """Answers; `short` sends fewer bytes and says so in the header, `broken` fewer than the header says."""
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content, size = path.read_bytes(), path.stat().st_size
        tag = f'"{path.stat().st_mtime_ns}-{size}"'
        if self.headers.get("If-Match", tag) != tag:
            self.send_error(412)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted:
            content = content[int(wanted[1]) : int(wanted[2]) + 1]
        if short:
            content = content[: len(content) // 2]
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        if self.server.tags:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content)))
        if wanted:
            self.send_header("Content-Range", f"bytes {wanted[1]}-{int(wanted[1]) + len(content) - 1}/{size}")
        self.end_headers()
        if not head:
            self.server.sent[path.name] += len(content)
            self.wfile.write(content[: len(content) // 2] if broken else content)

    def log_message(self, *arguments: object) -> None:
        """Logs nothing: the output of tests is for failures."""


@contextmanager
def serve(folder: Path) -> Iterator[FileServer]:
    server = FileServer(folder)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
