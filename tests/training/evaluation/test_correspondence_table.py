# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what comes first of the correspondences of models, and what the rest says."""

from training.evaluation.correspondence_table import make_values, render_details, render_table


ALPHAS = ("0.05", "0.1", "0.2")


def positions(within_one):
    values = {"within_one": within_one, "exact": 0.1, "error": 5.0, **{f"pck_{alpha}": 0.5 for alpha in ALPHAS}}
    guesses = {f"{guess}{name}": 0.05 for guess in ("chance_", "nearest_") for name in values}
    return {"regions": 100.0, **values, **guesses}


def mirrored(accuracy):
    names = ("distance", "chance_distance", "next_similarity", "distinct")
    return {"accuracy": accuracy, "chance_accuracy": 0.04, **dict.fromkeys(names, 0.5)}


def make_result(value, **more):
    about = {"images": 50, "image_size": 40, "grid": [5, 5], "mirrored": mirrored(value)}
    return about | {name: positions(value) for name in ("crops", "recoloured", "stereo")} | more


def test_three_values_of_each_model_come_first_and_a_verdict():
    result = make_result(0.8, model="mine", data="x", against={"untrained": make_result(0.2)})
    lines = render_table(result).splitlines()
    titles = ["mirrored: right, of the ten most similar", "recoloured: within one region", "stereo: within one region"]
    assert lines[0] == "50 images."
    assert lines[2] == f"| model | regions | {' | '.join(f'{title} (at random)' for title in titles)} |"
    assert lines[4:6] == [
        "| mine | 5 x 5 of 40 px | 80.0% (4.0%) | 80.0% (5.0%) | 80.0% (5.0%) |",
        "| untrained | 5 x 5 of 40 px | 20.0% (4.0%) | 20.0% (5.0%) | 20.0% (5.0%) |",
    ]
    assert lines[-1] == f"By {titles[0]}, mine: 60.0 points above untrained; 76.0 points above chance."
    details = render_details(result)
    assert details.count("crops: ") == 6 and "untrained" not in details


def test_the_stereo_pair_alone_counts_its_regions():
    result = {"model": "mine", "data": None, "against": {}, "stereo": positions(0.08)}
    assert render_table(result).splitlines()[-1] == (
        "By stereo: within one region, mine: 3.0 points above chance (which 100 regions cannot tell apart)."
    )
    result["stereo"] |= {"within_one": None, "chance_within_one": None}
    assert render_table(result).splitlines()[-1] == "| mine |  | none (none) |" and make_values(result) == []


def test_a_card_has_each_value_beside_chance_and_what_it_was_before():
    result = make_result(0.8, model="mine", data="org/birds:test")
    values = {value.name.rpartition(" ")[2]: value for value in make_values(result, make_result(0.2))}
    assert set(values) == {"mirrored", "crops", "recoloured", "stereo"}
    one = values["mirrored"]
    assert (one.value, one.chance, one.before, one.dataset, one.split) == (0.8, 0.04, 0.2, "org/birds", "test")
    assert values["stereo"].dataset == "motorcycle, scikit-image"
