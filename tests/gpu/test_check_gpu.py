# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tries the GPU check on the CPU, in tiny sizes, so that its first run on a GPU is not its first run."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from tests.gpu import check_gpu
from tests.gpu.check_gpu import STAGES, Stage
from tests.gpu.findings import Findings, Setting
from tests.gpu.speed import CHUNKS, find_goal
from tests.gpu.suite import count_failures
from tests.helpers.waiting import wait_for


NETWORKS = ("student", "teacher")
SLOW = {"program", "loader", "serving", "profile", "tests"}
NOTED = {
    "attention": {f"{name} float32 {network}, kernel" for name in ("ours", "default") for network in NETWORKS},
    "loss": {"ms_highest", "ms_high", *(f"ms_bfloat16_{rows}_rows" for rows in CHUNKS)},
}
TRIED = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else []) for name in STAGES]


@pytest.mark.parametrize("name", TRIED)
def test_stage(name, tmp_path):
    module, function = STAGES[name].function.split(":")
    findings = Findings(tmp_path / "result.json")
    setting = Setting(torch.device("cpu"), tiny=True, folder=tmp_path)
    precision = torch.get_float32_matmul_precision()
    try:
        getattr(importlib.import_module(f"tests.gpu.{module}"), function)(setting, findings)
    finally:
        torch.set_float32_matmul_precision(precision)
    assert findings.hold, findings.checks
    assert findings.values or findings.checks
    assert findings.values.get("images_per_s", [1.0]), "no record of the run was read"
    assert NOTED.get(name, set()) <= findings.values.keys()
    assert json.loads((tmp_path / "result.json").read_text())["checks"] == findings.checks


def run(monkeypatch: pytest.MonkeyPatch, output: Path, stages: dict[str, Stage], *words: str) -> tuple[int, dict]:
    """Runs the script with other stages; returns its exit code and what the report says of each."""
    monkeypatch.setattr(check_gpu, "STAGES", stages)
    with pytest.raises(SystemExit) as ended:
        check_gpu.main(["--output", str(output), *words])
    return ended.value.code, json.loads((output / "report.json").read_text())["stages"]


@pytest.mark.slow
def test_a_failed_stage_does_not_stop_the_others(monkeypatch, tmp_path, capsys):
    stages = {"missing": Stage("kernels:check_nothing", 100), "updates": STAGES["updates"]}
    code, report = run(monkeypatch, tmp_path, stages, "--device", "cpu", "--tiny")
    assert (code, report["missing"]["status"], report["updates"]["status"]) == (1, "failed", "ok")
    assert "has no attribute 'check_nothing'" in report["missing"]["last_words"]
    assert len(report["updates"]["checks"]) > 5 and "missing         failed" in capsys.readouterr().out


def test_a_stage_that_takes_too_long_is_stopped_with_its_programs(monkeypatch, tmp_path):
    stage = tmp_path / "stage"
    stage.write_text("#!/bin/sh\nsleep 600 &\necho $!\nwait\n")
    stage.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stage))
    never_done = {"updates": Stage("kernels:check_updates", 1.01)}
    code, report = run(monkeypatch, tmp_path, never_done, "--device", "cpu")
    assert (code, report["updates"]["status"]) == (1, "stopped after 1 s")
    program = int(report["updates"]["last_words"])
    wait_for(lambda: not psutil.pid_exists(program) or psutil.Process(program).status() == psutil.STATUS_ZOMBIE, 10)


def test_a_stage_without_time_is_not_run(monkeypatch, tmp_path):
    code, report = run(monkeypatch, tmp_path, {"updates": STAGES["updates"]}, "--device", "cpu", "--limit", "0")
    assert code == 1 and report["updates"]["status"] == "not run"
    assert report["updates"]["last_words"] == "All 0 s were used up."


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="error: .*File exists.*file"):
        check_gpu.main(["--output", str(tmp_path / "file"), "--device", "cpu"])


def test_the_goal_is_that_of_the_device():
    assert [find_goal(f"NVIDIA {name}") for name in ("H200", "H100 80GB HBM3", "L4")] == [1200, 700, None]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch, tmp_path):
    code, report = run(monkeypatch, tmp_path, {"updates": replace(STAGES["updates"], seconds=300)})
    assert code == 1 and "torch finds no CUDA GPU here" in report["updates"]["last_words"]


def test_a_value_beyond_its_limit_fails(tmp_path):
    findings = Findings(tmp_path / "result.json")
    findings.check("near enough", 1.0, 2.0)
    findings.check("fast enough", 3.0, 2.0, at_least=True)
    assert findings.hold
    findings.check("not a number", float("nan"), 2.0)
    assert not findings.hold
    report = {**json.loads((tmp_path / "result.json").read_text()), "status": "failed", "seconds": 1.0}
    assert "not a number: nan, limit 2" in check_gpu.describe("some", report)
    with pytest.raises(ValueError, match=r"features has the shape \(2,\), and should have \(3,\)"):
        findings.compare("features", torch.zeros(2), torch.zeros(3), 1.0)


@pytest.mark.slow
def test_failed_tests_of_the_suite_are_named(tmp_path):
    """Tensors of the tests lie on the device of the stage: here one that is not the expected one."""
    (tmp_path / "test_some.py").write_text(
        "import torch\n\n\ndef test_without_tensors():\n    assert True\n\n\n"
        "def test_with_a_tensor():\n    assert torch.zeros(1).device.type == 'cpu'\n"
    )
    findings = Findings(tmp_path / "result.json")
    setting = Setting(torch.device("meta"), tiny=True, folder=tmp_path)
    words = ["-p", "tests.gpu.default_device", "--rootdir", str(tmp_path), str(tmp_path / "test_some.py")]
    count_failures("some", words, setting, findings)
    assert findings.values["tests of some"] == 2 and not findings.hold
    assert [name.split(".")[-1] for name in findings.values["failed tests of some"]] == ["test_with_a_tensor"]
