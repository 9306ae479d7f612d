# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a few lines of YAML cannot stand for millions of values."""

import pytest
import yaml

from modeling_esvit.images.cards import read_card
from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.storage.yaml_aliases import YamlAliasError, check_aliases
from training.options.errors import OptionError
from training.options.recipes import load_recipe


def nest(first, form):
    """Returns YAML of ten values, each of which is nine times the one before it."""
    values = [form.format(", ".join([f"*a{number}"] * 9)) for number in range(9)]
    return "\n".join(f"a{number}: &a{number} {value}" for number, value in enumerate([first, *values]))


LISTS = nest("[x]", "[{}]")
MERGED = nest("{x: 1}", "{{<<: [{}]}}")
LONG = f"a: &a {'x' * 2000}\nb: [{', '.join(['*a'] * 1000)}]"


@pytest.mark.parametrize("text", [LISTS, MERGED, LONG, "a: &a [*a]"])
def test_aliases_stand_for_a_bounded_number_of_values(text):
    with pytest.raises(YamlAliasError, match="its aliases stand for more than 1000000"):
        check_aliases(text)


def test_few_aliases_and_wildcards_pass():
    check_aliases("a: &a [1, 2]\nb: *a\nconfigs:\n- data_files: 'data/*.parquet'")
    check_aliases(yaml.dump([["x"] * 1000] * 100))


def test_a_recipe_of_comments_alone_has_no_options(tmp_path):
    (tmp_path / "recipe.yaml").write_text("# data: photographs/*.jpg")
    assert load_recipe(str(tmp_path / "recipe.yaml"), tmp_path) == {}


def test_cards_and_recipes_are_refused_in_a_line(tmp_path):
    (tmp_path / "README.md").write_text(f"---\n{LISTS}\nconfigs: *a9\n---\n")
    with pytest.raises(DataOptionError, match="the card of .* is damaged: its aliases stand for") as refused:
        read_card(tmp_path)
    assert len(str(refused.value)) < 400
    (tmp_path / "recipe.yaml").write_text(f"{LISTS}\ndata: *a9\n")
    with pytest.raises(OptionError, match="recipe.yaml' is not valid YAML: its aliases stand for"):
        load_recipe(str(tmp_path / "recipe.yaml"), tmp_path)
    (tmp_path / "recipe.yaml").write_text("data: " + 600 * "[")
    with pytest.raises(OptionError, match="recipe.yaml' is not valid YAML: .*recursion"):
        load_recipe(str(tmp_path / "recipe.yaml"), tmp_path)
