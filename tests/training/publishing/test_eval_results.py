# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the files of results on benchmarks, as huggingface_hub reads them."""

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from training.evaluation.results import CardValue
from training.publishing.eval_results import BenchmarkError, write_eval_results


FIGURES = [
    CardValue("k-NN top-1, k = 20", 0.757, "accuracy", "ILSVRC/imagenet-1k", "validation"),
    CardValue("linear top-1", 0.781, "accuracy", "ILSVRC/imagenet-1k", "validation"),
    CardValue("k-NN top-1, k = 20", 0.5, "accuracy", "a folder of images", "test"),
]


def test_results_on_a_benchmark_have_files_of_their_own(tmp_path):
    names = write_eval_results(tmp_path, FIGURES, {"ILSVRC/imagenet-1k": "default"}, "ada/tiny")
    assert names == [
        ".eval_results/esvit-ilsvrc-imagenet-1k-k-nn-top-1-k-20.yaml",
        ".eval_results/esvit-ilsvrc-imagenet-1k-linear-top-1.yaml",
    ]
    (entry,) = parse_eval_result_entries(yaml.safe_load((tmp_path / names[0]).read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("ILSVRC/imagenet-1k", "default", 75.7)
    assert entry.source_url.endswith("/ada/tiny") and entry.notes == "k-NN top-1, k = 20"


def test_without_a_benchmark_there_is_none(tmp_path):
    assert write_eval_results(tmp_path, FIGURES, {}, "ada/tiny") == [] and not list(tmp_path.iterdir())
    with pytest.raises(BenchmarkError, match="--benchmark org/x: the card has no result on it; measured was ILSVRC/"):
        write_eval_results(tmp_path, FIGURES, {"org/x": "default"}, "ada/tiny")
