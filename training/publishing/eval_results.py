# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes results on benchmarks of the Hub as `.eval_results/*.yaml`, which the Hub shows and puts on leaderboards.

A data set is a benchmark if it has an `eval.yaml`, whose tasks have names (https://huggingface.co/docs/hub/eval-results).
Nothing of this is known of other data, whose results stand in the card and its model-index alone.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, constants, eval_result_entries_to_yaml, parse_eval_result_entries

from modeling_esvit.errors import EsViTError
from training.evaluation.results import CardValue
from training.publishing.card_template import to_percent


FOLDER = ".eval_results"
PREFIX = "esvit-"  # of our files; those of others, which came by pull requests, have other names


class BenchmarkError(EsViTError, ValueError):
    """Raised when nothing was measured on a benchmark that is named."""


def write_eval_results(
    folder: Path, figures: Sequence[CardValue], benchmarks: Mapping[str, str], repo_id: str
) -> list[str]:
    """Writes a file for each result on a benchmark, since several scores of one task are to be in files of their own.

    Args:
        folder: The published folder.
        benchmarks: Names of data sets on the Hub, and which task of their `eval.yaml` was measured.

    Returns the names of the files.

    Raises:
        BenchmarkError: There is no result on one of the benchmarks.
    """
    if unmeasured := sorted(set(benchmarks) - {figure.dataset for figure in figures}):
        raise BenchmarkError(
            f"--benchmark {unmeasured[0]}: the card has no result on it; measured was "
            f"{', '.join(sorted({figure.dataset for figure in figures})) or 'nothing'}."
        )
    names = []
    for figure in figures:
        if figure.dataset in benchmarks:
            names.append(f"{FOLDER}/{PREFIX}{make_slug(f'{figure.dataset} {figure.name}')}.yaml")
            (folder / FOLDER).mkdir(exist_ok=True)
            (folder / names[-1]).write_text(make_entry(figure, benchmarks[figure.dataset], repo_id), encoding="utf-8")
    return names


def make_entry(figure: CardValue, task: str, repo_id: str) -> str:
    """Returns the content of a file, which huggingface_hub reads back as it was meant."""
    entry = EvalResultEntry(
        dataset_id=figure.dataset,
        task_id=task,
        value=to_percent(figure.value),
        source_url=f"{constants.ENDPOINT}/{repo_id}",
        source_name="Model card",
        notes=figure.name,
    )
    text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
    assert parse_eval_result_entries(yaml.safe_load(text)) == [entry]
    return text


def make_slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
