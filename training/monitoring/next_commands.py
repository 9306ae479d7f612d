# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The commands that a run names at its end, as they can be pasted into a shell: to go on, and to publish."""

import shlex
import shutil
import sys
from pathlib import Path

import psutil


PROGRAMS = Path(__file__).resolve().parents[1]
SCRIPT = PROGRAMS / "pretrain.py"
PUBLISH = PROGRAMS / "publish.py"


def started_by() -> list[str]:
    """The command line that started this process, with its launcher: that of the furthest process above it whose last
    arguments are the script and its own, such as `torchrun`, `accelerate launch` or `timeout`.
    """
    command = list(sys.orig_argv)
    for process in psutil.Process().parents():
        try:
            line = process.cmdline()
        except psutil.Error:  # of another user, or ended meanwhile
            break
        if line[-len(sys.argv) :] == sys.argv:
            command = line
    return as_typed(command)


def as_typed(command: list[str]) -> list[str]:
    """Without the interpreter of a script that is found by its name: `python /usr/bin/torchrun` is `torchrun`."""
    if len(command) > 1 and shutil.which(Path(command[1]).name) == command[1]:
        return [Path(command[1]).name, *command[2:]]
    return command


def resume_command(output_dir: str, max_steps: int) -> str:
    """What continues the run from its last checkpoint. A run that was not started as a program is continued with the
    options in its folder. A limit of steps, which it has reached, is lifted.
    """
    if Path(sys.argv[0]).name == SCRIPT.name:
        command = started_by()
    else:
        command = [sys.executable, str(SCRIPT), "--recipe", str(Path(output_dir).absolute() / "options.yaml")]
    lifted = ["--max_steps", "0"] if max_steps else []
    return f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join([*command, *lifted])}"


def publish_command(output_dir: str) -> str:
    """What puts the run's model on the Hub, under the folder's name; USER is to be replaced."""
    folder = Path(output_dir).absolute()
    return shlex.join([sys.executable, str(PUBLISH), str(folder), "--repo_id", f"USER/{folder.name}"])
