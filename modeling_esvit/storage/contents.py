# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says what clones and downloads leave in place of a file, whatever its name is."""

HEAD = 64  # bytes that tell
STAND_INS = (
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself by `git lfs pull`"),
    (b"/annex/objects/", "a pointer of git-annex: fetch the file itself by `git annex get`"),
    (b"<", "a web page, or another file of XML, as an expired download link returns"),
)


def describe_stand_in(head: bytes) -> str:
    """Returns what stands in place of a file that begins so, and what to do; nothing if it may be the file itself."""
    if not head:
        return "there is no content"
    return next((what for start, what in STAND_INS if head.lstrip().startswith(start)), "")
