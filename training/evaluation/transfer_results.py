# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes the results of a transfer evaluation: of one data set, of all, and compared with a second model."""

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from training.evaluation.result_files import read_result_file
from training.evaluation.results import describe_unknown
from training.evaluation.transfer_sets import TransferSet, TransferTableError, classify_failure


MEASURED = "measured"
Outcome = dict[str, Any]


def describe_set(each: TransferSet) -> Outcome:
    return {"status": MEASURED, "metric": each.metric, **each.splits}


def describe_failure(each: TransferSet, error: Exception) -> Outcome:
    reason = " ".join(str(error).split()).replace("|", "/")  # must not break a Markdown table
    return describe_set(each) | {"status": classify_failure(error), "reason": reason}


def find_differences(each: TransferSet, found: Outcome) -> list[str]:
    """Returns notes on data that differ from the table, and on test images that belong to no training class."""
    sizes = each.sizes or (found["train_images"], found["test_images"])
    stated = {"training images": sizes[0], "test images": sizes[1], "classes": each.classes or found["classes"]}
    counts = dict(zip(stated, (found["train_images"], found["test_images"], found["classes"]), strict=True))
    notes = [f"{counts[name]:,} {name}, not {stated[name]:,}" for name in stated if counts[name] != stated[name]]
    unknown = found["unknown_class_images"]
    return notes + ([describe_unknown(unknown)] if unknown else [])


def read_scores(results: dict[str, Outcome]) -> dict[str, float]:
    return {name: result["score"] for name, result in results.items() if result["status"] == MEASURED}


def summarise(options: argparse.Namespace, results: dict[str, Outcome]) -> dict[str, Any]:
    scores = read_scores(results)
    return {
        "model": options.model,
        "data": f"{len(scores)} of {len(results)} data sets",
        "n_last_blocks": options.n_last_blocks,
        "average": mean(scores.values()) if scores else None,
        "measured": len(scores),
        "asked_for": len(results),
        "datasets": results,
    }


def compare(results: dict[str, Outcome], name: str, others: dict[str, Outcome]) -> dict[str, Any]:
    """Compares two models over the data sets that both were measured on with the same metric."""
    others = {each: found for each, found in others.items() if found["metric"] == results.get(each, found)["metric"]}
    ours, theirs = read_scores(results), read_scores(others)
    both = [each for each in ours if each in theirs]
    return {
        "model": name,
        "compared": len(both),
        "wins": sum(ours[each] > theirs[each] for each in both),
        "ties": sum(ours[each] == theirs[each] for each in both),
        "average": mean(theirs[each] for each in both) if both else None,
        "average_of_model": mean(ours[each] for each in both) if both else None,
        "datasets": others,
    }


def read_result(path: Path) -> dict[str, Any]:
    """Reads the model and the data sets of a result.

    Raises:
        TransferTableError: the file is not a result of `transfer.py`.
    """
    try:
        result = read_result_file(path)
        read_scores(result["datasets"])
        return {"model": result["model"], "datasets": result["datasets"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TransferTableError(f"{path} is not a result of transfer.py ({error!r}).") from error
