# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows the result of `correspondence.py`: first the few values that matter, beside other models, then all."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from training.evaluation.comparison import CHANCE, conclude
from training.evaluation.results import CardValue, describe_data, format_table


STEREO_DATA = "motorcycle, scikit-image"
SHOWN = 3  # values that come first


class Headline(NamedTuple):
    """Names the value of a measure that comes first.

    title: says what is counted.
    key: the value in the measure's result; what is reached at random is `chance_` and this.
    """

    title: str
    key: str


# The most telling ones first.
HEADLINES = {
    "mirrored": Headline("mirrored: right, of the ten most similar", "accuracy"),
    "recoloured": Headline("recoloured: within one region", "within_one"),
    "stereo": Headline("stereo: within one region", "within_one"),
    "crops": Headline("crops: within one region", "within_one"),
}
POSITIONS = ("crops", "recoloured", "stereo")  # measures whose truth is a position, in the order of the details


def render_table(result: dict[str, Any]) -> str:
    """Writes the values that matter as Markdown: a row for each model, and by how much the first one differs."""
    models = {result["model"]: result, **result["against"]}
    shown = [name for name in HEADLINES if name in result][:SHOWN]
    header = ["model", "regions", *(f"{HEADLINES[name].title} (at random)" for name in shown)]
    rows = [
        [model, describe_grid(of), *(show_headline(name, of[name]) for name in shown)] for model, of in models.items()
    ]
    lines = [f"{result['images']} images.", ""] if "images" in result else []
    return "\n".join([*lines, *format_table(header, rows), *describe_verdict(result, models, shown[0])])


def describe_grid(result: Mapping[str, Any]) -> str:
    """Says how many regions the views of images have; nothing if none were measured."""
    return "{0} x {1} of {image_size} px".format(*result["grid"], **result) if "grid" in result else ""


def show_headline(name: str, of: Mapping[str, float | None]) -> str:
    """Returns the value of a measure that comes first, and in brackets what is reached at random."""
    key = HEADLINES[name].key
    return f"{format_value(of[key], '.1%')} ({format_value(of[f'chance_{key}'], '.1%')})"


def describe_verdict(result: Mapping[str, Any], models: Mapping[str, Any], name: str) -> list[str]:
    """Says by how much the model differs from others and chance, by the measure `name`; nothing if that has no value.

    The regions of an image are not independent, so each image counts once; the stereo pair has its regions alone.
    """
    title, key = HEADLINES[name]
    values = {model: of[name][key] for model, of in models.items()} | {CHANCE: result[name][f"chance_{key}"]}
    if None in values.values():
        return []
    count, counted = (int(result[name]["regions"]), "regions") if name == "stereo" else (result["images"], "images")
    return ["", f"By {title}, {conclude(result['model'], values, count, counted)}"]


def render_details(result: dict[str, Any]) -> str:
    """Writes all values of the model as Markdown."""
    rows = make_mirrored_rows(result["mirrored"]) if "mirrored" in result else []
    for name in list_position_measures(result):
        rows += list_position_rows(name, result[name])
    return "\n".join(format_table([f"all values of {result['model']}", "", "at random", "best possible"], rows))


def list_position_measures(result: Mapping[str, Any]) -> list[str]:
    """Returns the measures in a result whose truth is a position."""
    return [name for name in POSITIONS if name in result]


def format_value(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)


def make_mirrored_rows(result: dict[str, float | None]) -> list[list[str]]:
    right, chance = (format_value(result[name], ".1%") for name in ("accuracy", "chance_accuracy"))
    distance, chance_distance = (format_value(result[name], ".1f") for name in ("distance", "chance_distance"))
    return [
        ["mirrored: right, of the ten most similar", right, chance, "100%"],
        ["mirrored: distance from the truth, px", distance, chance_distance, "0"],
        ["mirrored: eleventh similarity", format_value(result["next_similarity"], ".3f"), "", ""],
        ["mirrored: regions that are the match of any", format_value(result["distinct"], ".1%"), "", "100%"],
    ]


def list_position_rows(name: str, result: dict[str, float | None]) -> list[list[str]]:
    def row(what: str, key: str, form: str) -> list[str]:
        return [
            f"{name}: {what}",
            *(format_value(result[f"{guess}{key}"], form) for guess in ("", "chance_", "nearest_")),
        ]

    return [
        row("within one region", "within_one", ".1%"),
        row("exactly", "exact", ".1%"),
        row("distance from the truth, px", "error", ".1f"),
        *(row(f"within {alpha:.0%} of the view", f"pck_{alpha:g}", ".1%") for alpha in (0.05, 0.1, 0.2)),
    ]


def make_values(result: dict[str, Any], before: Mapping[str, Any] | None = None) -> list[CardValue]:
    """Returns the values for a model card: of each measure that which comes first, beside chance.

    Args:
        before: the result of the same model before it was trained.
    """
    measured = [name for name in ("crops", "recoloured", "stereo", "mirrored") if name in result]
    return [
        CardValue(
            f"region correspondence, {name}",
            value,
            "accuracy",
            *((STEREO_DATA, None) if name == "stereo" else describe_data(result["data"])),
            task="image-feature-extraction",
            chance=result[name][f"chance_{HEADLINES[name].key}"],
            before=None if before is None else before[name][HEADLINES[name].key],
        )
        for name in measured
        if (value := result[name][HEADLINES[name].key]) is not None
    ]
