# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the training loop: exact resume, accumulation, several processes, every way to start it, refusals."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from modeling_esvit import EsViTArchitectureError, EsViTForPreTraining
from modeling_esvit.images.data_errors import DataOptionError, EmptySourceError
from modeling_esvit.storage.manifest import find_damage
from tests.helpers.commands import run_program, torchrun
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import (
    assert_equal_weights,
    read_log,
    read_losses,
    tiny_options,
    train,
    write_recipe,
)
from training.evaluation.knn import NeighbourCountError
from training.features.extraction import UnlabelledDataError
from training.learning.precision import PrecisionError
from training.options.errors import OptionError
from training.options.pretrain_options import parse_options, save_options
from training.pretrain import Pretraining, main, start
from training.run.checks import PreparationError
from training.state.checkpoints import ResumeError


KEY_BIAS_FREE = 1e-5
FILES = ("training_state/progress.json", "training_state/training.pt", "student/model.safetensors")  # of a checkpoint
SAME_DRAWS = {"drop_path_rate": 0.0, "freeze_last_layer": 0}


@pytest.fixture(scope="module")
def finished(labelled_images, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("finished")
    train(tiny_options(labelled_images, output))
    return output


@pytest.fixture(scope="module")
def first_step(labelled_images, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("first_step")
    train(tiny_options(labelled_images, output, max_steps=1))
    return output


@pytest.fixture
def stopped(first_step, tmp_path) -> Path:
    """Returns a copy of a run that stopped after its first step."""
    return shutil.copytree(first_step, tmp_path / "stopped", symlinks=True)


@pytest.fixture(scope="module")
def without_drop_path(labelled_images, tmp_path_factory) -> Path:
    """Returns a run that draws nothing for itself, and freezes no layer, so that all parameters can be compared."""
    output = tmp_path_factory.mktemp("without_drop_path")
    train(tiny_options(labelled_images, output, **SAME_DRAWS))
    return output


@pytest.mark.parametrize("stop", [2, *(pytest.param(step, marks=pytest.mark.slow) for step in (3, 5))])
def test_a_stopped_run_continues_exactly(labelled_images, finished, tmp_path, stop):
    train(tiny_options(labelled_images, tmp_path, max_steps=stop))
    train(tiny_options(labelled_images, tmp_path, workers=2))
    assert read_losses(tmp_path) == read_losses(finished)
    assert_equal_weights(tmp_path / "teacher", finished / "teacher")
    last = "checkpoints/step-00000006/student"
    assert_equal_weights(tmp_path / last, finished / last)


@pytest.mark.slow
def test_what_a_killed_run_did_after_its_checkpoint_is_done_again(labelled_images, finished, tmp_path):
    train(tiny_options(labelled_images, tmp_path, max_steps=5, save_every=1, keep_checkpoints=3))
    for step in (4, 5):
        shutil.rmtree(tmp_path / "checkpoints" / f"step-{step:08d}")
    train(tiny_options(labelled_images, tmp_path))
    assert read_losses(tmp_path) == read_losses(finished)
    assert_equal_weights(tmp_path / "teacher", finished / "teacher")


@pytest.mark.parametrize("changes", [{"augment_on": "device"}, pytest.param({"compile": "on"}, marks=pytest.mark.slow)])
def test_the_same_run_by_other_means(labelled_images, finished, tmp_path, changes):
    """Augments on the device, or compiles the networks: only rounding differs."""
    train(tiny_options(labelled_images, tmp_path, **changes))
    limit = 1e-4 if "compile" in changes else 0.02
    assert read_losses(tmp_path)[0] == pytest.approx(read_losses(finished)[0], rel=limit)
    assert read_losses(tmp_path) == pytest.approx(read_losses(finished), rel=10 * limit)
    assert read_losses(tmp_path) != read_losses(finished)
    AutoModel.from_pretrained(tmp_path / "teacher")


def test_the_seed_matters(labelled_images, finished, tmp_path):
    train(tiny_options(labelled_images, tmp_path, seed=1, max_steps=1))
    assert read_losses(tmp_path) != read_losses(finished)[:1]


def test_the_result_is_a_model_folder(finished):
    folder = finished / "teacher"
    model = AutoModel.from_pretrained(folder)
    assert model(torch.zeros(1, 3, 32, 32)).pooler_output.shape == (1, 16)
    pretraining = EsViTForPreTraining.from_pretrained(folder)
    assert pretraining.view_center.abs().max() > 0 and pretraining.region_center.abs().max() > 0
    assert {"config.json", "preprocessor_config.json", "modeling_esvit.py"} <= {p.name for p in folder.iterdir()}


def test_only_the_newest_checkpoints_are_kept(labelled_images, tmp_path):
    train(tiny_options(labelled_images, tmp_path, save_every=1, keep_checkpoints=2, max_steps=4))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["last", "step-00000003", "step-00000004"]
    assert (tmp_path / "checkpoints" / "last").resolve().name == "step-00000004"


def test_accumulation_equals_the_large_batch(labelled_images, without_drop_path, tmp_path):
    train(tiny_options(labelled_images, tmp_path, batch_size=4, gradient_accumulation_steps=2, **SAME_DRAWS))
    assert read_losses(tmp_path) == pytest.approx(read_losses(without_drop_path), rel=1e-5)
    assert_equal_weights(tmp_path / "teacher", without_drop_path / "teacher", atol=KEY_BIAS_FREE)


def test_the_view_task_and_no_local_crops(labelled_images, tmp_path):
    train(tiny_options(labelled_images, tmp_path, task="view", local_crops_numbers=[0], max_steps=2))
    assert EsViTForPreTraining.from_pretrained(tmp_path / "teacher").region_head is None
    assert [record["region_loss"] for record in read_log(tmp_path)] == [0.0, 0.0]


@pytest.mark.parametrize("changes", [{"mixed_precision": "bf16"}, {"gradient_checkpointing": True}])
def test_bf16_and_recomputation(labelled_images, finished, tmp_path, changes):
    train(tiny_options(labelled_images, tmp_path, **changes))
    tolerance = 0.05 if "mixed_precision" in changes else 1e-5
    assert read_losses(tmp_path) == pytest.approx(read_losses(finished), rel=tolerance)
    assert {t.dtype for t in load_file(tmp_path / "teacher" / "model.safetensors").values()} == {torch.float32}


def test_knn_during_training_changes_nothing_else(labelled_images, finished, tmp_path):
    test = shutil.copytree(labelled_images, tmp_path / "test")
    train(tiny_options(labelled_images, tmp_path / "run", knn_every=1, knn_test=str(test), knn_k=[3]))
    assert read_losses(tmp_path / "run") == read_losses(finished)
    scores = [record["knn_k3_top1"] for record in read_log(tmp_path / "run") if "knn_k3_top1" in record]
    assert len(scores) == 2 and all(0 < score <= 1 for score in scores)


def test_unreadable_images_are_named_at_the_end(labelled_images, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    for path in labelled_images.rglob("*.png"):
        (data / path.name).write_bytes(path.read_bytes())
    (data / "broken.png").write_bytes((data / "00.png").read_bytes()[:100])
    train(tiny_options(data, tmp_path / "run", max_steps=3))
    assert "Skipped 1 unreadable image:\n  broken.png" in capsys.readouterr().out


def test_another_run_is_not_continued(labelled_images, stopped):
    with pytest.raises(
        ResumeError, match=r"momentum_teacher was 0\.996 and is 0\.9\. Give the same values, or another"
    ):
        train(tiny_options(labelled_images, stopped, momentum_teacher=0.9))


@pytest.mark.slow
def test_a_run_is_lengthened_by_more_epochs(labelled_images, tmp_path, capsys):
    """From the checkpoint on, schedules are those of a run of the new length."""
    train(tiny_options(labelled_images, tmp_path / "long", epochs=4))
    train(tiny_options(labelled_images, tmp_path / "run"))
    capsys.readouterr()
    train(tiny_options(labelled_images, tmp_path / "run", epochs=4))
    shown = capsys.readouterr().out
    assert "Epochs were 2 and are 4: from step 6 on all schedules are those of a run of 4 epochs" in shown
    long, lengthened = (read_log(tmp_path / name) for name in ("long", "run"))
    for name in ("lr", "weight_decay", "momentum_teacher", "teacher_temp"):
        expected = {record["step"]: record[name] for record in long if name in record}
        found = {record["step"]: record[name] for record in lengthened if name in record}
        assert {step: found[step] for step in range(7, 13)} == {step: expected[step] for step in range(7, 13)}
        assert name == "teacher_temp" or found[6] != expected[6]
    with pytest.raises(ResumeError, match="epochs was 4 and is 2. .* with --init_from .*--max_steps ends it sooner"):
        train(tiny_options(labelled_images, tmp_path / "run"))


@pytest.mark.parametrize("when", ["run", pytest.param("dry_run", marks=pytest.mark.slow)])
def test_a_run_is_not_continued_on_other_images(labelled_images, tmp_path, when):
    """Also not on images of the same names and sizes."""
    data = shutil.copytree(labelled_images, tmp_path / "data")
    train(tiny_options(data, tmp_path / "run", max_steps=1))
    for path in data.rglob("*.png"):
        content = path.read_bytes()
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    refused = (ResumeError, PreparationError)  # the dry run also finds that these images cannot be read
    with pytest.raises(refused, match="begun with other data: .*.png has another content; .* and 23 more changes"):
        start(tiny_options(data, tmp_path / "run", dry_run=when == "dry_run"))


def test_partial_checkpoints_are_ignored_and_named(labelled_images, finished, tmp_path, caplog):
    train(tiny_options(labelled_images, tmp_path, max_steps=2))
    (tmp_path / "checkpoints" / "step-00000009.partial" / "student").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000008").mkdir()
    train(tiny_options(labelled_images, tmp_path))
    assert read_losses(tmp_path) == read_losses(finished)
    for name in ("step-00000008", "step-00000009.partial"):
        assert any(name in message and "incomplete" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "content, file",
    [
        *((None, name) for name in FILES[1:]),  # without the first, a checkpoint is incomplete, see above
        *((content, name) for content in (b"", b"{}", b"\xf5") for name in FILES),
    ],
)
def test_a_damaged_checkpoint_is_named(labelled_images, stopped, file, content):
    damaged = stopped / "checkpoints" / "step-00000001" / file
    damaged.unlink()
    if content is not None:
        damaged.write_bytes(content)
    what = "is missing" if content is None else "is not as it was written"
    with pytest.raises(ResumeError, match=f"All checkpoints in .* are damaged, as step-00000001: {file} {what}"):
        train(tiny_options(labelled_images, stopped))


@pytest.mark.parametrize(
    "file",
    [
        "student/model.safetensors",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("teacher/config.json", ".manifest.json")),
    ],
)
def test_one_flipped_bit_sends_a_run_to_the_checkpoint_before(labelled_images, finished, tmp_path, caplog, file):
    train(tiny_options(labelled_images, tmp_path, max_steps=3, save_every=1, keep_checkpoints=2))
    path = tmp_path / "checkpoints" / "step-00000003" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    train(tiny_options(labelled_images, tmp_path, keep_checkpoints=2))
    assert any("step-00000003 is damaged and not used: " in message for message in caplog.messages)
    assert read_losses(tmp_path) == read_losses(finished)
    assert not find_damage((tmp_path / "checkpoints" / "last").resolve())


def test_a_file_that_somebody_put_into_a_checkpoint_is_not_deleted(labelled_images, tmp_path, caplog):
    train(tiny_options(labelled_images, tmp_path, max_steps=1, save_every=1, keep_checkpoints=1))
    mine = tmp_path / "checkpoints" / "step-00000001" / "why.txt"
    mine.write_text("the one of the paper")
    train(tiny_options(labelled_images, tmp_path, max_steps=3, save_every=1, keep_checkpoints=1))
    assert mine.read_text() == "the one of the paper"
    assert sorted(path.name for path in mine.parents[1].glob("step-*")) == ["step-00000001", "step-00000003"]
    assert any("An old checkpoint is kept: " in message and "why.txt" in message for message in caplog.messages)


def test_a_damaged_record_of_the_data_is_named(labelled_images, stopped):
    (stopped / "data.json").write_bytes(b"\0\0")
    with pytest.raises(ResumeError, match="data.json.* is damaged .* delete it"):
        train(tiny_options(labelled_images, stopped))


def test_lines_that_a_killed_run_did_not_finish_are_dropped(labelled_images, finished, tmp_path, capsys):
    train(tiny_options(labelled_images, tmp_path, max_steps=3))
    with (tmp_path / "log.jsonl").open("ab") as log:
        log.write(b'\0\0\xf5\0\n{"step": 4, "lo')
    train(tiny_options(labelled_images, tmp_path))
    assert read_losses(tmp_path) == read_losses(finished)
    assert "Warning: dropped 2 damaged lines of" in capsys.readouterr().out


def test_a_finished_model_is_not_overwritten(labelled_images, tmp_path):
    (tmp_path / "teacher").mkdir()
    with pytest.raises(ResumeError, match="holds a finished model"):
        train(tiny_options(labelled_images, tmp_path))


def test_evaluation_data_is_checked_before_training(labelled_images, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(next(labelled_images.rglob("*.png")), flat)
    for changes, error in (({"knn_test": str(flat)}, UnlabelledDataError), ({"knn_k": [27]}, NeighbourCountError)):
        options = {
            "knn_every": 1,
            "knn_test": str(shutil.copytree(labelled_images, tmp_path / error.__name__)),
            **changes,
        }
        with pytest.raises(error):
            Pretraining(tiny_options(labelled_images, tmp_path / "run", **options))


def test_the_command_prints_the_message_alone(labelled_images, tmp_path):
    with pytest.raises(SystemExit, match="^error: Unknown option 'epohcs'; did you mean 'epochs'"):
        main(["--epohcs", "3"])


@pytest.mark.slow
def test_an_error_of_a_worker_ends_the_run_at_once_and_is_the_message_alone(tmp_path):
    (folder := tmp_path / "broken").mkdir()
    for index in range(26):
        (folder / f"{index}.png").write_bytes(b"no picture")
    recipe = write_recipe(tiny_options(folder, tmp_path / "run", workers=2), tmp_path / "recipe.yaml")
    done = run_program(["python", "training/pretrain.py", "--recipe", recipe], code=1)
    assert "error: 17 images in a row cannot be read; the last one: " in done.stderr
    assert not [word for word in ("Traceback", "Alarm clock", "QueueFeederThread") if word in done.stderr], done.stderr


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"mixed_precision": "fp16"}, PrecisionError, "fp16 needs a GPU"),
        ({"batch_size": 27}, DataOptionError, "27"),
        ({"architecture": "swin-tyni"}, ValueError, "did you mean 'swin-tiny'"),
        ({"num_heads": [3, 2]}, EsViTArchitectureError, r"\Anum_heads\[0\]=3 must divide the width 8 of stage 0\.\Z"),
        ({"tracker": "swanlab"}, OptionError, "swanlab"),
        ({"tracker": "foo"}, OptionError, "There is no tracker 'foo'"),
        ({"data": __file__}, DataOptionError, "is a file: give the folder"),
    ],
)
def test_refusals(labelled_images, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        Pretraining(tiny_options(labelled_images, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptySourceError, match="empty"):
        Pretraining(tiny_options(tmp_path / "empty", tmp_path / "run"))


def test_two_processes_equal_one(labelled_images, without_drop_path, tmp_path):
    two = tiny_options(labelled_images, tmp_path / "two", batch_size=4, **SAME_DRAWS)
    recipe = write_recipe(two, tmp_path / "two.yaml")
    done = run_program([*torchrun(2), "training/pretrain.py", "--recipe", recipe])
    assert "4 a process x 2 processes x 1 accumulated = 8" in done.stdout
    assert read_losses(tmp_path / "two") == pytest.approx(read_losses(without_drop_path), rel=1e-5)
    assert_equal_weights(tmp_path / "two" / "teacher", without_drop_path / "teacher", atol=KEY_BIAS_FREE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder, command",
    [
        ("", ["python", "training/pretrain.py"]),
        ("", ["accelerate", "launch", "--cpu", "--num_processes", "1", "training/pretrain.py"]),
        ("training", ["accelerate", "launch", "--cpu", "--num_processes", "1", "pretrain.py"]),
        ("training", [*torchrun(1), "pretrain.py"]),
    ],
)
def test_every_way_to_start_it(labelled_images, finished, tmp_path, folder, command):
    recipe = write_recipe(tiny_options(labelled_images, tmp_path / "run"), tmp_path / "run.yaml")
    run_program([*command, "--recipe", recipe], ROOT / folder)
    assert read_losses(tmp_path / "run") == read_losses(finished)


@pytest.mark.slow
def test_two_processes_resume_exactly(labelled_images, tmp_path):
    command = [*torchrun(2), "training/pretrain.py", "--recipe"]
    whole = write_recipe(tiny_options(labelled_images, tmp_path / "whole", batch_size=4), tmp_path / "whole.yaml")
    parts = write_recipe(tiny_options(labelled_images, tmp_path / "parts", batch_size=4), tmp_path / "parts.yaml")
    run_program([*command, whole])
    run_program([*command, parts, "--max_steps", "4"])
    run_program([*command, parts])
    assert read_losses(tmp_path / "parts") == read_losses(tmp_path / "whole")
    assert_equal_weights(tmp_path / "parts" / "teacher", tmp_path / "whole" / "teacher")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_all_processes_saves_and_ends_with_its_code(labelled_images, tmp_path, number):
    """Signals the workers of the loader, too, as a scheduler does."""
    options = tiny_options(labelled_images, tmp_path / "run", epochs=5000, warmup_epochs=0, workers=1, save_every=10**6)
    save_options(options, tmp_path / "run.yaml")
    command = [sys.executable, "training/pretrain.py", "--recipe", str(tmp_path / "run.yaml")]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, shown = process.communicate(timeout=300)
    assert process.returncode == 75 and " stopped the run after step" in shown
    assert "Traceback" not in shown
    step = read_log(tmp_path / "run")[-1]["step"]
    assert (tmp_path / "run" / "checkpoints" / "last").resolve().name == f"step-{step:08d}"


SLOW_STEP = """
import time
from training import pretrain
pretrain.Pretraining.train_step = lambda *arguments: print("a step begins", flush=True) or time.sleep(600)
pretrain.main()
"""


@pytest.mark.slow
def test_a_second_ctrl_c_ends_all_processes_at_once_in_one_line(labelled_images, tmp_path):
    options = tiny_options(labelled_images, tmp_path / "run", workers=2)
    recipe = write_recipe(options, tmp_path / "run.yaml")
    command = [sys.executable, "-c", SLOW_STEP, "--recipe", recipe]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, text=True, **pipes)
    assert process.stdout is not None and process.stderr is not None
    while "a step begins" not in process.stdout.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    while "A second one ends the run at once" not in (line := process.stderr.readline()):
        assert "Traceback" not in line and process.poll() is None
    time.sleep(1.1)  # what comes within a second is the same press
    os.killpg(process.pid, signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line for line in shown.splitlines() if line] == [
        "Ended at once by Ctrl-C. The same command continues from the last checkpoint, if there is one."
    ]


@pytest.mark.slow
def test_tensorboard_is_the_default_tracker(labelled_images, tmp_path):
    recipe = write_recipe(
        tiny_options(labelled_images, tmp_path / "run", tracker="tensorboard", max_steps=1), tmp_path / "run.yaml"
    )
    run_program(["python", "training/pretrain.py", "--recipe", recipe])
    assert parse_options([]).tracker == ["tensorboard"]
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))
