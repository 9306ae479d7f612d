# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks `--dry_run`: every recipe starts, problems come together, and nothing is left behind."""

import re
from pathlib import Path

import pytest
from transformers import AutoBackbone, AutoConfig

from tests.helpers.commands import run_program, torchrun
from tests.helpers.paths import ROOT
from tests.helpers.shallow_networks import shallow
from tests.helpers.tiny_models import DINO_V2
from tests.helpers.tiny_runs import tiny, train
from training.learning.networks import build_config
from training.options.errors import OptionError
from training.options.pretrain_options import RECIPES, parse_options
from training.pretrain import Pretraining, main


NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
QUICK = ("swin_tiny_w7", "demo_small_batch")  # the rest in `make test-all`


def origin(name: str, folder: Path) -> list[str]:
    """Returns the options with which a second stage, or an adaptation, starts from a model folder."""
    if name == "adapt":
        config = AutoConfig.for_model(**DINO_V2 | {"patch_size": 14, "image_size": 98})
        AutoBackbone.from_config(config).save_pretrained(folder / name)
        return ["--backbone", str(folder / name)]
    if not name.endswith("_region"):
        return []
    first = parse_options(["--recipe", name.replace("_region", "_view"), *shallow(name)])
    build_config(first).save_pretrained(folder / name)
    return ["--init_from", str(folder / name)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_every_recipe_starts(name, images, tmp_path, capsys):
    """Describes each recipe with its crops and schedules, but shallow networks and small batches."""
    small = ["--dry_run", *"--batch_size 2 --mixed_precision no --tracker none".split(), *shallow(name)]
    paths = ["--data", str(images), "--output", str(tmp_path / "run")]
    main(["--recipe", name, *paths, *small, *origin(name, tmp_path)])
    shown = capsys.readouterr().out
    options = parse_options(["--recipe", name])
    assert f"\nlr: {options.lr}\n" in shown and f"= {options.epochs} epochs x" in shown
    assert "GFLOP an image" in shown and "a first batch of 2 made" in shown
    assert "images/s for each process, while nothing else computes" in shown
    assert re.search(r"step             = .* s \(2 steps, not compiled\): the device takes .* images/s", shown)
    assert re.search(r"time             = \d+ steps x .* s = .* h, beside", shown)
    assert re.search(r"prototypes       = \d+ images / \d+ = .* images a prototype", shown)
    is_second = name == "adapt" or name.endswith("_region")
    assert ("10,000 and 100 epochs are usual" in shown) is not is_second
    assert "Nothing stands in its way: without --dry_run the run would begin." in shown
    assert not (tmp_path / "run").exists()


def test_all_problems_are_named_together(images, tmp_path):
    (tmp_path / "file").touch()
    arguments = ["--data", str(tmp_path / "no_such"), "--output", str(tmp_path / "file" / "run"), "--dry_run"]
    values = "--lr -1 --epochs 0 --tracker foo --mixed_precision fp16 --architecture swin-tyni --init_from /no/such"
    with pytest.raises(SystemExit) as error:
        main([*arguments, *values.split()])
    message = str(error.value)
    for problem in (
        *(
            "lr must be at least 0, got -1.0",
            "epochs must be at least 1, got 0",
            "fp16 needs a GPU",
            "no tracker 'foo'",
        ),
        *("file' is a file where a folder has to be", "no_such' does not exist", "'/no/such' does not exist"),
    ):
        assert message.count(problem) == 1, message


@pytest.mark.parametrize("dry", ["", pytest.param("--dry_run", marks=pytest.mark.slow)])
def test_a_run_names_them_together_as_well(images, tmp_path, dry):
    changes = f"--tracker foo --batch_size 27 --knn_every 1 --knn_test {images} --knn_k 3 {dry}"
    with pytest.raises(SystemExit, match=r"(?s)^error: .*no tracker 'foo'.*27.*k-NN needs labels|same data"):
        main(tiny(images, tmp_path / "run", changes))
    assert not (tmp_path / "run").exists()


def test_room_for_checkpoints(images, tmp_path):
    changes = f"--keep_checkpoints {10**9}"
    with pytest.raises(OptionError, match=r"1000000002 more checkpoints of .* GB need .* are free"):
        Pretraining(parse_options(tiny(images, tmp_path / "run", changes)))


@pytest.mark.slow
def test_a_stopped_run_would_continue(images, tmp_path, capsys):
    train(tiny(images, tmp_path, "--max_steps 2"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    main(tiny(images, tmp_path, "--dry_run"))
    assert "would continue from" in capsys.readouterr().out.replace("\n", " ")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    with pytest.raises(SystemExit, match="momentum_teacher was 0.996 and is 0.5"):
        main(tiny(images, tmp_path, "--dry_run --momentum_teacher 0.5"))


def test_data_of_the_evaluation_is_checked_beside_wrong_data(tmp_path):
    data = f"--data {tmp_path}/no_such --knn_every 1 --knn_test {tmp_path}/nor_this --dry_run"
    with pytest.raises(SystemExit) as error:
        main(tiny(tmp_path, tmp_path / "run", data))
    for name in ("no_such", "nor_this"):
        assert str(error.value).count(f"{tmp_path}/{name}") == 1, error.value


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_problems_of_one_process_end_all(images, tmp_path, rank):
    """Lets one process fail to read the data; the main one says so, once."""
    code = f"import os, sys; sys.argv[2] += '/no_such' * (os.environ['RANK'] == '{rank}')"
    script = tmp_path / "start.py"
    script.write_text(f"{code}; from training.pretrain import main; main()")
    command = [*torchrun(2), script, *tiny(images, tmp_path / "run", "--dry_run --batch_size 4")]
    done = run_program(command, code=1, PYTHONPATH=str(ROOT))
    assert done.stderr.count("no_such' does not exist") == 1
