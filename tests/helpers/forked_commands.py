# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs many small Python programs in forks of a process that has imported the libraries.

Otherwise these imports take most of the time:

    with ForkedCommands(environment) as commands:
        code, output = commands.run(["training/knn.py", "model", ...], folder)

A program is given as to `python`: a script, `-m module` or `-c code`, and its arguments. No module of this project is
imported beforehand, and each program sees the modules and the environment of a new process but for the libraries.
"""

import atexit
import importlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType


LIBRARIES = (
    *("accelerate", "datasets", "evaluate", "matplotlib.pyplot", "skimage.data", "sklearn.manifold", "timm", "torch"),
    *("torchvision.transforms.v2", "transformers.pipelines", "transformers.trainer"),
)


class ForkedCommands:
    """Holds the process that forks; its environment is that of all programs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)

    def __enter__(self) -> "ForkedCommands":
        pipes: dict = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, __file__], env=self.environment, **pipes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate()

    def run(self, arguments: Sequence[str], folder: Path) -> tuple[int, str]:
        """Runs a program in `folder`, and returns its exit code, and standard output and error together."""
        assert self.process.stdin is not None and self.process.stdout is not None
        output = folder / "output.txt"
        self.process.stdin.write(json.dumps([list(arguments), str(folder), str(output)]) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        text = output.read_text()
        output.unlink()
        return code, text


# -- the process -------------------------------------------------------------------------------------------------------


def execute(arguments: list[str]) -> None:
    """Runs what `python ARGUMENTS` would run."""
    first, *rest = arguments
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(first).resolve().parent)
        runpy.run_path(os.path.abspath(first), run_name="__main__")


def exit_code(arguments: list[str]) -> int:
    try:
        execute(arguments)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # as the interpreter does
        traceback.print_exc()
        return 1
    return 0


def run_child(arguments: list[str], folder: str, output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    code = exit_code(arguments)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run_child(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
