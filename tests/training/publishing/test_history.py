# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a card says of a model's training what is recorded, and nothing else."""

from dataclasses import asdict
from pathlib import Path

import pytest

from modeling_esvit.storage.weights_record import WeightsRecord
from training.options.pretrain_options import PretrainOptions
from training.options.provenance import Provenance
from training.publishing.history import (
    NO_RECORD,
    TASKS,
    describe_history,
    list_recolouring,
    make_run_again,
    select_recipe,
)
from training.publishing.source import Source
from training.state.provenance_record import describe_run
from training.views.draw import POLICIES


PACKAGE = WeightsRecord("the package x", "with labels of birds", "The last layer was left out.", "mit")


def make_run(provenances: dict[str, Provenance] | None = None, **changes) -> Source:
    """Returns the source of a run with these options, which has neither log nor checkpoints."""
    options = asdict(PretrainOptions(**changes))
    provenances = {"data": Provenance("hub", "org/photos")} | (provenances or {})
    return Source(Path("run/teacher"), describe_run(options, provenances), options, provenances)


def test_without_a_record_a_card_says_so_once_and_nothing_more():
    history = describe_history(Source(Path("model")), None)
    assert history.training == NO_RECORD
    said = f"{history.summary} {history.training}"
    assert said.count("not recorded") == 1 and "label" not in said and "EsViT" not in said
    assert (history.by_esvit, history.is_teacher, history.images, history.views) == (False, False, None, None)
    named = describe_history(Source(Path("model")), "org/base").training
    assert named == f"{NO_RECORD} The publisher names `org/base` as the model that it was trained from."


def test_weights_of_a_package_are_not_said_to_be_trained_by_esvit():
    history = describe_history(Source(Path("model"), PACKAGE), None)
    assert history.summary == "An image backbone with the weights of the package x."
    assert history.training == (
        "The weights were trained with labels of birds. The last layer was left out. Their licence is mit, as stated "
        "there."
    )
    assert not history.by_esvit and not history.is_teacher and history.views is None
    unknown = describe_history(Source(Path("model"), WeightsRecord("a checkpoint")), None)
    assert unknown.training == "How the weights were trained is not recorded."


def test_a_run_from_random_weights():
    history = describe_history(make_run(), None)
    assert "pretrained without labels on org/photos, by the view and the region task of EsViT." in history.summary
    assert history.training.startswith("The run started from random weights. The main options")
    assert history.by_esvit and history.is_teacher and history.images == "org/photos"
    assert history.views == "crops, flips, colour jitter and greyscale" and history.recoloured


def test_a_run_names_what_it_started_from():
    start = {"backbone": Provenance("folder", weights=PACKAGE)}
    source = make_run(start, architecture="auto", backbone="timm:local-dir:secret", backbone_weights=True)
    history = describe_history(source, None)
    assert "trained further without labels on org/photos" in history.summary
    assert history.training.startswith(
        "The run started from the weights of the package x (licence mit, as stated there), which were trained with "
        "labels of birds. "
    )
    assert history.images == "org/photos, and from what its first weights had learnt from"
    assert source.find_base_model() is None and "secret" not in str(history)
    start = {"backbone": Provenance("hub", "org/base")}
    source = make_run(start, architecture="auto", backbone="org/base", backbone_weights=True)
    assert source.find_base_model() == "org/base" and "the weights of `org/base`" in str(describe_history(source, None))
    source = make_run(start, architecture="auto", backbone="org/base")
    assert source.find_base_model() is None and "started from random weights" in str(describe_history(source, None))


@pytest.mark.parametrize(
    ("policy", "words"),
    [("dino", ["colour jitter", "greyscale"]), ("deit", ["RandAugment"]), ("basic", [])],
)
def test_views_differ_as_the_augmentation_says(policy, words):
    assert list_recolouring(POLICIES[policy]) == words
    assert describe_history(make_run(augmentation=policy), None).recoloured == bool(words)


def test_a_command_asks_for_what_only_the_publisher_has():
    again = "python training/pretrain.py --recipe training_options.yaml --data DATA{} --output runs/again"
    assert make_run_again({"init_from": None}, {}) == again.format("")
    hub = {"backbone": Provenance("hub", "org/x")}
    assert make_run_again({"backbone": "org/x"}, hub) == again.format("")
    assert make_run_again({"backbone": "secret/x"}, {}) == again.format(" --backbone BACKBONE")


def test_a_recipe_shows_what_is_on_and_where_the_weights_came_from():
    options = {"task": "view", "mixup": 0.0, "init_from": None, "backbone": "org/x", "backbone_weights": True}
    assert select_recipe(options) == {"task": "view", "backbone": "org/x", "backbone_weights": True}
    options = {"task": "view+region", "region_matching": "location"}
    assert select_recipe(options) == options and "region_matching" not in select_recipe(options | {"task": "view"})
    assert set(TASKS) == {"view", "view+region"}
