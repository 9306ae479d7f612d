# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Kills one of two processes of evaluations, as the kernel does for want of memory: the other says so."""

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from modeling_esvit.embed.files import load_features
from tests.helpers.commands import make_environment, run_program
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import write_images, write_model
from tests.helpers.waiting import wait_for


pytestmark = pytest.mark.slow
PART = "**/part-*.safetensors"
BEGUN = "**/*.parts/settings.json"  # of a program whose images here are a single part
STATE = "**/state-*[0-9]"
# The program, what it gets beside MODEL, DATA (a folder of two splits) and OUTPUT, its result, what shows that it works
PROGRAMS = {
    "knn": ("training/knn.py MODEL --train DATA/a --test DATA/b --features OUTPUT --part_size 1", "json", PART),
    "linear_features": (
        *("training/linear_features.py MODEL --train DATA/a --test DATA/b --features OUTPUT --part_size 1", "json"),
        PART,
    ),
    "transfer": ("training/transfer.py MODEL --data own=DATA:a:b --part_size 1", "json", PART),
    "correspondence": ("training/correspondence.py MODEL --data DATA/a --measures crops", "json", BEGUN),
    "linear_probe": (
        "training/linear_probe.py MODEL --train DATA/a --test DATA/b --epochs 9 --n_last_blocks 1",
        "",
        STATE,
    ),
    "embed": ("-m modeling_esvit.embed MODEL DATA --part_size 1", "npz", PART),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Returns a folder of a model and of labelled images."""
    folder = tmp_path_factory.mktemp("given")
    write_model(folder / "model")
    for split in "ab":
        write_images(folder / "data" / split, 60, classes="xy")
    return folder


def make_command(name: str, folder: Path, output: Path) -> tuple[list[str], Path]:
    """Returns the command of a program, and the file of its result."""
    words, suffix, _ = PROGRAMS[name]
    places = {"MODEL": folder / "model", "DATA": folder / "data", "OUTPUT": output}
    for place, path in places.items():
        words = words.replace(place, str(path))
    result = output / f"result.{suffix}" if suffix else output
    command = ["python", *words.split(), "--output", str(result), "--workers", "1", "--device", "cpu"]
    return command, result if suffix else output / "result.json"


def read(result: Path) -> object:
    if result.suffix == ".json":
        return {name: value for name, value in json.loads(result.read_text()).items() if name != "command"}
    features = load_features(result)
    return features.names, features.view.tolist()


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_is_reported_by_the_other(folder, tmp_path, name, lost):
    """Also whatever was begun is continued: by as many processes, and with the result of a call that nobody stopped."""
    command, result = make_command(name, folder, tmp_path / "killed")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}

    def start() -> list[subprocess.Popen]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = [make_environment(RANK=rank, LOCAL_RANK=rank, TMPDIR=str(tmp_path), **group) for rank in "01"]
        return [subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) for environment in ranks]

    processes = start()
    wait_for(lambda: any(tmp_path.glob(PROGRAMS[name][2])), 300)
    processes[lost].send_signal(signal.SIGKILL)
    shown, _ = processes[1 - lost].communicate(timeout=60)
    assert processes[lost].wait() == -signal.SIGKILL and processes[1 - lost].returncode == 1, shown
    assert f"error: Process {1 - lost} of 2 (counted from 0) lost another one" in shown and "Traceback" not in shown
    assert not result.exists()
    again = [process.communicate(timeout=300)[0] for process in start()]
    assert result.exists(), again
    if name != "linear_probe":  # whose steps are shares of the processes
        whole, expected = make_command(name, folder, tmp_path / "whole")
        run_program(whole)
        assert read(result) == read(expected)
