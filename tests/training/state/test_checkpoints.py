# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that nothing is lost when the disk takes no checkpoint, or a stop cuts off an evaluation."""

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from accelerate import Accelerator

from modeling_esvit.storage.atomic import record_file, replace_folder
from tests.helpers.full_disk import largest_file
from tests.helpers.shard_server import write_parquet
from tests.helpers.tiny_runs import name_checkpoints, read_losses, tiny, tiny_options, train
from training.data.batch_order import Lanes
from training.pretrain import main
from training.state.checkpoint_folders import PROGRESS, find_best
from training.state.checkpoints import EVALUATION, Checkpoints, Progress, ResumeError, share_step
from training.state.files import UnwritableCheckpointError


TWO = "--batch_size 4"


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Collects the seconds that are waited before a write is tried again, and waits for none."""
    seconds = list[float]()
    monkeypatch.setattr("training.state.files.time.sleep", seconds.append)
    return seconds


def break_disk(monkeypatch, place: str, errors: Iterator[int]) -> None:
    """Lets writes to a place fail with these errors of the system, when they are forced to the disk."""
    force = os.fsync

    def fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if place in path and (number := next(errors, 0)):
            raise OSError(number, os.strerror(number))
        force(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("damaged", ["{", "[]", "5", '{"score": 8.5}'])
def test_the_best_checkpoint_is_known_by_its_own_scores(tmp_path, caplog, damaged):
    """`best.json` tells it to people; a flipped bit in it must neither end a run nor choose another checkpoint."""
    checkpoints = Checkpoints(str(tmp_path), 2, Accelerator(cpu=True))
    for step, score in ((1, 0.5), (2, 0.25), (3, 0.75), (4, 0.7)):
        with replace_folder(checkpoints.root / f"step-0000000{step}", later=[EVALUATION]) as folder:
            (folder / PROGRESS).parent.mkdir()
            (folder / PROGRESS).write_text("{}")
        checkpoints.add_scores(checkpoints.root / f"step-0000000{step}", {"knn_k3_top1": score})
        (checkpoints.root / "best.json").write_text(damaged)
    assert find_best(checkpoints.root) == "step-00000003"
    checkpoints.add_scores(checkpoints.root / "step-00000003", {"knn_k3_top1": 0.75})  # as after a kill
    assert json.loads((checkpoints.root / "best.json").read_text())["score"] == 0.75
    (checkpoints.root / "step-00000003" / EVALUATION).write_text('{"knn_k3_top1": 8.75}')
    checkpoints.add_scores(checkpoints.root / "step-00000004", {"knn_k3_top1": 0.7})
    assert find_best(checkpoints.root) == "step-00000004"
    assert "best are not used: evaluation.json is not as it was written" in caplog.text


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux names what a descriptor is of")


@needs_proc
@pytest.mark.parametrize("place", ["step-00000002", pytest.param("data.json", marks=pytest.mark.slow)])
def test_a_write_that_fails_once_is_repeated(labelled_images, tmp_path, waits, monkeypatch, caplog, place):
    """rwth-i6/returnn issue 1829, pytorch-lightning issue 688: disks in a network fail now and then."""
    break_disk(monkeypatch, place, iter([errno.EIO, errno.ESTALE]))
    main(tiny(labelled_images, tmp_path / "run", "--max_steps 2 --save_every 1"))
    assert waits == [1, 3]
    assert f"A write has failed ([Errno 5] Input/output error: '{tmp_path}/run/" in caplog.text
    assert f"{place}'), and is tried again in 1 s" in caplog.text
    assert not list(tmp_path.rglob("*.partial")) and len(read_losses(tmp_path / "run")) == 2
    assert name_checkpoints(tmp_path / "run") == ["last", "step-00000001", "step-00000002"]


@pytest.mark.slow
@needs_proc
def test_a_disk_that_keeps_failing_ends_the_run_with_the_checkpoint_before(
    labelled_images, finished, tmp_path, waits, monkeypatch
):
    with monkeypatch.context() as broken:
        break_disk(broken, "step-00000002", itertools.repeat(errno.EIO))
        with pytest.raises(SystemExit, match="error: .*checkpoints cannot be written: .Errno 5. Input/output error"):
            main(tiny(labelled_images, tmp_path / "run", "--save_every 1"))
    assert waits == [1, 3, 9] and name_checkpoints(tmp_path / "run") == ["last", "step-00000001"]
    main(tiny(labelled_images, tmp_path / "run", "--save_every 1"))
    assert read_losses(tmp_path / "run") == read_losses(finished)


@pytest.mark.slow
def test_an_old_checkpoint_that_cannot_be_removed_is_kept(labelled_images, tmp_path, monkeypatch, caplog):
    """nipy/nipype pull 890, scylla-manager pull 4821: over NFS, a folder with a file that is open stays."""
    remove, errors = os.rmdir, iter([errno.ENOTEMPTY])

    def rmdir(path, *, dir_fd=None) -> None:
        if os.path.basename(path) == "student" and (number := next(errors, 0)):
            raise OSError(number, os.strerror(number), path)
        remove(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", rmdir)
    main(tiny(labelled_images, tmp_path / "run", "--save_every 1 --keep_checkpoints 1 --max_steps 3"))
    assert "An old checkpoint is kept: [Errno 39] Directory not empty" in caplog.text
    assert name_checkpoints(tmp_path / "run") == ["last", "step-00000003"]  # the next one has removed it


@pytest.mark.parametrize(
    "file", ["student/model.safetensors", pytest.param("training_state/training.pt", marks=pytest.mark.slow)]
)
def test_a_failed_write_leaves_the_checkpoint_before_it(labelled_images, finished, tmp_path, file):
    train(tiny(labelled_images, tmp_path, "--max_steps 2"))
    before = name_checkpoints(tmp_path)
    size = (tmp_path / "checkpoints" / "last" / file).stat().st_size
    with (
        largest_file(size - 1),
        pytest.raises(UnwritableCheckpointError, match=f"{tmp_path}/checkpoints cannot be written: .*Free space"),
    ):
        train(tiny(labelled_images, tmp_path))
    assert name_checkpoints(tmp_path) == before == ["last", "step-00000002"]
    train(tiny(labelled_images, tmp_path))
    assert read_losses(tmp_path) == read_losses(finished)


def test_another_number_of_images_a_step_is_refused(labelled_images, finished):
    with pytest.raises(ResumeError, match="another run: images a step were 8 and are 16 .1 process x batch_size 8 x"):
        train(tiny(labelled_images, finished, "--gradient_accumulation_steps 2"))
    with pytest.raises(ResumeError, match="images a step were 8 and are 2"):
        train(tiny(labelled_images, finished, "--batch_size 2"))


def test_processes_that_cannot_share_a_step_are_refused(labelled_images, finished, tmp_path):
    shutil.copytree(finished, tmp_path, symlinks=True, dirs_exist_ok=True)
    path = tmp_path / "checkpoints" / "last" / "training_state" / "progress.json"
    progress = json.loads(path.read_text())
    path.write_text(json.dumps({**progress, "lanes": {"number": 1, "batch_size": 9, "batches_per_step": 1}}))
    record_file(tmp_path / "checkpoints" / "last", "training_state/progress.json")
    with pytest.raises(ResumeError, match="has 9 images, and 1 process with --batch_size 8 cannot share them evenly"):
        train(tiny(labelled_images, tmp_path))


def test_numbers_of_processes_that_can_share_a_step_are_named(images, tmp_path):
    options = tiny_options(images, tmp_path, batch_size=64)
    progress = Progress(5, 4, 10, asdict(options), Lanes(4, 64))
    shares = [share_step(options, progress, processes).gradient_accumulation_steps for processes in (1, 2, 4)]
    assert shares == [4, 2, 1]
    with pytest.raises(
        ResumeError, match="256 images, and 3 processes .* evenly. These .* of processes can: 1, 2, 4.$"
    ):
        share_step(options, progress, 3)
    with pytest.raises(ResumeError, match="with 8 x batch_size x gradient_accumulation_steps = 256.$"):
        share_step(options, progress, 8)


@pytest.mark.parametrize("dry", ["", "--dry_run"])
def test_a_run_that_is_further_than_max_steps_is_refused(labelled_images, finished, tmp_path, capsys, dry):
    shutil.copytree(finished, tmp_path, symlinks=True, dirs_exist_ok=True)
    with pytest.raises(SystemExit, match="step-00000006 is at step 6, and max_steps 2 is behind it. Give more"):
        main(tiny(labelled_images, tmp_path, f"--max_steps 2 {dry}"))
    assert "Nothing stands in its way" not in capsys.readouterr().out
    main(tiny(labelled_images, tmp_path, f"--max_steps 6 {dry}"))


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True])
def test_another_share_of_a_step_continues(labelled_images, tmp_path, capsys, streamed):
    """Continues with the same images and views a step, in one batch, two or four: rounding alone differs."""
    data = labelled_images
    if streamed:
        (tmp_path / "shards").mkdir()
        write_parquet(tmp_path / "shards", [11, 2, 16], size=48)
        data = tmp_path / "shards" / "*.parquet"
    same = "--drop_path_rate 0" + " --streaming --shuffle_window 7" * streamed
    train(tiny(data, tmp_path / "whole", same))
    train(tiny(data, tmp_path / "parts", f"{same} --max_steps 1 --gradient_accumulation_steps 2 --batch_size 4"))
    train(tiny(data, tmp_path / "parts", f"{same} --max_steps 4 --gradient_accumulation_steps 4 --batch_size 2"))
    assert (
        "The 8 images of a step are now 1 process x batch_size 2 x 4 accumulated (before: 1 process with 4)"
        in capsys.readouterr().out
    )
    train(tiny(data, tmp_path / "parts", same))
    assert "Images and views of each step stay the same; only rounding will differ." in capsys.readouterr().out
    assert read_losses(tmp_path / "parts") == pytest.approx(read_losses(tmp_path / "whole"), rel=1e-4)


def test_what_a_batch_draws_is_said_to_differ(labelled_images, tmp_path, capsys):
    drawn = "--drop_path_rate 0.1 --task view --mixup 0.8"
    train(tiny(labelled_images, tmp_path, f"--max_steps 1 {drawn}"))
    train(tiny(labelled_images, tmp_path, f"--batch_size 4 --gradient_accumulation_steps 2 {drawn}"))
    shown = " ".join(capsys.readouterr().out.split())
    assert "stochastic depth and partners of mixup and CutMix will differ" in shown


def test_the_newest_is_continued_whatever_last_says(labelled_images, finished, tmp_path):
    """Plays a kill between the two."""
    train(tiny(labelled_images, tmp_path, "--max_steps 2 --save_every 1"))
    link = tmp_path / "checkpoints" / "last"
    link.unlink()
    link.symlink_to("step-00000001")
    train(tiny(labelled_images, tmp_path, "--max_steps 3"))
    assert read_losses(tmp_path) == read_losses(finished)[:3]
    assert link.resolve().name == "step-00000003"
