# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the program that attacks: it tries each surface, and tells the faults of one that has some."""

import os
import time
from collections import Counter

import pytest
from tqdm import tqdm

from modeling_esvit.images.data_errors import DataOptionError
from tests.attack import run
from tests.attack.mutations import mutate_bytes, mutate_json
from tests.attack.outcomes import HANG, RIGHT, TRACEBACK, TYPED, WRONG, Surface, WrongError
from tests.helpers.commands import run_program


def test_a_mutation_is_one_change():
    content = bytes(range(100))
    changed = [mutate_bytes(run.Random(number), content, content[::-1], 10, 20) for number in range(200)]
    assert all(each[:10] == content[:10] for each in changed) and len(set(changed)) > 100
    fields = {"a": {"b": [1, 2]}, "c": "d"}
    assert {str(mutate_json(run.Random(number), fields)) for number in range(99)} and fields == {
        "a": {"b": [1, 2]},
        "c": "d",
    }


def attack(random):
    """Ends in another way for each number."""
    kind = attack.count % 6
    attack.count += 1
    if kind == 1:
        raise DataOptionError("in words")
    if kind == 2:
        raise KeyError("field")
    if kind == 3:
        raise WrongError("went on")
    if kind == 4:
        time.sleep(100)
    if kind == 5:
        os.kill(os.getpid(), 9)


@pytest.mark.slow
def test_each_end_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "LONGEST", 5)
    made = []

    def prepare(folder):
        attack.count = int(folder.name.removeprefix("work-"))
        made.append(folder)
        return attack

    with tqdm(total=1, disable=True) as bar:
        counted, faults = run.try_surface(Surface("x", prepare), tmp_path, 0, 60, 7, bar)
    assert counted == Counter({RIGHT: 2, TYPED: 1, TRACEBACK: 2, WRONG: 1, HANG: 1})
    assert [(fault.number, fault.kind) for fault in faults] == [(2, TRACEBACK), (3, WRONG), (4, HANG), (5, TRACEBACK)]
    assert "KeyError: 'field'" in faults[0].what and "ended by -9" in faults[3].what
    assert "| all | 7 | 2 | 1 | 2 | 1 | 1 |" in run.show({"x": counted})


@pytest.mark.slow
def test_every_surface_stands_a_few_inputs():
    done = run_program(["python", "tests/attack/run.py", "--seconds", "600", "--inputs", "30"], timeout=900)
    assert f"| all | {30 * len(run.SURFACES)} |" in done.stdout and "| 0 | 0 | 0 |" in done.stdout.splitlines()[-1]
