# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds commands and snippets in Markdown pages, and holds the rules by which a test runs them."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CELL = re.compile(r"^\| `((?:python|torchrun|accelerate|make|pip) [^`]*)`", re.MULTILINE)  # commands in tables
COMMENT = re.compile(r"\s*#.*")


@dataclass(frozen=True)
class Rule:
    """Says how a test runs commands that match the glob `pattern`.

    They get `more` arguments at their end, and words are exchanged as `instead` says, or left out if that is empty.
    They run in the folder `cwd` of the sandbox, or, with `exempt`, a reason, not at all.
    """

    pattern: str
    more: str = ""
    instead: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "."
    exempt: str = ""

    def arguments(self, command: str) -> list[str]:
        words = shlex.split(command)
        return [new for word in words if (new := self.instead.get(word, word))] + shlex.split(self.more)


def commands(page: str) -> Iterator[str]:
    """Yields the lines of bash blocks without comments, and commands in the first cells of tables."""
    for language, text in BLOCK.findall(page):
        if language == "bash":
            yield from filter(None, (COMMENT.sub("", line).strip() for line in text.splitlines()))
    yield from CELL.findall(page)


def snippets(page: str) -> Iterator[str]:
    """Yields the Python blocks without their comments."""
    for language, text in BLOCK.findall(page):
        if language == "python":
            yield COMMENT.sub("", text)


def rule_for(command: str, rules: list[Rule]) -> Rule | None:
    """Returns the first rule that matches."""
    return next((rule for rule in rules if fnmatchcase(command, rule.pattern)), None)
