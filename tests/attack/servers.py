# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Attacks shards and images that come from a server: it is slow, broken, hostile, or sends another file."""

import gzip
import http.server
import threading
import time
from pathlib import Path
from random import Random

from modeling_esvit.images import download
from modeling_esvit.images.decoding import DecodingOptions, Record, decode
from tests.attack.outcomes import Attack, Surface, WrongError
from tests.helpers.dripping_server import DRIPS
from tests.helpers.shard_server import FileServer, picture
from training.data import http_ranges, shard_files
from training.data.shard_files import ShardFile


SECONDS = 0.4  # that a server may say nothing, or take in all
FAULTS = ("", "", "404", "403", "429", "503", "500", "reset", "stall", "drop", "short", "broken")
MANNERS = ("whole", "careless", "endless", "redirect", "packed", "private")


def prepare_shards(folder: Path) -> Attack:
    content = bytes(range(256)) * 40
    path = folder / "a.tar"
    server = FileServer(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    http_ranges.STALL_SECONDS = SECONDS
    shard_files.FIRST_DELAY = 0.02

    def attack(random: Random) -> None:
        path.write_bytes(content)
        server.manners, server.tags, server.faults = set(), random.random() < 0.8, []
        if random.random() < 0.5:
            server.manners = set(random.sample(MANNERS, random.choice([1, 1, 2])))
        server.faults = [random.choice(FAULTS) for _ in range(random.randrange(4))]
        file = ShardFile.locate(server.url("a.tar"), retry_seconds=SECONDS)
        start = random.randrange(len(content))
        stop = random.randrange(start, len(content)) + 1
        changed = random.random() < 0.3
        if changed:
            path.write_bytes(content[::-1] + b"x")
        if file.read_range(start, stop) != content[start:stop]:
            raise WrongError("other bytes than the shard had")

    return attack


class StrangeHost(http.server.BaseHTTPRequestHandler):
    """Answers `/KIND` by an image, or by what that kind of server sends."""

    image = picture(3)

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        if kind.isdigit():
            return self.answer(int(kind), {"Retry-After": "86400"}, b"")
        if kind == "circle":
            return self.answer(302, {"Location": "/circle"}, b"")
        if kind == "private":
            return self.answer(302, {"Location": "http://10.255.255.1:9/image"}, b"")
        if kind == "file":
            return self.answer(302, {"Location": "file:///etc/passwd"}, b"")
        if kind == "bomb":
            return self.answer(200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(2**26), 9))
        if kind == "packed":
            return self.answer(200, {"Content-Encoding": "gzip"}, self.image)
        if kind == "header":
            return self.answer(200, {f"X-{number}": "x" * 1000 for number in range(500)}, self.image)
        if kind == "status":
            self.wfile.write(b"HTTP/1.1 whatever\r\n\r\n")
            return None
        if kind in DRIPS:
            return self.drip(*DRIPS[kind])
        self.answer(200, {}, self.image[:50] if kind == "cut" else self.image, declared=kind != "endless")
        while kind == "endless":
            self.wfile.write(bytes(2**16))
        for _ in range(20 if kind == "drip" else 0):
            self.wfile.write(b"x")
            time.sleep(SECONDS / 10)
        return None

    def drip(self, first: bytes, drip: bytes) -> None:
        self.wfile.write(first)
        for _ in range(1000):
            self.wfile.write(drip)
            time.sleep(SECONDS / 10)

    def answer(self, status: int, headers: dict[str, str], body: bytes, declared: bool = True) -> None:
        self.send_response(status)
        longer = {"drip": 20, "short": 500}.get(self.path.strip("/"), 0)
        for name, value in (headers | ({"Content-Length": str(len(body) + longer)} if declared else {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


KINDS = (
    *("image", "image", "image", "404", "429", "503", "301", "circle", "private", "file", "bomb", "packed"),
    *("header", "status", "cut", "endless", "drip", "short", *DRIPS),
)


class QuietServer(http.server.ThreadingHTTPServer):
    """Says nothing of clients that left."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Does nothing."""


def prepare_images(folder: Path) -> Attack:
    server = QuietServer(("127.0.0.1", 0), StrangeHost)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    download.TIMEOUT = download.LONGEST = SECONDS
    download.RETRIES, download.BACKOFF = 1, 0.01
    expected = decode(Record(StrangeHost.image, None, "image")).tobytes()
    options = DecodingOptions(max_pixels=2**16)

    def attack(random: Random) -> None:
        kind = random.choice(KINDS)
        started = time.monotonic()
        try:
            found = decode(Record(f"http://127.0.0.1:{server.server_port}/{kind}", None, None, options))
        finally:
            if time.monotonic() - started > 20 * SECONDS:
                raise WrongError(f"{kind} held the program up for {time.monotonic() - started:.1f} s")
        if kind != "image" or found.tobytes() != expected:
            raise WrongError(f"the server was {kind!r}, and its image was taken")

    return attack


SURFACES = [
    Surface("shards of a server with faults", prepare_shards, 2),
    Surface("images by URL, of such a server", prepare_images, 2),
]
