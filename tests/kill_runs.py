# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Kills pretraining runs at random instants, continues them, and compares what comes out with runs that nobody stopped.

    python tests/kill_runs.py --kills 100                               # folder, parquet and tar in turn
    python tests/kill_runs.py --kills 10 --source tar --processes 2     # by torchrun

Tiny runs of the real program: workers, shuffling, stochastic depth, checkpoints in the middle of epochs, k-NN after
each. A kill aims at a phase of the run, which the folder of the run tells, and comes a random time later; in which
phase it came is read from the folder afterwards. After each, every checkpoint with its final name must be whole. In the
end weights, moments, generators, log and best must be those of the uninterrupted run, bit for bit.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from safetensors.torch import load_file

from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.run_log import LOG, read_records
from tests.helpers.shard_server import write_parquet, write_tar
from tests.helpers.tiny_runs import tiny, write_images
from training.state.interruption import EXIT_CODE


ROOT = Path(__file__).resolve().parents[1]


SOURCES = ("folder", "parquet", "tar")
PHASES = ("start", "step", "save", "evaluation", "end")


class Aim(NamedTuple):
    weight: int
    longest: float  # seconds from the beginning of the phase to the kill


AIMS = {
    "start": Aim(1, 0.5),
    "step": Aim(3, 0.1),
    "save": Aim(4, 0.05),
    "evaluation": Aim(3, 0.2),
    "end": Aim(2, 0.1),
}
STOPS = (*[signal.SIGKILL] * 7, *[signal.SIGTERM] * 2, signal.SIGUSR1)
EPOCHS, STEPS_PER_EPOCH = 5, 3
LAST_STEP = EPOCHS * STEPS_PER_EPOCH
OPTIONS = f"--epochs {EPOCHS} --workers 2 --drop_path_rate 0.3 --save_every 2 --knn_every 1 --knn_k 3"
TIMES = ("images_per_second", "data_wait", "memory_gb")
LIMIT = 240  # seconds for a run; one that waits for something that does not come is a failure


class KillError(AssertionError):
    """Raised when a run did not outlive a kill."""


def write_data(source: str, folder: Path) -> tuple[Path, str]:
    """Writes 29 images, 3 steps of 8 an epoch and some left over; returns what to train on, and further options."""
    folder.mkdir()
    if source == "folder":
        return write_images(folder / "images", 29), ""
    write = write_parquet if source == "parquet" else write_tar
    write(folder, [11, 2, 16], size=48)
    return folder / f"*.{source}", "--streaming True --shuffle_window 7"


class Run:
    """Holds the folder of a run, and the process that works there, if any."""

    def __init__(self, arguments: list[str], output: Path, processes: int):
        self.arguments, self.output, self.processes = arguments, output, processes
        self.checkpoints = output / "checkpoints"

    def start(self) -> None:
        self.started = time.time()
        self.finished_before = self.step()
        self.shown = self.output.with_suffix(".txt").open("a")
        if self.processes == 1:
            self.pid = self.fork()
        else:
            torchrun = [str(Path(sys.executable).with_name("torchrun")), "--standalone"]
            torchrun += ["--nproc_per_node", str(self.processes), "training/pretrain.py", *self.arguments]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            started = subprocess.Popen(torchrun, cwd=ROOT, env=environment, stdout=self.shown, stderr=self.shown)
            self.pid = started.pid
        self.process = psutil.Process(self.pid)

    def fork(self) -> int:
        """Forks a process for the program, which need not import everything again."""
        pid = os.fork()
        if pid:
            return pid
        os.setsid()
        for descriptor in (1, 2):
            os.dup2(self.shown.fileno(), descriptor)
        code = 1
        try:
            main_program(self.arguments)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
            print(error, file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def ended(self) -> bool:
        return not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE

    def code(self) -> int:
        """Waits for the end and returns the code; a negative one is the signal that ended it."""
        while not self.ended():
            if time.time() - self.started > LIMIT:
                self.stop(signal.SIGKILL)
                raise KillError(f"{self.output} did not end within {LIMIT} s; see {self.shown.name}.")
            time.sleep(0.01)
        self.shown.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def stop(self, number: int) -> None:
        """Sends a signal to every process of the run, as a scheduler does."""
        everyone = [self.process, *self.process.children(recursive=True)]
        for process in everyone:
            if process.is_running():
                process.send_signal(number)
        if number == signal.SIGKILL:
            psutil.wait_procs(everyone[1:], timeout=10)

    def log(self) -> list[dict]:
        """Reads the values of the log that are the same in every run, without an unfinished line."""
        records, _ = read_records(self.output / LOG)
        return [{name: value for name, value in record.items() if name not in TIMES} for record in records]

    def saved(self) -> list[Path]:
        return sorted(path for path in self.checkpoints.glob("step-*") if path.suffix != ".partial")

    def step(self) -> int:
        return int(self.saved()[-1].name[5:]) if self.saved() else 0

    def phase(self) -> str:
        """Returns what the run does now, or did when it was killed."""
        options = self.output / "options.yaml"
        if not options.exists() or options.stat().st_mtime < self.started:
            return "start"  # until then it looks for what there is to continue
        partial = self.checkpoints.glob("step-*.partial")
        if any(path.stat().st_mtime >= self.started for path in partial):  # others are of earlier kills
            return "save"
        step, log = self.step(), self.log()
        scored = step == 0 or (self.saved()[-1] / "evaluation.json").exists()
        if step % STEPS_PER_EPOCH == 0 and not scored:
            return "evaluation"
        if step == LAST_STEP:
            return "end"
        return "step" if self.has_stepped(log) else "start"

    def has_stepped(self, log: list[dict]) -> bool:
        """Returns whether the run has taken a step since it was started.

        Until then, its log may hold steps of an earlier start that were not saved; it drops them as it begins.
        """
        path = self.output / "log.jsonl"
        return bool(log) and path.stat().st_mtime >= self.started and log[-1]["step"] > self.finished_before


def main_program(arguments: list[str]) -> None:
    from training.pretrain import main

    torch.set_num_threads(1)
    main(arguments)


def in_phase(run: Run, aim: str) -> bool:
    try:
        return run.phase() == aim
    except (OSError, ValueError):  # something was renamed while we looked
        return False


def wait_for(run: Run, aim: str, generator: random.Random) -> bool:
    """Waits until the run enters that phase, and a random time more; returns False if it ended."""
    times = 0 if aim == "start" else 1 if aim == "end" else generator.randint(1, 3)
    for wanted in [False, True] * times:
        while in_phase(run, aim) != wanted:
            if run.ended():
                return False
            time.sleep(0.0005)
    time.sleep(generator.uniform(0, AIMS[aim].longest))
    return not run.ended()


def check(run: Run) -> None:
    """Checks that what has its final name is whole, and that the links lead to it."""
    for folder in run.saved():
        for name in ("student", "teacher"):
            load_file(folder / name / "model.safetensors")
        state = folder / "training_state"
        for path in (state / "training.pt", *(state / f"rng-{rank}.pt" for rank in range(run.processes))):
            torch.load(path, weights_only=True)
        if f"step-{json.loads((state / 'progress.json').read_text())['step']:08d}" != folder.name:
            raise KillError(f"{folder} holds another step.")
    for link in (run.checkpoints / "last", run.checkpoints / "best"):
        if link.is_symlink() and link.resolve() not in [folder.resolve() for folder in run.saved()]:
            raise KillError(f"{link} leads to {link.resolve()}, which is no checkpoint.")
    if run.saved() and len(run.saved()) > 1 and not (run.checkpoints / "last").is_symlink():
        raise KillError(f"{run.checkpoints} has no link `last`.")


def check_code(run: Run, number: int, phase: str, code: int) -> None:
    """Checks the documented code, unless the run had not begun or was about to end. Launchers have their own codes."""
    if number == signal.SIGKILL or run.processes > 1 or phase in ("start", "end"):
        return
    passing = {EXIT_CODE}
    if run.step() == LAST_STEP:
        passing |= {0, -number, 128 + number}
    if not run.has_stepped(run.log()):  # what looks like an evaluation that is made up for may still be a start
        passing |= {-number, 128 + number}
    if code not in passing:
        raise KillError(f"{signal.Signals(number).name} in phase {phase} ended with code {code}; see {run.shown.name}.")


def kill(run: Run, generator: random.Random) -> tuple[str, str] | None:
    """Kills a started run once; returns phase and signal, or None if it ended before."""
    aim = generator.choices(list(AIMS), [aim.weight for aim in AIMS.values()])[0]
    number = generator.choice(STOPS)
    if not wait_for(run, aim, generator):
        return None
    phase = next((phase for phase in PHASES if in_phase(run, phase)), aim)
    run.stop(number)
    code = run.code()
    if number == signal.SIGKILL:
        phase = run.phase()
    check(run)
    check_code(run, number, phase, code)
    return phase, signal.Signals(number).name


def kill_and_continue(run: Run, kills: int, generator: random.Random) -> Counter[tuple[str, str]]:
    """Kills a run up to so many times, and continues it to its end."""
    counted: Counter[tuple[str, str]] = Counter()
    leftovers = 0
    while True:
        leftovers += any(run.checkpoints.glob("step-*.partial"))
        run.start()
        killed = kill(run, generator) if counted.total() < kills else None
        if killed is not None:
            counted[killed] += 1
        elif (code := run.code()) == 0:
            break
        else:
            raise KillError(f"{run.output} ended with code {code}; see {run.shown.name}.")
    if leftovers and "Ignoring the incomplete checkpoint" not in Path(run.shown.name).read_text():
        raise KillError(f"{run.shown.name} does not name the incomplete checkpoint.")
    return counted


def same(a: object, b: object) -> bool:
    """Returns whether nested states are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, type(a)) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def results(run: Run) -> dict[str, object]:
    """Reads all that a run leaves."""
    last = run.checkpoints / f"step-{LAST_STEP:08d}"
    state = last / "training_state"
    return {
        "student": load_file(last / "student" / "model.safetensors"),
        "teacher": load_file(last / "teacher" / "model.safetensors"),
        "published teacher": load_file(run.output / "teacher" / "model.safetensors"),
        "optimizer": torch.load(state / "training.pt", weights_only=True),
        "generators": [torch.load(state / f"rng-{rank}.pt", weights_only=True) for rank in range(run.processes)],
        "log": run.log(),
        "best": (json.loads((run.checkpoints / "best.json").read_text()), (run.checkpoints / "best").resolve().name),
    }


def compare(run: Run, whole: Run) -> None:
    expected = results(whole)
    for name, value in results(run).items():
        if not same(value, expected[name]):
            raise KillError(f"{name} of {run.output} is not that of {whole.output}, which nobody stopped.")


def run_source(source: str, processes: int, kills: int, generator: random.Random, folder: Path) -> Counter:
    """Kills runs of one source so many times in all, and compares each to one that was not killed."""
    folder.mkdir()
    data, options = write_data(source, folder / "data")
    test = write_images(folder / "bank", 26, classes="ab"), write_images(folder / "test", 40, classes="ab")
    options += f" {OPTIONS} --batch_size {8 // processes} --knn_train {test[0]} --knn_test {test[1]}"
    whole = Run(tiny(data, folder / "whole", options), folder / "whole", processes)
    kill_and_continue(whole, 0, generator)
    counted: Counter[tuple[str, str]] = Counter()
    for number in range(1, 1 + kills):
        output = folder / f"killed-{number}"
        run = Run(tiny(data, output, options), output, processes)
        counted += kill_and_continue(run, kills - counted.total(), generator)
        compare(run, whole)
        if counted.total() == kills:
            break
    print(f"{source}: {counted.total()} kills in {number} runs of {processes} processes, all continued exactly")
    return counted


def show(counted: Counter[tuple[str, str]]) -> None:
    names = [signal.Signals(number).name for number in dict.fromkeys(STOPS)]
    print(f"{'phase':<12}" + "".join(f"{name:>9}" for name in names) + f"{'all':>9}")
    for phase in PHASES:
        row = [counted[phase, name] for name in names]
        print(f"{phase:<12}" + "".join(f"{count:>9}" for count in (*row, sum(row))))
    print(f"{'all':<12}" + "".join(f"{sum(counted[p, name] for p in PHASES):>9}" for name in names), end="")
    print(f"{counted.total():>9}")


def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kills in all")
    parser.add_argument("--seed", type=int, default=0, help="seed of phases, signals and delays")
    parser.add_argument("--source", choices=SOURCES, nargs="+", default=SOURCES, help="data of the runs (default: all)")
    parser.add_argument("--processes", type=int, default=1, help="processes of a run")
    arguments = parser.parse_args()
    import evaluate  # noqa: F401  (once, for all runs that are forked from here)

    import training.pretrain  # noqa: F401

    generator = random.Random(arguments.seed)
    counted: Counter[tuple[str, str]] = Counter()
    started = time.time()
    folder = Path(tempfile.mkdtemp(prefix="kill_runs-"))
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)  # killed runs leave folders there
    for index, source in enumerate(arguments.source):
        kills = (arguments.kills - counted.total()) // (len(arguments.source) - index)
        counted += run_source(source, arguments.processes, kills, generator, folder / source)
    show(counted)
    print(f"{time.time() - started:.0f} s")
    shutil.rmtree(folder)  # of a failure, everything is kept


if __name__ == "__main__":
    main()
