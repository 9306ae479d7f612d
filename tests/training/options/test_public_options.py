# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Plants a canary in every option that takes text, whichever there are, and looks for it in what is published."""

from dataclasses import asdict, fields, replace

import pytest

from training.options.pretrain_options import FREE_TO_CHANGE, OptionError, PretrainOptions, make_options, read_options
from training.options.provenance import Provenance
from training.options.public_options import (
    NAMED_DATA,
    NAMED_MODELS,
    PUBLIC,
    PUBLIC_WITH,
    find_provenances,
    select_public_options,
)
from training.run.checks import check_values


CANARY = "canary-7341"
URL = "https://ada:pa55@host/a.tar?sig=hush"
NAMES = {field.name for field in fields(PretrainOptions)}
TEXTS = {field.name for field in fields(PretrainOptions) if "str" in str(field.type)}


def plant(name: str, text: str = CANARY) -> object:
    return (
        [text] if "list" in str(next(field.type for field in fields(PretrainOptions) if field.name == name)) else text
    )


def test_every_declaration_is_of_an_option_and_of_one_kind():
    kinds = [PUBLIC, NAMED_DATA, NAMED_MODELS, set(PUBLIC_WITH)]
    assert set.union(*map(set, kinds)) <= NAMES and sum(map(len, kinds)) == len(set.union(*map(set, kinds)))
    assert {"data", "output", "push_to_hub", "tracker"} <= TEXTS
    decisive = NAMES - FREE_TO_CHANGE - PUBLIC - NAMED_DATA - NAMED_MODELS - set(PUBLIC_WITH)
    advice = "a published recipe says how a model came about: name it in `_public`, unless it may hold a path or secret"
    assert decisive == set(), f"{advice}; or in FREE_TO_CHANGE, if results do not depend on it"


@pytest.mark.parametrize("name", sorted(TEXTS - PUBLIC))
def test_text_is_private_unless_it_came_from_the_hub(name):
    options = {name: plant(name)}
    for provenances in ({}, find_provenances({"data": "*.tar", **options}), {name: Provenance("url")}):
        assert CANARY not in repr(select_public_options(options, provenances))


@pytest.mark.parametrize("name", sorted(TEXTS & PUBLIC))
def test_text_that_is_public_cannot_be_anything(name):
    with pytest.raises(Exception, match=CANARY):
        check_values(replace(PretrainOptions(), **{name: CANARY}))


def test_an_option_that_nobody_declared_is_private():
    assert select_public_options({"brand_new": CANARY, "lr": 1.0}, {}) == {"lr": 1.0}


def test_names_on_the_hub_are_public_with_what_belongs_to_them():
    options = {
        "data": "org/photos",
        "split": "a",
        "init_from": "org/model",
        "knn_test": "o/n:test",
        "label_column": "x",
    }
    public = select_public_options(options, find_provenances(options))
    assert public == {"data": "org/photos", "split": "a", "init_from": "org/model", "knn_test": "o/n"}


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_no_option_holds_the_secret_of_a_url(name, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"{name}: {URL}\n")
    for options in (make_options(**{name: plant(name, URL)}), make_options(recipe)):
        assert "https://host/a.tar" in str(asdict(options)[name]) and "pa55" not in repr(options)
        assert "hush" not in repr(options)


@pytest.mark.parametrize(
    "arguments",
    [["--data", URL, URL], ["--dta", URL], [f"--dta={URL}"], ["--recipe", "broken.yaml"], ["--recipe", URL]],
)
def test_no_message_quotes_the_secret_of_a_url(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text(f"data: {URL}\n  split: x\n - {URL}\n")
    with pytest.raises(OptionError) as error:
        read_options(arguments)
    assert not {word for word in ("pa55", "hush") if word in str(error.value)}
    with pytest.raises(OptionError, match="takes one value") as error:
        make_options(data=[URL, URL])
    assert not {word for word in ("pa55", "hush") if word in str(error.value)}
