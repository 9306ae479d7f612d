# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the repository's own settings: workflow, pre-commit hooks, Python versions and oldest dependencies."""

import importlib.util
import re
from configparser import ConfigParser
from importlib import metadata

import pytest
import yaml

from tests.floors import pin_floor, read_requirements
from tests.helpers.documents import commands
from tests.helpers.paths import ROOT


@pytest.fixture
def workflow() -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())


@pytest.fixture
def setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_workflow_runs_documented_commands(workflow):
    steps = [step["run"].strip() for step in workflow["jobs"]["tests"]["steps"] if "run" in step]
    made = {step for step in steps if step.startswith("make ")}
    documented = {
        command for page in ("README.md", "CONTRIBUTING.md") for command in commands((ROOT / page).read_text())
    }
    assert {"make style", "make test"} == made and made <= documented
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.removeprefix("make ") for command in made} <= set(targets)


def test_workflow_may_only_read(workflow):
    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in workflow["jobs"].values())


def test_python_versions_agree(workflow, setup):
    tested = workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    named = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    assert tested == named == ["3.10", "3.11", "3.12", "3.13"]
    assert setup["options"]["python_requires"] == f">={tested[0]}"
    project = (ROOT / "pyproject.toml").read_text()
    assert f'target-version = "py{tested[0].replace(".", "")}"' in project
    assert f"FLOORS_PYTHON ?= python{tested[0]}\n" in (ROOT / "Makefile").read_text()
    assert f"Python {tested[0]} or newer" in (ROOT / "README.md").read_text()


def test_pre_commit_uses_the_pinned_ruff(setup):
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook for hook in local["hooks"] if hook["id"].startswith("ruff")]
    pins = {pin for hook in hooks for pin in hook["additional_dependencies"]}
    assert pins == {f"ruff=={metadata.version('ruff')}"}
    assert pins <= set(setup["options.extras_require"]["dev"].split())


def test_a_package_has_one_oldest_version():
    """Checks that extras agree on floors, so that one environment tests them all."""
    pins = [pin_floor(requirement) for requirement in read_requirements()]
    names = [re.sub("[_.]", "-", pin.split("==")[0].lower()) for pin in pins]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(("requirement", "pin"), [("a-b>=1.2", "a-b==1.2"), ("a>=6,<7", "a==6"), ("a==0.1", "a==0.1")])
def test_pin_floor(requirement, pin):
    assert pin_floor(requirement) == pin


@pytest.mark.parametrize("requirement", ["a", "a<3", "a>1"])
def test_a_requirement_without_oldest_version_is_refused(requirement):
    with pytest.raises(ValueError, match="has no oldest version"):
        pin_floor(requirement)


def test_moved_modules_are_where_the_changelog_says():
    moves = re.findall(
        r"^\| `(modeling_esvit\.\w+)` \| `([\w.]+)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert len(moves) == 16
    assert not [old for old, _ in moves if importlib.util.find_spec(old)]
    assert all(importlib.util.find_spec(new) for _, new in moves)
