# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Takes passwords and signatures out of URLs, and keeps them in the memory of this process alone.

    hide_secrets("https://ada:pw@host/train-{0..3}.tar?sig=abc")     # 'https://host/train-{0..3}.tar'
    reveal_url("https://host/train-2.tar")                           # 'https://ada:pw@host/train-2.tar?sig=abc'

Options, records, names and logs hold the first form. Only what sends a request asks for the second.
"""

import os
import re
from typing import NamedTuple

from modeling_esvit.storage.paths import expand_home, parse_name


BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")

# A URL to the end of the text or, in a list in braces, to the next comma. In other schemes than http, ? is a wildcard
# and @ may name a revision or an account, but NAME:PASSWORD@ is always a login.
HTTP_URL = r"(?P<scheme>(?i:https?))://(?:(?P<login>[^/?#\s{}]*)@)?"
LISTED = re.compile(HTTP_URL + r"(?P<place>[^?#,{}\s]*)(?P<query>[?#][^,{}\s]*)?")
ALONE = re.compile(HTTP_URL + r"(?P<place>(?:\{[^{}]*\}|[^?#{}\s])*)(?P<query>[?#]\S*)?")
OTHER_LOGIN = re.compile(
    r"(?<![a-z0-9+.-])(?P<scheme>[a-z][a-z0-9+.-]{0,20})://(?P<login>[^/?#@\s{}:]*:[^/?#\s{}]*)@", re.IGNORECASE
)
# The secrets of stores may have slashes in them.
STORE_LOGIN = re.compile(
    r"(?<![a-z0-9+.-])(?P<scheme>s3a?|gs|gcs|az|abfss?|oss|r2)://(?P<login>[^/?#@\s{}:]*:[^,\s{}]*)@", re.IGNORECASE
)
# A name that is a URL, or a member of an archive that is one.
NAME = re.compile(HTTP_URL + r"(?P<place>[^?#]*)(?:[?#].*)?", re.DOTALL)
# What a message of another library may quote.
QUOTED = re.compile(r"((?i:https?)://)(?:[^/?#\s'\"<>]*@)?([^?#\s'\"<>]*)(\?[^\s'\"<>]*)?")


class Secret(NamedTuple):
    """Holds what was taken out of a URL: the login with its @, and the query with its ?."""

    login: str
    query: str


_secrets: dict[str, Secret] = {}


def expand_braces(pattern: str) -> list[str]:
    """Returns what the braces of `pattern` stand for, in their order; the pattern itself if there are none."""
    match = BRACES.search(pattern)
    if match is None or os.path.exists(expand_home(pattern)):
        return [pattern]
    first, last, words = match.groups()
    if words is None:
        middles = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    else:
        middles = words.split(",")
    return [
        each for middle in middles for each in expand_braces(pattern[: match.start()] + middle + pattern[match.end() :])
    ]


def hide_secrets(text: str) -> str:
    """Returns a text without the passwords, queries and fragments of its URLs, which are kept for `reveal_url`."""
    listed = any(words is not None and "://" in words for _, _, words in BRACES.findall(text))
    text = (LISTED if listed else ALONE).sub(_hide, text)
    return OTHER_LOGIN.sub(_hide_login, STORE_LOGIN.sub(_hide_login, text))


def parse_data(text: str) -> str:
    """Returns the data that a user typed, see `parse_name`, without passwords and signatures."""
    return hide_secrets(parse_name(text))


def _hide(match: re.Match[str]) -> str:
    url = f"{match['scheme'].lower()}://{match['place']}"
    query = (match["query"] or "").partition("#")[0]
    if match["login"] or len(query) > 1:
        secret = Secret(f"{match['login']}@" if match["login"] else "", query)
        _secrets.update(dict.fromkeys(map(_without_split, expand_braces(url)), secret))
    return url


def _hide_login(match: re.Match[str]) -> str:
    rest = re.match(r"[^,{}\s]*", match.string[match.end() :])
    url = f"{match['scheme']}://{rest[0] if rest else ''}"
    _secrets[_without_split(url)] = Secret(f"{match['login']}@", "")
    return f"{match['scheme']}://"


def _without_split(url: str) -> str:
    """Returns the URL of DATA:SPLIT. The colon of a port has a slash behind it."""
    return re.sub(r":[\w-]*$", "", url) if "/" in url.partition("://")[2] else url


def reveal_url(url: str) -> str:
    """Returns the URL with the password and the query that `hide_secrets` took out of it."""
    secret = _secrets.get(url)
    if secret is None:
        return url
    scheme, place = url.split("://", 1)
    return f"{scheme}://{secret.login}{place}{secret.query}"


def redact_urls(message: str) -> str:
    """Returns a message of another library without the passwords and queries of the URLs that it quotes."""
    return QUOTED.sub(r"\1\2", message)


def strip_secrets(name: str) -> str:
    """Returns the name of an image without the password, query and fragment of its URL, which nothing asks for."""
    name = NAME.sub(r"\g<scheme>://\g<place>", name)
    return OTHER_LOGIN.sub(r"\g<scheme>://", STORE_LOGIN.sub(r"\g<scheme>://", name))
