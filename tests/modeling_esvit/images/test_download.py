# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a server can hold up or fill a program only so far."""

import http.server
import threading

import pytest

from modeling_esvit.images import download as module
from modeling_esvit.images.download import DownloadError, download


@pytest.fixture
def host():
    """Serves images that are missing, endless, or to be asked for again tomorrow."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/busy" and asked.count("/busy") == 1:
                self.send_response(503)
                self.send_header("Retry-After", "86400")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(404 if self.path == "/missing" else 200)
            self.end_headers()
            for _ in range(100 if self.path == "/long" else 1):
                self.wfile.write(bytes(1000))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_limits_of_downloads(host, monkeypatch):
    assert download(f"{host}/busy", 1000) == bytes(1000)  # though the server says to wait for a day
    with pytest.raises(DownloadError, match="404"):
        download(f"{host}/missing", 1000)
    with pytest.raises(DownloadError, match="sends more than 2000 bytes"):
        download(f"{host}/long", 2000)
    monkeypatch.setattr(module, "LONGEST", -1)
    with pytest.raises(DownloadError, match="takes more than"):
        download(f"{host}/long", 10**6)
    with pytest.raises(DownloadError):
        download("http://127.0.0.1:9/a.png", 1000)
