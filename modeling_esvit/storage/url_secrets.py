# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Takes passwords and signatures out of URLs, and keeps them in the memory of this process alone.

    hide_secrets("https://ada:pw@host/train-{0..3}.tar?sig=abc")     # 'https://host/train-{0..3}.tar'
    reveal_url("https://host/train-2.tar")                           # 'https://ada:pw@host/train-2.tar?sig=abc'

Options, records, names and logs hold the first form. Only what sends a request asks for the second.
"""

import re
from typing import NamedTuple
from urllib.parse import quote

from modeling_esvit.storage.paths import measure_existing, parse_name


BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")

# NAME:PASSWORD@, as it should be written, or with a password that has /, ? and # unescaped: what stands behind its
# colon is then no port. Digits before a slash are one, though a password may begin so.
PLAIN_LOGIN = r"[^/?#\s{}]*"
ANY_LOGIN = r"[^/?#@\s{}:\[]*:(?!:|\s|[0-9]+(?:[/?#\s,'\"\]]|$))"
# A URL to the end of the text or, in a list in braces, to the next comma. In other schemes than http, ? is a wildcard
# and @ may name a revision or an account, but NAME:PASSWORD@ is always a login.
HTTP_URL = rf"(?P<scheme>(?i:https?))://(?:(?P<login>{PLAIN_LOGIN}|{ANY_LOGIN}.*)@)?"
HTTP_URL_OF_LIST = HTTP_URL.replace(".*", r"[^,{}\s]*")
LISTED = re.compile(HTTP_URL_OF_LIST + r"(?P<place>[^?#,{}\s]*)(?P<query>[?#][^,{}\s]*)?")
ALONE = re.compile(HTTP_URL + r"(?P<place>(?:\{[^{}]*\}|[^?#{}\s])*)(?P<query>[?#]\S*)?")
WITH_BRACES = re.compile(r"https?://\S*\{[^{}\s]*,[^{}\s]*\}\S*", re.IGNORECASE)
WITHOUT_LOGIN = "file|local|zip|tar|gzip|bz2|xz|zstd"
OTHER_LOGIN = re.compile(
    rf"(?<![a-z0-9+.-])(?!(?:{WITHOUT_LOGIN}):)(?P<scheme>[a-z][a-z0-9+.-]{{0,20}})://"
    rf"(?P<login>[^/?#@\s{{}}:]*:[^/?#\s{{}}]*|{ANY_LOGIN}(?:(?!::)[^,\s{{}}])*)@",
    re.IGNORECASE,
)
# The secrets of stores may have slashes in them.
STORE_LOGIN = re.compile(
    r"(?<![a-z0-9+.-])(?P<scheme>s3a?|gs|gcs|az|abfss?|oss|r2)://(?P<login>[^/?#@\s{}:]*:[^,\s{}]*)@", re.IGNORECASE
)
# A name that is a URL, or a member of an archive that is one.
NAME = re.compile(HTTP_URL + r"(?P<place>[^?#]*)(?:[?#].*)?", re.DOTALL)
# What a message of another library may quote.
QUOTED = re.compile(HTTP_URL.replace(".*", r"\S*") + r"(?P<place>[^?#\s'\"<>]*)(\?[^\s'\"<>]*)?")


class Secret(NamedTuple):
    """Holds what was taken out of a URL: the login with its @, and the query with its ?."""

    login: str
    query: str


_secrets: dict[str, Secret] = {}


def expand_braces(pattern: str) -> list[str]:
    """Returns what the braces of `pattern` stand for, in their order; the pattern itself if there are none. Those in
    the names of existing folders and files stand for themselves.
    """
    match = BRACES.search(pattern, measure_existing(pattern))
    if match is None:
        return [pattern]
    first, last, words = match.groups()
    if words is None:
        step = 1 if int(first) <= int(last) else -1
        width = min(len(first), len(last))
        middles = [f"{number:0{width}d}" for number in range(int(first), int(last) + step, step)]
    else:
        middles = words.split(",")
    return [
        each for middle in middles for each in expand_braces(pattern[: match.start()] + middle + pattern[match.end() :])
    ]


def hide_secrets(text: str) -> str:
    """Returns a text without the passwords, queries and fragments of its URLs, which are kept for `reveal_url`.

    A URL with secrets in braces, one for each of several files, becomes the list of their URLs.
    """
    text = WITH_BRACES.sub(_spell_out, text)
    listed = any(words is not None and "://" in words for _, _, words in BRACES.findall(text))
    text = (LISTED if listed else ALONE).sub(_hide, text)
    return OTHER_LOGIN.sub(_hide_login, STORE_LOGIN.sub(_hide_login, text))


def _spell_out(match: re.Match[str]) -> str:
    """Returns a list, in braces, of the URLs that the braces of one stand for, if there are secrets in them."""
    if not any("?" in words or "@" in words for *_, words in BRACES.findall(match[0])):
        return match[0]
    return f"{{{','.join(map(hide_secrets, expand_braces(match[0])))}}}"


def parse_data(text: str) -> str:
    """Returns the data that a user typed, see `parse_name`, without passwords and signatures."""
    return hide_secrets(parse_name(text))


def _hide(match: re.Match[str]) -> str:
    url = f"{match['scheme'].lower()}://{match['place']}"
    query = (match["query"] or "").partition("#")[0]
    if match["login"] or len(query) > 1:
        secret = Secret(f"{escape_login(match['login'])}@" if match["login"] else "", query)
        _secrets.update(dict.fromkeys(map(_without_split, expand_braces(url)), secret))
    return url


def _hide_login(match: re.Match[str]) -> str:
    rest = re.match(r"[^,{}\s]*", match.string[match.end() :])
    url = f"{match['scheme']}://{rest[0] if rest else ''}"
    login = match["login"] if match.re is STORE_LOGIN else escape_login(match["login"])
    _secrets[_without_split(url)] = Secret(f"{login}@", "")
    return f"{match['scheme']}://"


def escape_login(login: str) -> str:
    """Returns a login as URLs have it, with the characters escaped that would end it."""
    return quote(login, safe=":@!$&'()*+,;=%~")


def escape_logins(name: str) -> str:
    """Returns a URL, or a chain of archives to one, as a request needs it: with its login escaped."""
    for pattern in (NAME, OTHER_LOGIN):
        if (found := pattern.search(name)) and found["login"]:
            return name[: found.start("login")] + escape_login(found["login"]) + name[found.end("login") :]
    return name


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
    return _cut_logins(QUOTED.sub(r"\g<scheme>://\g<place>", message))


def strip_secrets(name: str) -> str:
    """Returns the name of an image without the password, query and fragment of its URL, which nothing asks for."""
    return _cut_logins(NAME.sub(r"\g<scheme>://\g<place>", name))


def _cut_logins(text: str) -> str:
    """Returns a text without the logins of URLs of other schemes than http."""
    return OTHER_LOGIN.sub(r"\g<scheme>://", STORE_LOGIN.sub(r"\g<scheme>://", text))
