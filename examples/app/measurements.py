# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads what was measured of a model: in its card, or in the log of the run that made it."""

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from transformers.utils import cached_file

from modeling_esvit.storage.run_folders import find_model
from modeling_esvit.storage.run_log import LOG, read_log
from modeling_esvit.storage.yaml_aliases import check_card


def read_measurements(name: str) -> list[str]:
    """Returns a phrase for each measured value of a model, by its folder, that of its run, or its name on the Hub."""
    found = find_model(name)
    return read_card(found) or read_run(Path(found))


def read_card(name: str) -> list[str]:
    """Returns the results that the card of a model states."""
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    file = cached_file(name, "README.md", **quiet)
    if file is None:
        return []
    try:
        text = Path(file).read_text(encoding="utf-8")
        check_card(text)
        results = ModelCard(text).data.get("eval_results") or []
    except (ValueError, AttributeError, RecursionError, yaml.YAMLError):  # of somebody, whose metadata need not be any
        return []
    return [f"{each.metric_name or each.metric_type} {each.metric_value} on {each.dataset_name}" for each in results]


def read_run(model: Path) -> list[str]:
    """Returns the last values of the log beside the folder `teacher` of a run."""
    values: dict[str, Any] = {}
    for record in read_log(model.resolve().parent / LOG):
        values |= record
    shares = {name: value for name, value in values.items() if name.startswith("knn_k") and name.endswith("_top1")}
    phrases = [f"k-NN top-1 {value:.1%} (k = {name[5:].partition('_')[0]})" for name, value in shares.items()]
    if (right := values.get("region_match_accuracy")) is not None:
        phrases.append(f"regions at their place {right:.1%} (chance {values['region_match_chance']:.1%})")
    if (rank := values.get("embedding_rank")) is not None:
        phrases.append(f"effective rank of its embeddings {rank:.1f}")
    return [*phrases, f"after {values['step']:,} steps"] if phrases else []
