# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads parts of files from HTTP servers, within bounds of time and size, and notices when a file changes.

Every answer is checked: it must be the part that was asked for, of the version that was asked for. A server that
ignores the conditions of a request tells by its answer which version it sends.
"""

import functools
import logging
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from modeling_esvit.images import http_client
from modeling_esvit.images.deadlines import DeadlineError
from modeling_esvit.storage.contents import describe_stand_in
from modeling_esvit.storage.url_secrets import redact_urls, reveal_url


# A server must connect, and send a byte, within so many seconds. A whole answer may take as long as SLOWEST allows.
STALL_SECONDS = 30
SLOWEST = 64 * 1024  # bytes per second
WHOLE, NOT_SATISFIABLE, PARTIAL, PRECONDITION_FAILED = 200, 416, 206, 412
NO_RANGES = (
    "with a whole file where a part was asked for (it knows no HTTP ranges). Download the shards, or use another server"
)


class ShortReadError(OSError):
    """Raised when fewer bytes came than were asked for."""


class StatusError(OSError):
    """Raised when a server answers with an error; `status` is its number."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"the server answers {status} {reason}")
        self.status, self.headers = status, headers


class AnswerError(OSError):
    """Raised when the answer of a server cannot be used, and another one would be no better."""


class ChangedFileError(AnswerError):
    """Raised when an answer belongs to another version of a file."""


class HttpFile(NamedTuple):
    """Says what a server tells of a file: `version` is its ETag or Last-Modified, or empty."""

    size: int
    version: str


class UrlFilter(logging.Filter):
    """Takes passwords and signatures out of what the HTTP library logs: it names the URL of each request."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact_urls(record.getMessage()), ()
        return True


@functools.cache
def get_http() -> Any:
    """Returns the HTTP library, which logs no passwords any more."""
    httpx = http_client.get_http()
    logging.getLogger(httpx.__name__).addFilter(UrlFilter())
    return httpx


def _open(url: str, headers: Mapping[str, str], count: int) -> AbstractContextManager[Any]:
    """Opens an answer of `count` bytes."""
    get_http()
    deadline = time.monotonic() + STALL_SECONDS + count / SLOWEST
    return http_client.open_url(reveal_url(url), headers, STALL_SECONDS, deadline)


def find_http_file(url: str) -> HttpFile:
    """Returns size and version of a file. Its first byte is asked for: signatures of URLs are often for GET alone.

    Raises:
        AnswerError: the server sends no parts of files, or does not tell the size.
        RedirectError: it leads to a private address.
        OSError, httpx.HTTPError: it cannot be reached, or refuses.
    """
    with _open(url, _ask(0, 1), 1) as response:
        headers = response.headers
        total = re.fullmatch(r"bytes [^/]*/([0-9]+|\*)", headers.get("Content-Range", ""))
        if response.status_code == NOT_SATISFIABLE and total and total[1] == "0":
            return HttpFile(0, name_version(headers))
        _check_status(response)
        if total is None or total[1] == "*":
            raise AnswerError("the server does not tell its size, so no part of it can be asked for. Use another one.")
        return HttpFile(int(total[1]), name_version(headers))


def read_http_range(url: str, start: int, stop: int, file: HttpFile) -> bytes:
    """Returns the bytes `start` to `stop - 1` of a file.

    Raises:
        ChangedFileError: the file is of another version or size.
        ShortReadError: fewer bytes came, or they came too slowly.
        AnswerError: the answer is not what was asked for.
        OSError, httpx.HTTPError: the server cannot be reached, or refuses.
    """
    headers = _ask(start, stop) | _make_condition(file.version)
    with _open(url, headers, stop - start) as response:
        if response.status_code in (PRECONDITION_FAILED, NOT_SATISFIABLE):
            raise ChangedFileError(f"the server answers {response.status_code}")
        _check_status(response)
        _check_version(response.headers, start, file)
        return _read_body(response, stop - start)


def _ask(start: int, stop: int) -> dict[str, str]:
    return {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}


def _make_condition(version: str) -> dict[str, str]:
    """Returns headers with which a server sends parts of this version alone. None may depend on a weak ETag."""
    if not version or version.startswith("W/"):
        return {}
    return {"If-Match" if version.startswith('"') else "If-Unmodified-Since": version}


def name_version(headers: Mapping[str, str]) -> str:
    """Returns what changes with a file: the ETag, or the date if the ETag is weak."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", tag)


def _check_status(response: Any) -> None:
    if response.status_code >= 400:
        raise StatusError(response.status_code, response.reason_phrase, response.headers)
    if response.status_code == WHOLE:
        head = next(response.iter_raw(), b"")
        stand_in = head and describe_stand_in(head)
        raise AnswerError(f"the server answers 200 {f'with {stand_in}' if stand_in else NO_RANGES}.")
    if response.status_code != PARTIAL:
        raise AnswerError(f"the server answers {response.status_code}, which is no part of a file.")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise AnswerError("the server compresses what it sends. Switch that off, or use another server.")


def _check_version(headers: Mapping[str, str], start: int, file: HttpFile) -> None:
    version = name_version(headers)
    if version and file.version and version != file.version:
        raise ChangedFileError(f"its version is now {version}, and was {file.version}")
    place = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)", headers.get("Content-Range", ""))
    if place is None or int(place[1]) != start:
        raise AnswerError(f"the server sends another part than was asked for: {headers.get('Content-Range')!r}.")
    if place[2] not in ("*", str(file.size)):
        raise ChangedFileError(f"its size is now {place[2]}, and was {file.size}")


def _read_body(response: Any, count: int) -> bytes:
    """Reads a body that should have `count` bytes. One that is longer is not read to its end."""
    content = bytearray()
    try:
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > count:
                raise AnswerError(
                    f"the server sends more than the {count} bytes that were asked for. Use another server."
                )
    except DeadlineError as error:
        raise ShortReadError(f"only {len(content)} of {count} bytes came in time") from error
    if len(content) < count:
        raise ShortReadError(f"{len(content)} bytes came instead of {count}")
    return bytes(content)
