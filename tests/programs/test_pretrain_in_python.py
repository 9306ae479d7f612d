# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks `pretrain()`, which trains from Python, in a notebook say, as the command does."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from modeling_esvit.errors import EsViTError
from tests.helpers.tiny_runs import assert_equal_weights, read_log, read_losses, tiny_options, train, write_images
from training.features.extraction import UnlabelledDataError
from training.options.errors import OptionError
from training.options.pretrain_options import make_options
from training.pretrain import pretrain
from training.state.files import FolderLock


def tiny_keywords(images: Path, output: Path, **changes) -> dict:
    """Returns the keyword arguments of a tiny run."""
    return {**vars(tiny_options(images, output)), **changes}


@pytest.mark.slow
def test_it_is_the_run_of_the_command_and_returns_where_the_model_is(labelled_images, tmp_path):
    result = pretrain(**tiny_keywords(labelled_images, tmp_path / "here"))
    train(tiny_options(labelled_images, tmp_path / "there"))
    assert_equal_weights(result.model, tmp_path / "there" / "teacher")
    assert result.model == tmp_path / "here" / "teacher" and AutoModel.from_pretrained(result.model) is not None
    assert result.log == tmp_path / "here" / "log.jsonl"
    last = read_log(tmp_path / "here")[-1]
    assert result.last_values == last and last["step"] == 6 and last["loss"] > 0
    again = pretrain(**tiny_keywords(labelled_images, tmp_path / "here"))  # it is finished, and stays so
    assert again.last_values == last and {type(value) for value in last.values()} <= {int, float}


@pytest.mark.slow
def test_the_same_call_again_continues_in_the_same_process(labelled_images, tmp_path):
    """Also after a run in another precision, of which Accelerate keeps the first in a process."""
    half = pretrain(**tiny_keywords(labelled_images, tmp_path / "half", mixed_precision="bf16"))
    stopped = pretrain(**tiny_keywords(labelled_images, tmp_path / "parts", max_steps=3))
    assert stopped.last_values["step"] == 3
    pretrain(**tiny_keywords(labelled_images, tmp_path / "parts"))
    pretrain(**tiny_keywords(labelled_images, tmp_path / "whole"))
    assert read_losses(tmp_path / "parts") == read_losses(tmp_path / "whole") != read_losses(half.log.parent)
    assert_equal_weights(tmp_path / "parts" / "teacher", tmp_path / "whole" / "teacher")


def test_scores_are_among_the_last_values(labelled_images, tmp_path):
    test = write_images(tmp_path / "test", 8, classes="ab")
    evaluated = {"knn_every": 1, "knn_test": str(test), "knn_k": [3], "max_steps": 3}
    result = pretrain(**tiny_keywords(labelled_images, tmp_path / "run", **evaluated))
    assert 0 <= result.last_values["knn_k3_top1"] <= 1 and result.last_values["loss"] > 0


def test_products_of_float32_are_afterwards_what_they_were(images, tmp_path):
    """What else a notebook computes is not rounded to what the run allows."""
    before = torch.get_float32_matmul_precision()
    allowed = {"matmul_precision": "medium", "knn_every": 1}
    with pytest.raises(UnlabelledDataError):
        pretrain(**tiny_keywords(images, tmp_path / "run", **allowed))
    assert torch.get_float32_matmul_precision() == before == "highest"


@pytest.mark.slow
def test_the_folder_is_free_afterwards(labelled_images, tmp_path):
    """Another process may continue the run while this one lives on."""
    pretrain(**tiny_keywords(labelled_images, tmp_path / "run", max_steps=1))
    code = "import sys; from pathlib import Path; from training.state.files import FolderLock; "
    take = [sys.executable, "-c", code + "FolderLock(Path(sys.argv[1])).take()", str(tmp_path / "run")]
    assert subprocess.run(take, check=False).returncode == 0
    lock = FolderLock(tmp_path / "run")
    lock.take()
    refused = subprocess.run(take, capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "Another run" in refused.stderr
    lock.release()
    assert subprocess.run(take, check=False).returncode == 0


@pytest.mark.slow
def test_the_command_that_it_prints_goes_on(labelled_images, tmp_path, capfd, monkeypatch):
    """A notebook's own command line says nothing about the run."""
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.chdir(labelled_images.parent)
    pretrain(**tiny_keywords(Path(labelled_images.name), tmp_path / "run", max_steps=2))
    again = next(line for line in capfd.readouterr().out.splitlines() if "To go on: " in line).split("To go on: ")[1]
    assert f"--recipe {shlex.quote(str(tmp_path / 'run' / 'options.yaml'))} --max_steps 0" in again
    done = subprocess.run(again, shell=True, cwd="/", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [record["step"] for record in read_log(tmp_path / "run")] == list(range(1, 7))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"epohcs": 3}, "Unknown option 'epohcs'; did you mean 'epochs'?"),
        ({"epochs": "many"}, "argument --epochs: invalid int value: 'many'"),
        ({"task": "regions"}, "argument --task: invalid choice: 'regions'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0."),
        ({"recipe": "no_such"}, "There is no recipe"),
        ({"recipe": "demo", "data": "no_such_folder"}, "'no_such_folder' does not exist"),
    ],
)
def test_what_is_wrong_is_an_error_and_not_the_end_of_the_process(labelled_images, tmp_path, changes, message):
    with pytest.raises(EsViTError, match="(?s)" + message.replace("?", r"\?")):
        pretrain(**tiny_keywords(labelled_images, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_options_go_on_top_of_a_recipe_and_are_read_as_the_command_line_is(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: somewhere\nstreaming: true\nepochs: 40\nlr: 1e-3\nlocal_crop_sizes: [96]\n")
    options = make_options(recipe, epochs=50, depths=(1, 2), tracker="none", knn_k=[3], compile=True, init_from=None)
    assert (options.epochs, options.lr, options.depths, options.tracker) == (50, 1e-3, [1, 2], ["none"])
    assert options.knn_k == [3] and options.compile == "on" and options.streaming and options.init_from is None
    assert not make_options(recipe, data=tmp_path).streaming  # what a recipe says about data is for its own data
    with pytest.raises(OptionError, match="Unknown option 'reciep'"):
        make_options(reciep="demo")


def test_a_dry_run_returns_nothing(labelled_images, tmp_path, capsys):
    assert pretrain(**tiny_keywords(labelled_images, tmp_path / "run", dry_run=True)) is None
    assert "Nothing stands in its way" in capsys.readouterr().out and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_module_runs_in_a_fresh_interpreter(labelled_images, tmp_path):
    """As a script of one's own does it; the result is plain data."""
    values = json.dumps({k: v for k, v in tiny_keywords(labelled_images, tmp_path / "run", max_steps=1).items()})
    code = "import json, sys; from training.pretrain import pretrain; print(pretrain(**json.loads(sys.argv[1])).model)"
    done = subprocess.run([sys.executable, "-c", code, values], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "run" / "teacher")
