# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes shards of images that tell their number, and serves files with faults on demand."""

import base64
import io
import re
import socket
import ssl
import struct
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

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
    """Serves a folder, ranges included. `faults` are dealt one to each GET; `sent` counts bytes by path.

    Attributes:
        secret: The query and the login ("?sig=abc", "ada:pw") that each request must have.
        manners: What else it does: "whole" (it knows no ranges), "careless" (it ignores conditions), "endless" (a body
            without end), "packed" (it says that it compresses), "redirect" (to the same path with the secret),
            "private" (to an address that only its own network should reach), "no HEAD".
    """

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that do not trust the certificate."""
        if not isinstance(sys.exc_info()[1], ssl.SSLError):
            super().handle_error(request, client_address)

    def __init__(self, folder: Path, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "http" if certificate is None else "https"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.folder, self.faults, self.sent, self.tags = folder, list[str](), Counter[str](), True
        self.secret, self.manners, self.requests = ("", ""), set[str](), list[str]()

    def url(self, name: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def _is_allowed(self) -> bool:
        """Returns whether a request has the secrets, or else answers."""
        query, login = self.server.secret
        path, mark, given = self.path.partition("?")
        self.path = path
        self.server.requests.append(f"{path}{mark}{given}")
        token = f"Basic {base64.b64encode(login.encode()).decode()}"
        if "redirect" in self.server.manners and not mark:
            self.send_response(302)
            self.send_header("Location", f"{path}{query or '?once'}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        if "private" in self.server.manners:
            self.send_response(302)
            self.send_header("Location", "http://10.255.255.1:9/a.tar")
            self.end_headers()
            return False
        if query and mark + given != query or login and self.headers.get("Authorization") != token:
            self.send_error(403)
            return False
        return True

    def do_GET(self) -> None:
        if not self._is_allowed():
            return
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
        if self.headers.get("If-Match", tag) != tag and "careless" not in self.server.manners:
            self.send_error(412)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        wanted = None if "whole" in self.server.manners else wanted
        if wanted:
            content = content[int(wanted[1]) : int(wanted[2]) + 1]
        if short:
            content = content[: len(content) // 2]
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        if self.server.tags:
            self.send_header("ETag", tag)
        if "packed" in self.server.manners:
            self.send_header("Content-Encoding", "gzip")
        if "endless" not in self.server.manners:
            self.send_header("Content-Length", str(len(content)))
        if wanted:
            self.send_header("Content-Range", f"bytes {wanted[1]}-{int(wanted[1]) + len(content) - 1}/{size}")
        if not head:
            self.server.sent[path.name] += len(content)  # before the headers: they may be all that a client wants
        self.end_headers()
        if not head:
            while "endless" in self.server.manners and len(content) > 1:
                self.wfile.write(content)  # until the client closes the connection
            self.wfile.write(content[: len(content) // 2] if broken else content)

    def log_message(self, *arguments: object) -> None:
        """Logs nothing: the output of tests is for failures."""


@contextmanager
def serve(folder: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[FileServer]:
    """Serves a folder, by https:// with the files of a certificate and its key."""
    server = FileServer(folder, certificate)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def write_members(path: Path, members: Mapping[str, bytes | tuple[bytes, str]], **options: Any) -> str:
    """Writes a tar file of these contents by name; a pair is a link: its type and where it leads."""
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                member.type, member.linkname = content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(path)
