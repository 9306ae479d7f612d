# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Refuses YAML whose aliases stand for far more than it has: a list of ten times a list of ten times a list."""

import itertools
import math

import yaml

from modeling_esvit.errors import EsViTError


MOST_VALUES = 10**6  # values and characters; the cards of large data sets have some 100,000


class YamlAliasError(EsViTError, yaml.YAMLError):
    """Raised when the aliases of a text stand for too much."""


def check_aliases(text: str) -> None:
    """Checks what the aliases in YAML stand for, before it is loaded. Without an alias there is nothing to check.

    Raises:
        YamlAliasError: it is more than `MOST_VALUES`, or one stands for what it is in.
        yaml.YAMLError: it is no YAML.
    """
    node = yaml.compose(text, yaml.SafeLoader) if "*" in text else None
    if node is not None and measure_node(node, {}) > MOST_VALUES:  # of comments alone, there is none
        raise YamlAliasError(f"its aliases stand for more than {MOST_VALUES} values and characters")


def measure_node(node: yaml.Node, known: dict[int, float]) -> float:
    """Returns how many values and characters a value of YAML stands for, with its aliases spelled out."""
    if id(node) not in known:
        known[id(node)] = math.inf  # until it is known: what is in itself has no end
        if isinstance(node, yaml.ScalarNode):
            known[id(node)] = 1 + len(node.value)
        else:
            parts = itertools.chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
            known[id(node)] = 1 + sum(measure_node(part, known) for part in parts)
    return known[id(node)]


def check_card(text: str) -> None:
    """Checks the fields at the head of a card, as `check_aliases` does.

    Raises:
        YamlAliasError, yaml.YAMLError: see there.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    if block := REGEX_YAML_BLOCK.search(text):
        check_aliases(block.group(2))
