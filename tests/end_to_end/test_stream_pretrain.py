# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains on streams of shards: a stopped run continues exactly, with several processes, too."""

import os
import shutil

import pytest

from tests.helpers.commands import run_program, torchrun
from tests.helpers.shard_server import serve, write_parquet, write_tar
from tests.helpers.tiny_runs import (
    assert_equal_weights,
    read_log,
    read_losses,
    tiny_options,
    train,
    write_images,
    write_recipe,
)
from training.evaluation.class_names import ClassNameError
from training.pretrain import Pretraining, main
from training.run.checks import PreparationError
from training.state.checkpoints import ResumeError


WRITE = {"parquet": write_parquet, "tar": write_tar}
STREAM = {"streaming": True, "shuffle_window": 7, "stream_retry_seconds": 5.0}


@pytest.fixture(scope="module", params=["parquet", "tar"])
def shards(request, tmp_path_factory):
    """Returns 29 images in shards of uneven lengths: 3 steps of 8 an epoch, and 5 images over."""
    folder = tmp_path_factory.mktemp(request.param)
    WRITE[request.param](folder, [11, 2, 16], size=48)
    return folder / f"*.{request.param}"


@pytest.fixture(scope="module")
def finished(shards, tmp_path_factory):
    output = tmp_path_factory.mktemp("finished")
    train(tiny_options(shards, output, **STREAM))
    return output


@pytest.mark.parametrize("stop", [1, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_a_stopped_stream_continues_exactly(shards, finished, tmp_path, stop):
    train(tiny_options(shards, tmp_path, max_steps=stop, workers=2, **STREAM))
    train(tiny_options(shards, tmp_path, **STREAM))
    assert read_losses(tmp_path) == read_losses(finished) and len(read_losses(finished)) == 6
    for folder in ("teacher", "checkpoints/step-00000006/student"):
        assert_equal_weights(tmp_path / folder, finished / folder)


@pytest.mark.slow
def test_a_server_that_fails_changes_nothing(shards, tmp_path, monkeypatch):
    """The same shards by HTTP: the order is of their contents, not of their names."""
    monkeypatch.setattr("training.data.shard_files.FIRST_DELAY", 0.02)
    with serve(shards.parent) as server:
        urls = [server.url(path.name) for path in sorted(shards.parent.glob(shards.name))]
        run = Pretraining(tiny_options(urls[0], tmp_path, **{**STREAM, "batch_size": 4}))
        server.faults = ["reset", "503", "", "broken", "short"]
        run.run()
        assert not server.faults
    local = tmp_path / "local"
    train(tiny_options(sorted(shards.parent.iterdir())[0], local, **{**STREAM, "batch_size": 4}))
    assert read_losses(local) == read_losses(tmp_path)


def test_the_shuffle_belongs_to_the_run(shards, tmp_path, capsys):
    train(tiny_options(shards, tmp_path, max_steps=1, **STREAM))
    assert "left out         = 29 - 1 process x 24 = 5 images, others each epoch" in capsys.readouterr().out
    with pytest.raises(ResumeError, match="shuffle_window was 7 and is 8"):
        train(tiny_options(shards, tmp_path, **{**STREAM, "shuffle_window": 8}))
    assert (tmp_path / "tar_index").is_dir() == (shards.suffix == ".tar")


@pytest.mark.slow
def test_a_run_is_not_continued_on_other_shards(shards, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(shards.parent, data)
    arguments = (data / shards.name, tmp_path / "run")
    train(tiny_options(*arguments, max_steps=1, **STREAM))
    first, second, *_ = sorted(data.iterdir())
    os.utime(second, (1, 1))
    train(tiny_options(*arguments, max_steps=2, **STREAM))
    assert f"modified at other times than before: 1 of 3 files, {second}" in caplog.text
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 1
    second.write_bytes(content)
    with pytest.raises(ResumeError, match=f"other data: .*{second.name} has another content"):
        train(tiny_options(*arguments, **STREAM))
    shutil.copy(first, data / f"x{shards.suffix}")
    second.unlink()
    with pytest.raises(PreparationError, match=f"steps per epoch were 3(.|\n)*other data: .*{second.name} is missing"):
        train(tiny_options(*arguments, **STREAM))


def test_the_bank_of_the_evaluation_is_the_stream(shards, tmp_path):
    test = write_images(tmp_path / "test", 4, classes="01")  # the shards have numbers
    knn = {"knn_every": 2, "knn_test": str(test), "knn_k": [3], "max_steps": 1}  # it evaluates at the end
    train(tiny_options(shards, tmp_path / "run", **knn, **STREAM))
    scores = [record for record in read_log(tmp_path / "run") if "knn_k3_top1" in record]
    assert [(each["knn_train_images"], each["knn_test_images"]) for each in scores] == [(29, 4)]
    knn["knn_test"] = str(write_images(tmp_path / "words", 4, classes="ab"))
    with pytest.raises(ClassNameError, match="names 'a', 'b', and those of another are numbers"):
        train(tiny_options(shards, tmp_path / "other", **knn, **STREAM))
    assert not (tmp_path / "other" / "log.jsonl").exists()  # said at the start, not after an epoch


def test_a_shard_that_cannot_be_read_is_said_in_one_line(shards, tmp_path):
    broken = tmp_path / f"broken{shards.suffix}"
    broken.write_bytes(sorted(shards.parent.iterdir())[0].read_bytes()[:3000])
    recipe = write_recipe(tiny_options(broken, tmp_path / "run", **STREAM), tmp_path / "run.yaml")
    with pytest.raises(SystemExit, match=f"^error: .*broken{shards.suffix} is not a whole"):
        main(["--recipe", recipe])


@pytest.mark.slow
def test_two_processes_resume_a_stream_exactly(shards, tmp_path):
    command = [*torchrun(2), "training/pretrain.py", "--recipe"]
    changes = {**STREAM, "batch_size": 4, "workers": 1}
    whole = write_recipe(tiny_options(shards, tmp_path / "whole", **changes), tmp_path / "whole.yaml")
    parts = write_recipe(tiny_options(shards, tmp_path / "parts", **changes), tmp_path / "parts.yaml")
    assert "images a process = 12: process r has rows r x 12" in run_program([*command, whole]).stdout
    run_program([*command, parts, "--max_steps", "4"])
    run_program([*command, parts])
    assert read_losses(tmp_path / "parts") == read_losses(tmp_path / "whole")
    assert_equal_weights(tmp_path / "parts" / "teacher", tmp_path / "whole" / "teacher")
