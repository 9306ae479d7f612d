# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that nothing is lost when the disk takes no checkpoint, or a stop cuts off an evaluation."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.commands import run_program, torchrun
from tests.helpers.shard_server import write_parquet
from tests.helpers.tiny_runs import read_losses, tiny, train, write_images
from training.run.session import Session
from training.state.checkpoints import ResumeError
from training.state.files import FolderInUseError, UnwritableCheckpointError, replace_run_folder
from training.state.interruption import InterruptedRunError


TWO = "--batch_size 4"
mounting = pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="only root can mount")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images", classes="ab")


@pytest.fixture(scope="module")
def test_images(images, tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "test", 40, classes="ab")


def run(images: Path, output: Path, changes: str = "") -> None:
    train(tiny(images, output, changes))


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("finished")
    run(images, output)
    return output


def checkpoints_in(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "checkpoints").iterdir())


@contextmanager
def largest_file(size: int):
    """No file of this process can grow beyond `size` bytes: every write that would fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("file", ["student/model.safetensors", "training_state/training.pt"])
def test_a_failed_write_leaves_the_checkpoint_before_it(images, finished, tmp_path, file):
    run(images, tmp_path, "--max_steps 2")
    before = checkpoints_in(tmp_path)
    size = (tmp_path / "checkpoints" / "last" / file).stat().st_size
    with (
        largest_file(size - 1),
        pytest.raises(UnwritableCheckpointError, match=f"{tmp_path}/checkpoints cannot be written: .*Free space"),
    ):
        run(images, tmp_path)
    assert checkpoints_in(tmp_path) == before == ["last", "step-00000002"]
    run(images, tmp_path)
    assert read_losses(tmp_path) == read_losses(finished)


def test_a_file_in_the_place_of_the_folder(images, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("")
    with pytest.raises(UnwritableCheckpointError, match="run/checkpoints cannot be written"):
        run(images, tmp_path / "run")
    with pytest.raises(UnwritableCheckpointError, match="checkpoints/run cannot be written: .*Not a directory"):
        run(images, tmp_path / "run" / "checkpoints" / "run")


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write("process 7 on host")
file.flush()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_takes_one_run_at_a_time(images, finished, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(FolderInUseError, match="Another run, process 7 on host, writes into"):
            run(images, tmp_path)
        assert not (tmp_path / "checkpoints").exists()
        other.kill()
    run(images, tmp_path)
    assert read_losses(tmp_path) == read_losses(finished)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    for content in ("old", "new"):
        with replace_run_folder(tmp_path / "folder") as folder:
            (folder / content).write_text(content)
    with pytest.raises(UnwritableCheckpointError), replace_run_folder(tmp_path / "folder") as folder:
        (folder / "newest").write_text("newest")
        raise OSError("full")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "new"]


@contextmanager
def mounted(folder: Path, *arguments: str):
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", *arguments, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@mounting
def test_a_full_disk_stops_all_processes(images, tmp_path):
    """Mounts a disk with room for two checkpoints, the last one and one under way, and not for three."""
    run(images, tmp_path / "size", f"{TWO} --max_steps 1")
    last = tmp_path / "size" / "checkpoints" / "step-00000001"
    size = sum(path.stat().st_size for path in last.rglob("*")) // 1024
    command = [*torchrun(2), "training/pretrain.py", *tiny(images, tmp_path / "run", f"{TWO} --save_every 1")]
    with mounted(tmp_path / "run", "-t", "tmpfs", "-o", f"size={2.6 * size:.0f}k", "full"):
        done = run_program([*command, "--keep_checkpoints", "2"], code=1)
        assert done.stderr.count("run/checkpoints cannot be written: ") == 1, done.stderr
        assert "No space left on device" in done.stderr and 'pretrain.py", line' not in done.stderr
        assert checkpoints_in(tmp_path / "run") == ["last", "step-00000001", "step-00000002"]
        done = run_program([*command, "--keep_checkpoints", "1"], code=1)  # room for the next is made after it
        assert done.stderr.count("1 more checkpoints of") == 1
        subprocess.run(["mount", "-o", "remount,size=100m", str(tmp_path / "run")], check=True)
        run_program(command)
        assert len(read_losses(tmp_path / "run")) == 6


@mounting
def test_a_read_only_folder_is_said_before_training(images, tmp_path):
    run(images, tmp_path / "run", "--max_steps 2")
    with (
        mounted(tmp_path / "run", "--bind", "-o", "ro", str(tmp_path / "run")),
        pytest.raises(UnwritableCheckpointError, match=f"{tmp_path}/run cannot be written: .*Read-only"),
    ):
        run(images, tmp_path / "run")
    run(images, tmp_path / "run", "--max_steps 3")
    assert len(read_losses(tmp_path / "run")) == 3


UNSHARED = """
[ $LOCAL_RANK = 0 ] && exec "$@"
exec unshare --mount sh -c 'mount -t tmpfs other "$0" && exec "$@"' $OUTPUT "$@"
"""
IMPATIENT = """
import sys
import training.state.files as run_folder
run_folder.VISIBLE_WITHIN = 1.0
import training.pretrain as pretrain
pretrain.main(sys.argv[1:])
"""


@pytest.mark.slow
@mounting
def test_a_folder_that_is_another_one_elsewhere(images, tmp_path):
    """Gives the second process a file system of its own there, as another machine would have."""
    output = tmp_path / "run"
    output.mkdir()
    command = [*torchrun(2), "--no-python", "env", f"OUTPUT={output}", "sh", "-c", UNSHARED, "sh", sys.executable]
    done = run_program([*command, "-c", IMPATIENT, *tiny(images, output, TWO)], code=1)
    assert done.stderr.count(f"{output} is not shared: processes on ") == 1, done.stderr
    assert not any(output.iterdir())


def test_another_number_of_images_a_step_is_refused(images, tmp_path):
    run(images, tmp_path, "--max_steps 1")
    with pytest.raises(ResumeError, match="another run: images a step were 8 and are 16 .1 processes x batch_size 8 x"):
        run(images, tmp_path, "--gradient_accumulation_steps 2")
    with pytest.raises(ResumeError, match="images a step were 8 and are 2"):
        run(images, tmp_path, "--batch_size 2")


def test_processes_that_cannot_share_a_step_are_refused(images, tmp_path):
    run(images, tmp_path, "--max_steps 1")
    path = tmp_path / "checkpoints" / "last" / "training_state" / "progress.json"
    progress = json.loads(path.read_text())
    path.write_text(json.dumps({**progress, "lanes": {"number": 1, "batch_size": 9, "batches_per_step": 1}}))
    with pytest.raises(ResumeError, match="has 9 images, and 1 processes with --batch_size 8 cannot share them evenly"):
        run(images, tmp_path)


@pytest.mark.parametrize("streamed", [False, True])
def test_another_share_of_a_step_continues(images, tmp_path, capsys, streamed):
    """Continues with the same images and views a step, in one batch, two or four: rounding alone differs."""
    if streamed:
        (tmp_path / "shards").mkdir()
        write_parquet(tmp_path / "shards", [11, 2, 16], size=48)
        images = tmp_path / "shards" / "*.parquet"
    same = "--drop_path_rate 0" + " --streaming --shuffle_window 7" * streamed
    run(images, tmp_path / "whole", same)
    run(images, tmp_path / "parts", f"{same} --max_steps 1 --gradient_accumulation_steps 2 --batch_size 4")
    run(images, tmp_path / "parts", f"{same} --max_steps 4 --gradient_accumulation_steps 4 --batch_size 2")
    assert (
        "The 8 images of a step are now 1 processes x batch_size 2 x 4 accumulated (before: 1 processes with 4)"
        in capsys.readouterr().out
    )
    run(images, tmp_path / "parts", same)
    assert "Images and views of each step stay the same; only rounding will differ." in capsys.readouterr().out
    assert read_losses(tmp_path / "parts") == pytest.approx(read_losses(tmp_path / "whole"), rel=1e-4)


def test_what_a_batch_draws_is_said_to_differ(images, tmp_path, capsys):
    run(images, tmp_path, "--max_steps 1 --drop_path_rate 0.1 --task view --mixup 0.8")
    run(images, tmp_path, "--batch_size 4 --gradient_accumulation_steps 2 --drop_path_rate 0.1 --task view --mixup 0.8")
    shown = " ".join(capsys.readouterr().out.split())
    assert "stochastic depth and partners of mixup and CutMix will differ" in shown


def test_the_newest_is_continued_whatever_last_says(images, finished, tmp_path):
    """Plays a kill between the two."""
    run(images, tmp_path, "--max_steps 2 --save_every 1")
    link = tmp_path / "checkpoints" / "last"
    link.unlink()
    link.symlink_to("step-00000001")
    run(images, tmp_path, "--max_steps 3")
    assert read_losses(tmp_path) == read_losses(finished)[:3]
    assert link.resolve().name == "step-00000003"


class Stopped(Exception):
    pass


EVALUATE = Session.evaluate


def stop_before(session: Session, after_batch: Callable[[], None]) -> dict[str, float]:
    """Stops when the checkpoint is written and its evaluation not begun."""
    raise Stopped


def stop_after(session: Session, after_batch: Callable[[], None]) -> dict[str, float]:
    """Stops when the scores are beside the checkpoint and not yet in the log."""
    scores = EVALUATE(session, after_batch)
    session.checkpoints._add_scores((session.checkpoints.root / "last").resolve(), scores)
    raise Stopped


def signal_within(session: Session, after_batch: Callable[[], None]) -> dict[str, float]:
    """Sends a signal while the evaluation is under way."""
    os.kill(os.getpid(), signal.SIGUSR1)
    return EVALUATE(session, after_batch)


def story(output: Path) -> list[dict]:
    """Returns the log without times."""
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("images_per_second", "data_wait", "memory_gb")} for r in records]


@pytest.fixture(scope="module")
def evaluated(images, test_images, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("evaluated")
    run(images, output, f"--knn_every 1 --knn_test {test_images} --knn_k 3")
    return output


@pytest.mark.parametrize("evaluate", [stop_before, stop_after, signal_within])
def test_a_lost_evaluation_is_made_up_for(images, test_images, evaluated, tmp_path, monkeypatch, evaluate):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    changes = f"--knn_every 1 --knn_test {test_images} --knn_k 3"
    monkeypatch.setattr(Session, "evaluate", evaluate)
    with pytest.raises(InterruptedRunError if evaluate is signal_within else Stopped):
        run(images, tmp_path, changes)
    monkeypatch.undo()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert not any("knn_k3_top1" in record for record in story(tmp_path))
    run(images, tmp_path, changes)
    assert story(tmp_path) == story(evaluated)
    assert [record["step"] for record in story(tmp_path) if "knn_k3_top1" in record] == [3, 6]
    for name in ("best.json", "step-00000003/evaluation.json"):
        a, b = (folder / "checkpoints" / name for folder in (tmp_path, evaluated))
        assert a.read_text() == b.read_text()
    assert (tmp_path / "checkpoints" / "best").resolve().name == (evaluated / "checkpoints" / "best").resolve().name
