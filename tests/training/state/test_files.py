# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a run's folder is whole, writable, shared, and that of one run at a time."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from modeling_esvit.storage.manifest import list_names
from tests.helpers.commands import make_environment, run_program, torchrun
from tests.helpers.tiny_runs import name_checkpoints, read_losses, tiny, train
from training.options.errors import OptionError
from training.state.files import FolderInUseError, UnwritableCheckpointError, replace_run_folder


TWO = "--batch_size 4"
mounting = pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="only root can mount")
HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write("process 7 on host")
file.flush()
print("held", flush=True)
sys.stdin.read()
"""
RACE = """
import sys
from pathlib import Path
from training.state.files import FolderInUseError, FolderLock
print("ready", flush=True)
for line in sys.stdin:
    lock = FolderLock(Path(line.strip()))
    try:
        lock.take()
        print("got it", flush=True)
    except FolderInUseError as error:
        print(error, flush=True)
    sys.stdin.readline()  # until both have tried
    lock.release()
    print("released", flush=True)
"""
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


def test_a_file_in_the_place_of_the_folder(labelled_images, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("")
    with pytest.raises(OptionError, match="run': '.*run/checkpoints' is a file where a folder has to be"):
        train(tiny(labelled_images, tmp_path / "run"))
    with pytest.raises(OptionError, match="checkpoints/run': '.*run/checkpoints' is a file where a folder has to be"):
        train(tiny(labelled_images, tmp_path / "run" / "checkpoints" / "run"))


def test_a_folder_takes_one_run_at_a_time(labelled_images, finished, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(FolderInUseError, match="Another run, process 7 on host, writes into"):
            train(tiny(labelled_images, tmp_path))
        assert not (tmp_path / "checkpoints").exists()
        other.kill()
    train(tiny(labelled_images, tmp_path))
    assert read_losses(tmp_path) == read_losses(finished)


@pytest.mark.slow
def test_of_two_runs_that_begin_at_one_instant_one_gets_the_folder(tmp_path):
    """A hundred times; the other says which process has it, or that it has not written its name yet."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": make_environment()}
    runs = [subprocess.Popen([sys.executable, "-c", RACE], **pipes) for _ in range(2)]

    def tell(line: str) -> list[str]:
        for run in runs:
            run.stdin.write(line + "\n")
            run.stdin.flush()
        return [run.stdout.readline().strip() for run in runs]

    assert [run.stdout.readline() for run in runs] == ["ready\n"] * 2
    for number in range(100):
        (folder := tmp_path / str(number)).mkdir()
        words = tell(str(folder))
        assert words.count("got it") == 1, words
        other = runs[words.index("got it")].pid
        refused = next(each for each in words if each != "got it")
        assert f"process {other} on " in refused or "which has not written its name yet" in refused
        assert tell("") == ["released"] * 2
    for run in runs:
        run.communicate()
        assert run.returncode == 0


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    for content in ("old", "new"):
        with replace_run_folder(tmp_path / "folder") as folder:
            (folder / content).write_text(content)
    with pytest.raises(UnwritableCheckpointError), replace_run_folder(tmp_path / "folder") as folder:
        (folder / "newest").write_text("newest")
        raise OSError("full")
    assert list_names(tmp_path) == ["folder/.manifest.json", "folder/new"]


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
def test_a_full_disk_stops_all_processes(labelled_images, tmp_path):
    """Mounts a disk with room for two checkpoints, the last one and one under way, and not for three."""
    train(tiny(labelled_images, tmp_path / "size", f"{TWO} --max_steps 1"))
    last = tmp_path / "size" / "checkpoints" / "step-00000001"
    size = sum(path.stat().st_size for path in last.rglob("*")) // 1024
    command = [*torchrun(2), "training/pretrain.py", *tiny(labelled_images, tmp_path / "run", f"{TWO} --save_every 1")]
    with mounted(tmp_path / "run", "-t", "tmpfs", "-o", f"size={2.6 * size:.0f}k", "full"):
        done = run_program([*command, "--keep_checkpoints", "2"], code=1)
        assert done.stderr.count("run/checkpoints cannot be written: ") == 1, done.stderr
        assert "No space left on device" in done.stderr and 'pretrain.py", line' not in done.stderr
        assert name_checkpoints(tmp_path / "run") == ["last", "step-00000001", "step-00000002"]
        done = run_program([*command, "--keep_checkpoints", "1"], code=1)  # room for the next is made after it
        assert done.stderr.count("1 more checkpoints of") == 1
        subprocess.run(["mount", "-o", "remount,size=100m", str(tmp_path / "run")], check=True)
        run_program(command)
        assert len(read_losses(tmp_path / "run")) == 6


@mounting
def test_a_read_only_folder_is_said_before_training(labelled_images, tmp_path):
    train(tiny(labelled_images, tmp_path / "run", "--max_steps 2"))
    with (
        mounted(tmp_path / "run", "--bind", "-o", "ro", str(tmp_path / "run")),
        pytest.raises(UnwritableCheckpointError, match=f"{tmp_path}/run cannot be written: .*Read-only"),
    ):
        train(tiny(labelled_images, tmp_path / "run"))
    train(tiny(labelled_images, tmp_path / "run", "--max_steps 3"))
    assert len(read_losses(tmp_path / "run")) == 3


@pytest.mark.slow
@mounting
def test_a_folder_that_is_another_one_elsewhere(labelled_images, tmp_path):
    """Gives the second process a file system of its own there, as another machine would have."""
    output = tmp_path / "run"
    output.mkdir()
    command = [*torchrun(2), "--no-python", "env", f"OUTPUT={output}", "sh", "-c", UNSHARED, "sh", sys.executable]
    done = run_program([*command, "-c", IMPATIENT, *tiny(labelled_images, output, TWO)], code=1)
    assert done.stderr.count(f"{output} is not shared: processes on ") == 1, done.stderr
    assert not any(output.iterdir())
