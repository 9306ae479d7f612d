# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which servers may lead to which: `test_download.py` asks real ones."""

import socket

import pytest

from modeling_esvit.images.http_client import (
    ALLOW,
    HERE,
    LINK_LOCAL,
    PRIVATE,
    PUBLIC,
    RedirectError,
    check_redirect,
    classify,
)


KINDS = {
    PUBLIC: ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"],
    PRIVATE: ["10.0.0.1", "172.16.5.4", "192.168.1.1", "100.64.0.1", "fd00::1", "224.0.0.1", "::ffff:10.0.0.1",
              "64:ff9b::a00:1", "2002:a00:1::", "192.0.2.1"],
    LINK_LOCAL: ["169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254"],
    HERE: ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"],
}  # fmt: skip


def test_kinds_of_addresses():
    assert {kind: [each for each in addresses if classify(each) == kind] for kind, addresses in KINDS.items()} == KINDS


@pytest.fixture
def names(monkeypatch):
    """Resolves names without a network, and leaves addresses to the system."""
    known = {"public.org": ["93.184.216.34"], "office": ["10.0.0.7"], "both.org": ["93.184.216.34", "127.0.0.1"]}
    resolve = socket.getaddrinfo

    def getaddrinfo(host, port, *arguments):
        return [found for each in known.get(host, [host]) for found in resolve(each, port, *arguments)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    "here, there",
    [
        ("public.org", "127.0.0.1"),
        ("public.org", "2130706433"),  # the same as a number
        ("public.org", "0x7f.1"),
        ("public.org", "::1"),
        ("public.org", "office"),
        ("public.org", "169.254.169.254"),
        ("public.org", "both.org"),
        ("127.0.0.1", "10.0.0.1"),
        ("office", "127.0.0.1"),
        ("office", "169.254.169.254"),
    ],
)
def test_redirects_that_are_refused(names, monkeypatch, here, there):
    with pytest.raises(RedirectError, match=f"redirects to {there}, which is .* address; .*{ALLOW}=1"):
        check_redirect(here, there)
    monkeypatch.setenv(ALLOW, "1")
    check_redirect(here, there)


@pytest.mark.parametrize(
    "here, there",
    [
        ("public.org", "93.184.216.34"),
        ("office", "public.org"),
        ("office", "10.0.0.9"),
        ("127.0.0.1", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("both.org", "127.0.0.1"),
        ("public.org", "known-to-a-proxy.invalid"),
    ],
)
def test_redirects_that_are_followed(names, here, there):
    check_redirect(here, there)
