# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Asks HTTP servers for what a list, a row or an option names, without letting them lead elsewhere.

A server may answer by the address of another one. One in a private network, on this machine, or link-local (where
clouds keep passwords) is then asked only if the first one is in the same kind of place, or
`ESVIT_ALLOW_PRIVATE_REDIRECTS=1` is set: else a stranger's server could have this machine ask what it cannot reach
itself. Whoever names such an address directly means it.
"""

import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.deadlines import bound_client, call_or_leave, hold_to


CONNECTIONS = 64
MOST_REDIRECTS = 10
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # variables of the environment
ALLOW = "ESVIT_ALLOW_PRIVATE_REDIRECTS"
PUBLIC, PRIVATE, LINK_LOCAL, HERE = "a public", "a private", "a link-local", "this machine's"
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class RequestError(EsViTError, OSError):
    """Raised when nothing can be asked: a URL is malformed, or the proxy or certificates of the environment."""


class RedirectError(EsViTError, OSError):
    """Raised when a server answers by an address that is not to be asked."""


def get_http() -> Any:
    """Returns the HTTP library that huggingface_hub brings along."""
    from huggingface_hub.utils import httpx  # under this name in every version

    return httpx


@functools.cache
def open_client(process: int, seconds: float) -> Any:
    """Returns the connections of a process, on which `seconds` of silence are the limit; forks must not share them.

    Raises:
        RequestError: the proxy or the certificates that the environment names cannot be used.
    """
    httpx = get_http()
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    trusted = load_certificates()
    try:
        return bound_client(httpx.Client(timeout=httpx.Timeout(seconds), limits=limits, verify=trusted))
    except (httpx.InvalidURL, ImportError, ValueError) as error:
        names = [name for name in PROXIES if os.environ.get(name) or os.environ.get(name.lower())]
        raise RequestError(f"the proxy that {' or '.join(names)} names cannot be used: {error}") from error


def load_certificates() -> ssl.SSLContext | bool:
    """Returns the certificates to trust; True for those that the library brings.

    Raises:
        RequestError: the file that the environment names cannot be used.
    """
    file = find_certificates()
    try:
        return True if file is None else ssl.create_default_context(cafile=file)
    except OSError as error:
        raise RequestError(f"the file of certificates {file!r} cannot be used: {error}") from error


def find_certificates() -> str | None:
    """Returns the file of certificates to trust that the environment names; None: those that the library brings.

    Behind the proxy of a company there is one, which each HTTP library asks for under another name.
    """
    return next((path for name in CERTIFICATES if (path := os.environ.get(name))), None)


@contextmanager
def open_url(url: str, headers: Mapping[str, str], seconds: float, end: float) -> Iterator[Any]:
    """Opens the answer to a GET, whose body is not read yet, after following redirects; nor are bodies of these read.

    Args:
        seconds: for which the server may say nothing.
        end: of `time.monotonic`, when all is over: connecting, redirects, and what the caller reads of the body.

    Raises:
        DeadlineError: it takes longer.
        RedirectError: there are too many redirects, or one leads to a private address.
        RequestError: the URL is malformed, or see `open_client`.
        OSError, httpx.HTTPError: the server cannot be reached.
    """
    client = open_client(os.getpid(), seconds)
    with hold_to(end):
        yield from follow(client, build_request(client, url, headers))


def build_request(client: Any, url: str, headers: Mapping[str, str]) -> Any:
    """Returns the request for a URL.

    Raises:
        RequestError: the URL is malformed.
    """
    try:
        request = client.build_request("GET", url, headers=headers)
    except get_http().InvalidURL as error:
        raise RequestError(f"the URL is malformed: {error}") from error
    if not request.url.host:
        raise RequestError("the URL is malformed: it names no server")
    return request


def follow(client: Any, request: Any) -> Iterator[Any]:
    """Yields the one answer that is no redirect.

    Raises:
        RedirectError: see `open_url`.
    """
    for _ in range(MOST_REDIRECTS + 1):
        response = client.send(request, stream=True, follow_redirects=False)
        try:
            if response.next_request is None:
                yield response
                return
            following = response.next_request.url
            if following.scheme not in ("http", "https"):
                raise RedirectError(f"the server redirects to a {following.scheme}: URL")
            check_redirect(request.url.host, following.host)
            request = response.next_request
        finally:
            response.close()
    raise RedirectError(f"the server redirects more than {MOST_REDIRECTS} times")


def check_redirect(here: str, there: str) -> None:
    """Checks that the server `here` may lead to the server `there`.

    Raises:
        RedirectError: it leads to an address of a private kind, of which it has none itself.
    """
    if there == here or os.environ.get(ALLOW) == "1":
        return
    private = find_kinds(there) - {PUBLIC}
    if private and (strange := private - find_kinds(here)):
        raise RedirectError(
            f"the server redirects to {there}, which is {' and '.join(sorted(strange))} address; if you trust it, set "
            f"{ALLOW}=1"
        )


def find_kinds(host: str) -> set[str]:
    """Returns the kinds of all addresses of a host, by its name or in any way to write an address.

    A name that is not known here has none: a proxy may know it, and without one the connection fails.
    """
    try:
        addresses = call_or_leave(socket.getaddrinfo, host, None)
    except socket.gaierror:
        return set()
    return {classify(str(found[4][0])) for found in addresses}


def classify(address: str) -> str:
    """Returns the kind of an address. One of IPv6 that stands for one of IPv4 is of the kind of that."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        inner = ipaddress.IPv4Address(int(found) % 2**32) if found in NAT64 else inner
        found = inner or found
    if found.is_loopback or found.is_unspecified:
        return HERE
    if found.is_link_local:
        return LINK_LOCAL
    return PUBLIC if found.is_global and not found.is_multicast else PRIVATE
