# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""k-NN of a bank of many parts, as ImageNet's: exact, the same bits on 1 and 2 processes, in memory that does not grow
with the bank.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modeling_esvit.embed.parts import Parts
from tests.helpers.commands import run_program, torchrun
from tests.helpers.paths import ROOT
from training.features.bank import PART_SIZE, FeatureBank, LabelledFeatures


WIDTH, CLASSES, QUERIES, K = 384, 100, 1500, (20, 200)
NOISE = 6.0  # beside class centres of unit variance: neighbours are often of other classes

PROGRAM = """
import json, resource, sys
import torch
from accelerate import PartialState
from training.features.bank import FeatureBank
from training.evaluation.knn import evaluate_banks
from modeling_esvit.embed.parts import Parts
from pathlib import Path

folder, counts, output = Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
state = PartialState(cpu=True)
bank, queries = (FeatureBank(Parts(folder / name, {}), count, None) for name, count in counts.items())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = evaluate_banks(bank, queries, k=[20, 200], temperature=0.07, device=torch.device("cpu"))
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
output.with_suffix(f".{state.process_index}").write_text(json.dumps({"result": result, "grown": grown}))
"""


def write_bank(folder: Path, name: str, count: int, seed: int) -> int:
    """A bank of `count` images around the centres of CLASSES classes; returns the number of its parts."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    parts, generator = Parts(folder / name, {}), np.random.default_rng(seed)
    parts.begin()
    for number, start in enumerate(range(0, count, PART_SIZE)):
        labels = generator.integers(CLASSES, size=min(PART_SIZE, count - start))
        view = (centres[labels] + NOISE * generator.normal(size=(len(labels), WIDTH))).astype(np.float32)
        names = [f"{start + index}" for index in range(len(labels))]
        parts.write(number, LabelledFeatures(names, view, None, labels=labels))
    return number + 1


def evaluate(folder: Path, counts: dict[str, int], processes: int) -> list[dict]:
    """What each process found, and by how much its memory grew."""
    (folder / "program.py").write_text(PROGRAM)
    launcher = torchrun(processes) if processes > 1 else ["python"]
    output = folder / f"result{processes}"
    command = [*launcher, folder / "program.py", folder, json.dumps(counts), output]
    run_program(command, timeout=500, PYTHONPATH=str(ROOT), HF_EVALUATE_OFFLINE="1")
    return [json.loads(output.with_suffix(f".{rank}").read_text()) for rank in range(processes)]


def plain_form(folder: Path, counts: dict[str, int]) -> dict[str, float]:
    """The definition, in float64 and all in memory."""
    bank, queries = (FeatureBank(Parts(folder / name, {}), count, None) for name, count in counts.items())
    unit = [F.normalize(each.features().double(), dim=1) for each in (bank, queries)]
    similarity, rows = (unit[1] @ unit[0].T).topk(max(K), dim=1)
    result = {}
    for k in K:
        weights = (similarity[:, :k] / 0.07).exp()
        votes = torch.zeros(len(rows), CLASSES, dtype=torch.float64)
        ranking = votes.scatter_add_(1, bank.labels[rows[:, :k]], weights).topk(5).indices
        hits = ranking == queries.labels[:, None]
        result |= {
            f"k{k}_top1": hits[:, 0].double().mean().item(),
            f"k{k}_top5": hits.any(dim=1).double().mean().item(),
        }
    return result


@pytest.mark.slow
def test_exact_and_equal_on_two_processes(tmp_path):
    counts = {"train": write_bank(tmp_path, "train", 20_000, 1), "test": write_bank(tmp_path, "test", QUERIES, 2)}
    [one], two = evaluate(tmp_path, counts, 1), evaluate(tmp_path, counts, 2)
    assert [each["result"] for each in two] == [one["result"]] * 2
    assert 0.1 < one["result"]["k200_top1"] < 0.9
    for name, expected in plain_form(tmp_path, counts).items():
        assert one["result"][name] == pytest.approx(expected, abs=1 / QUERIES)  # float32 may swap two neighbours


@pytest.mark.slow
def test_memory_does_not_hold_the_bank(tmp_path):
    """A third of ImageNet: 400,000 x 384 features, 586 MiB."""
    counts = {"train": write_bank(tmp_path, "train", 400_000, 1), "test": write_bank(tmp_path, "test", QUERIES, 2)}
    [found] = evaluate(tmp_path, counts, 1)
    assert found["grown"] < 300 * 2**20
