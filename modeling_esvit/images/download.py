# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Fetches images by their URLs, within limits of bytes and of time."""

import functools
import os
import time
from typing import TYPE_CHECKING

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.read_ahead import abandonable


if TYPE_CHECKING:
    import requests


RETRIES, BACKOFF, BUSY = 5, 0.2, (429, 500, 502, 503, 504)
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # variables of the environment
TIMEOUT = 30  # seconds that a server may say nothing
LONGEST = 300  # seconds that a download may take in all
CHUNK = 1 << 20


class DownloadError(EsViTError, OSError):
    """Raised when a URL gives no image: the server fails, has no such file, or sends too much or too slowly."""


@abandonable()
def download(url: str, most_bytes: int) -> bytes:
    """Returns the bytes behind a URL. Busy and failing servers are asked again.

    Raises:
        DownloadError: the server still fails, has no such file, or sends more than `most_bytes` or for too long.
    """
    import requests

    end = time.monotonic() + LONGEST
    content = bytearray()
    try:
        with open_session(os.getpid()).get(url, timeout=TIMEOUT, stream=True) as response:
            response.raise_for_status()
            for chunk in response.iter_content(CHUNK):
                content += chunk
                if len(content) > most_bytes:
                    raise DownloadError(f"the server sends more than {most_bytes} bytes")
                if time.monotonic() > end:
                    raise DownloadError(f"the download takes more than {LONGEST} s")
    except requests.RequestException as error:
        raise DownloadError(str(error)) from error
    return bytes(content)


def find_certificates() -> str | None:
    """Returns the file of certificates to trust that the environment names; None: those that the library brings.

    Behind the proxy of a company there is one. Each HTTP library asks for it under another name, and this project uses
    two of them.
    """
    return next((path for name in CERTIFICATES if (path := os.environ.get(name))), None)


@functools.cache
def open_session(process: int) -> "requests.Session":
    """Opens the session of a process: a forked one must not share connections."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry

    # A server may name any time to wait, a day even: the times here are our own.
    retry = Retry(RETRIES, backoff_factor=BACKOFF, status_forcelist=BUSY, respect_retry_after_header=False)
    session = requests.Session()
    session.verify = find_certificates() or True
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=64))
    return session
