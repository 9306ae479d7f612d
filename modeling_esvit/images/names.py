# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows paths and URLs as text that every output takes, whatever bytes they are made of, and that has no secrets.

Also says numbers of things.
"""

import os
import re

from modeling_esvit.storage.url_secrets import strip_secrets


# Controls would change a terminal, and line ends would split a line of a list.
UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
PLURAL = re.compile(r"^((?:[a-z]+ )?[a-z]*?(?:ss(?=es\b)|[a-z](?=s\b)))e?s\b")  # "files beside", "zip files", "classes"


def show_name(path: str) -> str:
    r"""Returns a path as text: bytes that are not UTF-8, and control characters, become `\xNN`; the rest stays.

    Python holds such bytes in strings that no file in UTF-8, no parquet column and no terminal takes. URLs lose their
    passwords and signatures.
    """
    path = strip_secrets(path) if "://" in path else path
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def show_number(number: int, things: str) -> str:
    """Returns how many things there are, such as "2 zip files: unpack them" and "1 zip file: unpack it"."""
    if number == 1:
        things = re.sub(r"\bthem\b", "it", PLURAL.sub(r"\1", things))
    return f"{number} {things}"
