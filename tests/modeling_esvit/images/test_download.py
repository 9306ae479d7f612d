# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a server can hold up or fill a program only so far."""

import gzip
import http.server
import threading

import pytest

from modeling_esvit.images import download as module
from modeling_esvit.images.download import DownloadError, download
from modeling_esvit.images.http_client import RedirectError


@pytest.fixture
def host():
    """Serves images that are missing, endless, packed, slow, elsewhere, or to be asked for again tomorrow."""
    asked, ended = [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/busy" and asked.count("/busy") == 1:
                return self.answer(503, {"Retry-After": "86400"}, b"")
            if self.path.startswith("/to?"):
                return self.answer(302, {"Location": self.path.removeprefix("/to?")}, bytes(10**6))
            if self.path == "/bomb":
                return self.answer(200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(10**6)))
            if self.path == "/drip":
                self.answer(200, {"Content-Length": "1000"}, b"x")
                return ended.wait()
            return self.answer(404 if self.path == "/missing" else 200, {}, bytes(1000))

        def answer(self, status, headers, content):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for _ in range(100 if self.path == "/long" else 1):
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        ended.set()
        server.shutdown()


def test_limits_of_downloads(host, monkeypatch):
    assert download(f"{host}/busy", 1000) == bytes(1000)  # though the server says to wait for a day
    with pytest.raises(DownloadError, match="404"):
        download(f"{host}/missing", 1000)
    with pytest.raises(DownloadError, match="sends more than 2000 bytes"):
        download(f"{host}/long", 2000)
    with pytest.raises(DownloadError, match="compresses what it sends"):
        download(f"{host}/bomb", 10**6)
    monkeypatch.setattr(module, "RETRIES", 0)
    with pytest.raises(DownloadError, match="ConnectError"):
        download("http://127.0.0.1:9/a.png", 1000)
    monkeypatch.setattr(module, "LONGEST", -1)
    with pytest.raises(DownloadError, match="takes more than"):
        download(f"{host}/long", 10**6)
    monkeypatch.setattr(module, "LONGEST", 0.2)
    with pytest.raises(DownloadError, match="takes more than"):
        download(f"{host}/drip", 10**6)  # which sends a byte, and then nothing


def test_where_a_server_may_lead(host):
    assert download(f"{host}/to?/image", 1000) == bytes(1000)
    assert download(f"{host}/to?/to?/image", 1000) == bytes(1000)
    with pytest.raises(RedirectError, match="redirects to 10.255.255.1, which is a private address; .*set ESVIT_ALLOW"):
        download(f"{host}/to?http://10.255.255.1:9/image", 1000)
    with pytest.raises(RedirectError, match="to a file: URL"):
        download(f"{host}/to?file:///etc/passwd", 1000)
    with pytest.raises(RedirectError, match="more than 10 times"):
        download(f"{host}/to?" * 12 + "/image", 1000)
