# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what `python -m build` makes, and that the wheel is enough to use a published model.

The wheel is installed beside its requirements alone, and loads a model in every way that the README names.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

import modeling_esvit
from modeling_esvit import EsViTForPreTraining
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import small_config
from tests.hub.loopback_hub import LoopbackHub
from tests.hub.protocol import Repository


SOURCES = ("modeling_esvit", "training", "examples", "tests/conftest.py", "model_cards")
FILES = ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")
VERSION = modeling_esvit.__version__


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Returns the folder that `python -m build` fills, from a copy of the repository's top."""
    copy = tmp_path_factory.mktemp("sources") / "esvit"
    for name in SOURCES:
        (shutil.copytree if (ROOT / name).is_dir() else copy_file)(ROOT / name, copy / name)
    for name in FILES:
        copy_file(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--no-isolation", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / "dist"


def copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


@pytest.mark.slow
def test_wheel_and_source_distribution_hold_the_models_alone(built):
    assert {path.name for path in built.iterdir()} == {
        f"esvit-{VERSION}-py3-none-any.whl",
        f"esvit-{VERSION}.tar.gz",
    }
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "modeling_esvit").rglob("*.py")}
    with zipfile.ZipFile(built / f"esvit-{VERSION}-py3-none-any.whl") as wheel:
        names = [name for name in wheel.namelist() if not name.startswith(f"esvit-{VERSION}.dist-info/")]
        about = wheel.read(f"esvit-{VERSION}.dist-info/METADATA").decode()
        scripts = wheel.read(f"esvit-{VERSION}.dist-info/entry_points.txt").decode()
    assert sorted(names) == sorted(modules)
    assert re.findall(r"^([\w-]+) = ", scripts, re.MULTILINE) == ["esvit-convert", "esvit-embed", "esvit-export"]
    assert f"Version: {VERSION}\n" in about and "License-Expression: Apache-2.0\n" in about
    assert "Description-Content-Type: text/markdown" in about and "# EsViT for the Hugging Face ecosystem" in about
    with tarfile.open(built / f"esvit-{VERSION}.tar.gz") as archive:
        sent = {name.removeprefix(f"esvit-{VERSION}/") for name in archive.getnames()}
    assert modules | set(FILES) < sent and not any(name.startswith(("tests", "training", "examples")) for name in sent)


def required(names: list[str]) -> set[str]:
    """Names of the distributions that these require, and they themselves."""
    found: set[str] = set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            lines = [Requirement(line) for line in metadata.distribution(name).requires or []]
            names += [line.name for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]
    return found


def link_packages(distributions: set[str], site: Path) -> None:
    """Links these packages of this environment into `site`."""
    for name in distributions:
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops - {path.name for path in site.iterdir()}:
            (site / top).symlink_to(Path(str(distribution.locate_file(top))))


@pytest.fixture(scope="module")
def bare(built, tmp_path_factory) -> Path:
    """Makes an environment with the wheel and its requirements alone, and returns its interpreter."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    wheel = str(next(built.glob("*.whl")))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        about = archive.read(f"esvit-{VERSION}.dist-info/METADATA").decode()
    lines = [Requirement(line) for line in re.findall(r"^Requires-Dist: (.*)$", about, re.MULTILINE)]
    link_packages(required([line.name for line in lines if line.marker is None]), site)
    return python


LOAD = """
import importlib.util, json
import modeling_esvit, torch
from PIL import Image
from transformers import AutoBackbone, AutoModel, pipeline

images = torch.linspace(-1, 1, 2 * 3 * 40 * 36).view(2, 3, 40, 36)
model = AutoModel.from_pretrained("org/tiny").eval()
backbone = AutoBackbone.from_pretrained("org/tiny").eval()
extract = pipeline("image-feature-extraction", model="org/tiny")
with torch.no_grad():
    result = {
        "file": modeling_esvit.__file__,
        "version": modeling_esvit.__version__,
        "module": type(model).__module__,
        "feature": model(images).pooler_output.tolist(),
        "maps": [list(map_.shape) for map_ in backbone(images).feature_maps],
        "pipeline": list(extract(Image.linear_gradient("L"), pool=True, return_tensors=True).shape),
        "others": [n for n in ("training", "datasets", "accelerate", "timm", "pytest") if importlib.util.find_spec(n)],
    }
print(json.dumps(result))
"""


@pytest.mark.slow
def test_the_wheel_alone_loads_a_published_model(bare, tmp_path):
    torch.manual_seed(0)
    model = EsViTForPreTraining(small_config()).eval()
    model.save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    (tmp_path / "empty").mkdir()
    with LoopbackHub([Repository("org/tiny", files, "model")]) as hub:
        environment = hub.environment(tmp_path, OMP_NUM_THREADS="1")
        command = [str(bare), "-I", "-c", LOAD]
        done = subprocess.run(command, env=environment, cwd=tmp_path / "empty", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["file"]).is_relative_to(bare.parents[1]) and found["version"] == VERSION
    assert found["module"] == "modeling_esvit.modeling_esvit" and found["others"] == []
    images = torch.linspace(-1, 1, 2 * 3 * 40 * 36).view(2, 3, 40, 36)
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(found["feature"]), model.esvit(images).pooler_output)
    assert found["maps"] == [[2, 16, 5, 5]] and found["pipeline"] == [1, 16]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "embed nowhere nowhere --output x.npz",
            "error: this needs the package accelerate: pip install 'esvit[embed]'",
        ),
        ("convert_original nowhere.pth out", "error: "),
        ("export nowhere out --to onnx", "error: "),
    ],
)
def test_commands_of_the_wheel_say_what_they_need(bare, tmp_path, command, message):
    """Checks that a command without its extra names in one line what is missing, or what is wrong."""
    module, *arguments = command.split()
    line = [str(bare), "-I", "-m", f"modeling_esvit.{module}", *arguments]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(message) and "Traceback" not in done.stderr


def test_one_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {VERSION}\n" in citation
    assert f"\n## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()
