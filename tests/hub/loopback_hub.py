# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Serves a small Hub on 127.0.0.1 to the unmodified `huggingface_hub` and `datasets` clients, with faults on demand.

    with LoopbackHub([repository], tokens={"hf_secret": "ada"}) as hub:
        hub.inject(Fault("*train-00003*", cut="drop", after=10_000))
        subprocess.run(command, env=hub.environment(tmp_path, token="hf_secret"))
        assert all(entry.authenticated for entry in hub.requests("/datasets/*"))

Clients read its address from their environment when they are imported: they run in processes of their own.
"""

import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from tests.hub.protocol import Refusal, Repository, Request, Response
from tests.hub.uploads import WritableHub


CHUNK = 1 << 16


@dataclass
class Fault:
    """Describes what goes wrong with requests whose unquoted path matches the glob `path`, by default the first.

    A fault either answers with `status` (and Retry-After), or cuts a 200 or 206 answer after `after` bytes of its body;
    answers that have no more than these are left alone. `after` None cuts before the first byte of the head. With a
    `status` or with None a request has no effect; with a cut of its answer it has: a commit is made.

    The bytes of an LFS file come from the CDN, at /dataset/namespace/name/commit/path, and before them a redirection at
    /datasets/namespace/name/resolve/revision/path: a `status` at "*/path" meets the redirection.

    Cuts: "drop" closes the connection; "reset" resets it; "stall" is silent until `resumed` is set, or for
    `pause` seconds, then goes on; "short" announces and sends `after` bytes as if they were all.

    Attributes:
        skip: Matching requests that pass before.
        times: Requests that it then hits; None: all.
        seconds: Hits only for so long after the first hit; None: always.
        hits: Requests hit so far.
    """

    path: str
    status: int | None = None
    retry_after: int | None = None
    cut: Literal["drop", "reset", "stall", "short"] | None = None
    after: int | None = 0
    pause: float = 0.0
    method: str = "GET"
    skip: int = 0
    times: int | None = 1
    seconds: float | None = None
    hits: int = 0
    resumed: threading.Event = field(default_factory=threading.Event, repr=False)
    _first_hit: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        if (self.status is None) == (self.cut is None):
            raise ValueError(f"a fault has either a status or a cut: status={self.status}, cut={self.cut}.")
        if self.cut == "short" and self.after is None:
            raise ValueError("a short body has a length: give `after`.")

    def strikes(self, method: str, path: str, response: Response | None) -> bool:
        """Returns whether a request is hit, before it is answered (None) or by a cut of its answer; counts it."""
        if method != self.method or not fnmatchcase(path, self.path) or not self._applies_to(response):
            return False
        if self.skip:
            self.skip -= 1
            return False
        now = time.monotonic()
        spent = self.times is not None and self.hits >= self.times
        over = self.seconds is not None and self.hits > 0 and now > self._first_hit + self.seconds
        if spent or over:
            return False
        self._first_hit = self._first_hit or now
        self.hits += 1
        return True

    def _applies_to(self, response: Response | None) -> bool:
        if self.status is not None or self.after is None:
            return response is None
        if response is None or self.method == "HEAD":
            return False
        return response.status in (200, 206) and len(response.body) > self.after


def refusal(status: int, retry_after: int | None) -> Response:
    """Returns the answer of a server that is overloaded or broken."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Refusal(status, f"fault on demand: {status}", **headers).response()


@dataclass
class LoggedRequest:
    """Records a request as it was answered: whether a token came and whose it was, never the token.

    Attributes:
        at: Seconds on the clock of `time.monotonic` when it came.
        host: "hub" or "cdn".
        path: Unquoted, without query.
        range: The Range header, or None.
        user: Name of the user whose token came; None without or with an unknown one.
        status: 0 if no head was sent.
        sent: Bytes of the body.
        fault: What was done to it on demand: a cut, "503", or None.
    """

    at: float
    host: str
    method: str
    path: str
    range: str | None
    authenticated: bool
    user: str | None
    status: int = 0
    sent: int = 0
    fault: str | None = None


class LoopbackHub:
    """Starts and stops the server, as a context manager. See `Hub` for the arguments.

    It has no dataset viewer: `datasets` asks for that at "datasets-server." before the host, and does without.

    Attributes:
        hub: What answers; its `repositories` have what was uploaded.
        url: The address to give to clients as HF_ENDPOINT.
        log: All requests, in the order in which they came.
    """

    def __init__(
        self,
        repositories: Iterable[Repository],
        tokens: Mapping[str, str] | None = None,
        page_size: int = 1000,
        organizations: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self.hub = WritableHub(repositories, tokens or {}, page_size, organizations)
        self.log: list[LoggedRequest] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        # The CDN needs a host name of its own: clients follow a redirection that stays on the Hub's.
        self._servers = [_Server(self, "hub", "127.0.0.1"), _Server(self, "cdn", "localhost")]
        self.url, self.cdn_url = (server.url for server in self._servers)
        self.hub.url, self.hub.cdn_url = self.url, self.cdn_url

    def __enter__(self) -> "LoopbackHub":
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for fault in self.faults:
            fault.resumed.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def environment(self, home: str | os.PathLike[str], token: str | None = None, **variables: str) -> dict[str, str]:
        """Returns the environment of a client of this Hub only, without the user's own settings, caches and token."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        settings = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(Path(home) / "hf_home"),
            "HF_HUB_DISABLE_XET": "1",  # with Xet, the client does not fall back to LFS
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # else `datasets` counts its loads at another host
            "NO_PROXY": "127.0.0.1,localhost",
        }
        return {**kept, **settings, **({} if token is None else {"HF_TOKEN": token}), **variables}

    def inject(self, *faults: Fault) -> None:
        """Adds faults. A request meets the first that strikes before it is answered, else the first that cuts."""
        with self._lock:
            self.faults.extend(faults)

    def requests(self, path: str = "*", method: str | None = None) -> list[LoggedRequest]:
        """Returns the log of requests whose path matches the glob."""
        with self._lock:
            log = list(self.log)
        return [entry for entry in log if fnmatchcase(entry.path, path) and method in (None, entry.method)]

    def record(self, entry: LoggedRequest) -> None:
        with self._lock:
            self.log.append(entry)

    def fault_for(self, method: str, path: str, response: Response | None) -> Fault | None:
        with self._lock:
            return next((fault for fault in self.faults if fault.strikes(method, path, response)), None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, loopback: LoopbackHub, host: str, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.loopback, self.host = loopback, host
        self.url = f"http://{name}:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ends the connection of a client that went away, which is no error of the server, and shows other errors."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, path, query, self.headers, body)
        entry = self._log_entry(request)
        self.server.loopback.record(entry)
        fault = self._fault(entry, None)
        if fault is None:
            response = self._answer(request)
            fault = self._fault(entry, response)
            if fault is None:
                self._send(response, entry)
            else:
                self._send_cut(response, entry, fault)
        elif fault.status is not None:
            self._send(refusal(fault.status, fault.retry_after), entry)
        elif fault.cut == "stall":
            fault.resumed.wait(fault.pause)
            self._send(self._answer(request), entry)
        else:
            self._end_connection(reset=fault.cut == "reset")

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _answer(self, request: Request) -> Response:
        hub = self.server.loopback.hub
        return hub.answer(request) if self.server.host == "hub" else hub.answer_cdn(request)

    def _fault(self, entry: LoggedRequest, response: Response | None) -> Fault | None:
        fault = self.server.loopback.fault_for(entry.method, entry.path, response)
        if fault is not None:
            entry.fault = fault.cut or str(fault.status)
        return fault

    def _log_entry(self, request: Request) -> LoggedRequest:
        authorization = request.headers.get("Authorization")
        user = self.server.loopback.hub.tokens.get((authorization or "").removeprefix("Bearer "))
        span = request.headers.get("Range")
        now, host, path = time.monotonic(), self.server.host, unquote(request.path)
        return LoggedRequest(now, host, request.method, path, span, authorization is not None, user)

    def _send(self, response: Response, entry: LoggedRequest) -> None:
        self._send_head(response, entry, len(response.body))
        if self.command != "HEAD":
            self._send_body(response.body, entry)

    def _send_head(self, response: Response, entry: LoggedRequest, length: int) -> None:
        entry.status = response.status
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send_body(self, body: bytes, entry: LoggedRequest) -> None:
        for start in range(0, len(body), CHUNK):
            chunk = body[start : start + CHUNK]
            self.wfile.write(chunk)
            entry.sent += len(chunk)

    def _send_cut(self, response: Response, entry: LoggedRequest, fault: Fault) -> None:
        before, after = response.body[: fault.after], response.body[fault.after :]
        self._send_head(response, entry, len(before) if fault.cut == "short" else len(response.body))
        self._send_body(before, entry)
        if fault.cut == "stall":
            fault.resumed.wait(fault.pause)
            self._send_body(after, entry)
        elif fault.cut in ("drop", "reset"):
            self._end_connection(reset=fault.cut == "reset")

    def _end_connection(self, reset: bool) -> None:
        """Closes the connection in the middle of an answer: orderly, or, with a linger time of zero, by a reset."""
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()  # it holds the socket open
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Writes nothing to stderr: requests go to the log of `LoopbackHub`."""
