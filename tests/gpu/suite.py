# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs fast tests of the suite on the device.

Those of the layers make their tensors on it, by the plugin `default_device`; programs choose it by themselves.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from tests.gpu.findings import Findings, Setting


LAYERS = ["tests/modeling_esvit/test_windows.py", "tests/modeling_esvit/test_cross_entropy.py"]
PROGRAMS = ["tests/programs/test_pretrain.py"]


def run_tests(setting: Setting, findings: Findings) -> None:
    """Runs the tests of windows, losses and pretraining; none may fail."""
    if find_spec("pytest") is None:
        findings.note(tests="not run: pytest is not installed")
        return
    on_device = ["-p", "tests.gpu.default_device"]
    count_failures("layers", [*on_device, *LAYERS[: setting.choose(None, 1)]], setting, findings)
    if not setting.tiny:
        count_failures("programs", PROGRAMS, setting, findings)


def count_failures(name: str, words: list[str], setting: Setting, findings: Findings) -> None:
    """Runs pytest with these words, and notes how many tests there were, and which failed."""
    results = setting.folder / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", f"--junitxml={results}", *words]
    subprocess.run(command, env={**os.environ, "ESVIT_TEST_DEVICE": str(setting.device)}, check=False)
    tried, failed = read_results(results)
    findings.note(**{f"tests of {name}": tried, f"failed tests of {name}": failed})
    findings.check(f"failed tests of {name}", len(failed), 0)
    findings.check(f"tests of {name}", tried, 1, at_least=True)


def read_results(path: Path) -> tuple[int, list[str]]:
    """Returns how many tests ran, and the names of those that failed."""
    cases = [case for case in ElementTree.parse(path).iter("testcase") if case.find("skipped") is None]
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return len(cases), [f"{case.get('classname')}.{case.get('name')}" for case in failed]
