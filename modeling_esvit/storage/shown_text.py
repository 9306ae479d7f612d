# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows texts of strangers, such as names in their files, so that they change no terminal and forge no line."""

import re


# Controls would change a terminal, and line ends would split a line of a list or a log.
UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def escape_controls(text: str, kept: str = "") -> str:
    r"""Returns a text with control characters and line ends as `\xNN`, `\n` or `\uNNNN`, but those in `kept`."""
    return UNSHOWN.sub(lambda found: found[0] if found[0] in kept else repr(found[0])[1:-1], text)
