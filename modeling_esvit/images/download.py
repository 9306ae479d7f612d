# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Fetches images by their URLs, within limits of bytes and of time."""

import time

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.deadlines import DeadlineError
from modeling_esvit.images.http_client import get_http, open_url
from modeling_esvit.images.read_ahead import abandonable


RETRIES, BACKOFF, BUSY = 5, 0.2, (429, 500, 502, 503, 504)
TIMEOUT = 30  # seconds that a server may say nothing
LONGEST = 300  # seconds that a download may take in all
PLAIN = {"Accept-Encoding": "identity"}  # a compressed answer may be a thousand times as long as what is sent


class DownloadError(EsViTError, OSError):
    """Raised when a URL gives no image: the server fails, has no such file, or sends too much or too slowly."""


class BusyError(DownloadError):
    """Raised when a server may have the image a little later."""


@abandonable()
def download(url: str, most_bytes: int) -> bytes:
    """Returns the bytes behind a URL. Busy and failing servers are asked again.

    Raises:
        DownloadError: the server still fails, has no such file, or sends more than `most_bytes` or for too long.
        RedirectError: it leads to a private address.
    """
    end = time.monotonic() + LONGEST
    for attempt in range(RETRIES + 1):
        try:
            return fetch(url, most_bytes, end)
        except BusyError:  # it may name any time to wait, a day even: the times here are our own
            wait = BACKOFF * 2**attempt
            if attempt == RETRIES or time.monotonic() + wait > end:
                raise
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def fetch(url: str, most_bytes: int, end: float) -> bytes:
    """Asks once for a URL, until the time `end`.

    Raises:
        BusyError: the server cannot be reached, breaks off, or says that it fails at the moment.
        DownloadError: see `download`.
    """
    httpx = get_http()
    content = bytearray()
    try:
        with open_url(url, PLAIN, TIMEOUT, end) as response:
            check_answer(response)
            for chunk in response.iter_raw():
                content += chunk
                if len(content) > most_bytes:
                    raise DownloadError(f"the server sends more than {most_bytes} bytes")
    except DeadlineError as error:
        raise DownloadError(f"the download takes more than {LONGEST} s") from error
    except httpx.TransportError as error:
        raise BusyError(f"{type(error).__name__}: {error}") from error
    return bytes(content)


def check_answer(response: object) -> None:
    """Checks the first lines of an answer.

    Raises:
        BusyError, DownloadError: it is no image, or a compressed one.
    """
    status, headers = response.status_code, response.headers  # type: ignore[attr-defined]
    if status != 200:
        raise (BusyError if status in BUSY else DownloadError)(f"the server answers {status}")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError("the server compresses what it sends, although it was asked not to")
