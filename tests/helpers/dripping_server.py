# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a server that sends a little now and then, and never an answer."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager


PART = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-999/1000\r\n"
CHUNK = b"Transfer-Encoding: chunked\r\n\r\n1;"
DRIPS = {  # what comes first, and what comes over and over
    "slow-header": (b"HTTP/1.1 200 OK\r\nX-Name: ", b"x"),
    "endless-notes": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "slow-chunk": (b"HTTP/1.1 200 OK\r\n" + CHUNK, b"x"),
    "slow-chunk-of-part": (PART + CHUNK, b"x"),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://slow/a.png\r\nContent-Length: 1\r\n\r\n", b"x"),
    "slow-part": (PART + b"Content-Length: 1000\r\n\r\n", b"x"),
}
PAUSE = 0.05  # seconds
LONGEST = 20  # seconds, after which a test fails and does not hang


class Handler(socketserver.StreamRequestHandler):
    """Answers `/KIND` by a drip."""

    def handle(self) -> None:
        kind = self.rfile.readline().split()[1].decode().rpartition("/")[2]
        first, drip = DRIPS[kind]
        try:
            self.wfile.write(first)
            for _ in range(int(LONGEST / PAUSE)):
                self.wfile.write(drip)
                if self.server.ended.wait(PAUSE):  # type: ignore[attr-defined]
                    return
        except OSError:  # the client left
            return


@contextmanager
def serve_drips() -> Iterator[str]:
    """Yields the address of the server."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.ended = True, threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.ended.set()  # type: ignore[attr-defined]
        server.shutdown()
