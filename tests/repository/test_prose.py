# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the rules of prose that a program can check: docstrings begin with a verb, functions are named by verbs.

CONTRIBUTING.md has all the rules. A verb that is missing below is added here by whoever needs it.
"""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.helpers.paths import ROOT
from tests.rooms import list_files


FILES = [file for package in ("modeling_esvit", "training", "examples") for file in list_files(package)]
Definition = ast.Module | ast.ClassDef | ast.FunctionDef
VERBS = set(
    """
    Accepts Adapts Adds Advises Allows Answers Applies Asks Attends Augments Averages Blurs Bounds Builds Calls Changes
    Checks Chooses Classifies Clips Collects Colours Combines Compares Completes Composes Computes Connects Continues
    Converts Copies Counts Creates Crops Cuts Deals Decides Decodes Defines Deletes Describes Does Draws Drops Embeds
    Encodes Ends Estimates Evaluates Explains Exports Fetches Fills Finds Fine-tunes Fits Forces Forgets Formats Frees
    Gathers Gives Hides Holds Identifies Imports Infers Initialises Inverts Joins Keeps Lets Lights Lists Loads Locates
    Logs Makes Maps Marks Matches Measures Merges Mixes Moves Names Normalises Norms Notes Numbers Opens Orders
    Packs Paints Pairs Parses Picks Places Plans Prepares Presents Pretrains Prints Projects Provides Publishes
    Pushes Puts Raised Raises Ranks Reads Recognises Records Refuses Registers Remembers Removes Renames Repeats
    Replaces Reports Represents Resizes Restores Returns Runs Saves Says Scales Scores Searches Selects Sends Serves
    Sets Shares Shifts Shows Splits Spreads Stacks Standardises Stands Starts Stops Streams Sums Surrounds Takes
    Tells Traces Trains Transforms Tries Turns Updates Views Waits Warns Watches Wraps Writes Yields
    """.split()
)
PARTICIPLES = re.compile(
    r"_*([a-z]+ed|[a-z]+ing|shown|drawn|given|known|found|made|kept|told|left|sent|taken|written)(_|$)"
)
VERBS_IN_ED = {"embed", "feed"}
# What a block of attention received: a public name of the notebook's, beside `entropy`.
EXCEPTIONS = {"received"}


def list_definitions(file) -> Iterator[Definition]:
    """Yields the module, the classes and the functions of a file."""
    return (node for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, Definition))


@pytest.mark.parametrize("package", ["modeling_esvit", "training", "examples"])
def test_docstrings_begin_with_a_verb(package):
    found = []
    for file in list_files(package):
        for node in list_definitions(file):
            docstring = ast.get_docstring(node)
            if docstring and docstring.split()[0].rstrip(",.:") not in VERBS:
                found.append(f"{file}:{getattr(node, 'lineno', 1)} {docstring.splitlines()[0]}")
    assert found == []


def is_accessor(function: ast.FunctionDef) -> bool:
    """Returns whether a function is read like an attribute, so that its name is a noun."""
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_functions_are_named_by_verbs():
    found = []
    for file in FILES:
        for node in list_definitions(file):
            if isinstance(node, ast.FunctionDef) and not is_accessor(node) and node.name not in EXCEPTIONS:
                match = PARTICIPLES.match(node.name)
                if match and match[1] not in VERBS_IN_ED:
                    found.append(f"{file}:{node.lineno} {node.name}")
    assert found == []


def test_every_module_says_what_it_does():
    assert [str(file) for file in FILES if ast.get_docstring(ast.parse((ROOT / file).read_text())) is None] == []
