# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures whether a long run leaks; it takes an hour or more.

    python tests/long_run.py /tmp/long --minutes 70

The program pretrains on the bundled photographs, streamed from parquet files, with workers, checkpoints and k-NN
evaluations. It notes every ten seconds the resident memory of the run and of its workers (proportional set size), its
open files and its processes. In the end it fits a line to what came after the first ten minutes, and draws it.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from modeling_esvit.programs.parser import ProgramParser


ROOT = Path(__file__).resolve().parents[1]
NETWORK = "--embed_dim 16 --depths 1 1 2 1 --num_heads 1 2 4 8 --num_prototypes 256 --head_hidden_size 64"
RUN = "--epochs 100000 --batch_size 8 --workers 2 --save_every 1000 --knn_every 10 --knn_k 20 --tracker none"
WARM = 600  # seconds that are left out of the fit
EVERY = 10


def processes_of(pid: int) -> list[int]:
    """Returns a process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += processes_of(int(child))
    return found


def memory(pid: int) -> float:
    """Returns the resident MB, with a share of shared pages."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def sample(pid: int, log: Path) -> dict[str, float]:
    """Measures what the run uses now, and how many steps it has done."""
    pids = processes_of(pid)
    steps = json.loads(log.read_text().splitlines()[-1])["step"] if log.exists() and log.stat().st_size else 0
    return {
        "main_mb": memory(pid),
        "all_mb": sum(memory(each) for each in pids),
        "processes": len(pids),
        "files": sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in pids),
        "step": steps,
    }


def watch(command: list[str], log: Path, minutes: float, output: Path) -> list[dict[str, float]]:
    """Runs the command for so long, and returns the samples, which `output` also gets a line at a time."""
    samples = []
    started = time.monotonic()
    with subprocess.Popen(command) as process, output.open("w") as lines:
        while process.poll() is None and time.monotonic() - started < 60 * minutes:
            time.sleep(EVERY)
            try:
                values = sample(process.pid, log)
            except (OSError, json.JSONDecodeError):
                continue  # a process ended meanwhile, or a line of the log is being written
            samples.append({"second": time.monotonic() - started, **values})
            lines.write(json.dumps(samples[-1]) + "\n")
            lines.flush()
        process.send_signal(signal.SIGTERM)
    print(f"the run ended with code {process.returncode}")
    return samples


def growth(samples: list[dict[str, float]], name: str) -> float:
    """Returns the growth of `name` per 1000 steps, by a line through what came after the first ten minutes."""
    warm = [values for values in samples if values["second"] > WARM]
    steps = np.array([values["step"] for values in warm]) / 1000
    return float(np.polyfit(steps, [values[name] for values in warm], 1)[0])


def draw(samples: list[dict[str, float]], path: Path) -> None:
    figure = Figure(figsize=(9, 6), layout="constrained")
    minutes = [values["second"] / 60 for values in samples]
    for axes, names in zip(figure.subplots(2, 1), (("main_mb", "all_mb"), ("processes", "files")), strict=True):
        for name in names:
            axes.plot(minutes, [values[name] for values in samples], label=name)
        axes.axvline(WARM / 60, color="grey", linewidth=0.8)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("minutes")
        axes.set_ylabel("MB" if "main_mb" in names else "number")
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("folder", type=Path, help="for data, run and figures; it must not exist")
    parser.add_argument("--minutes", type=float, default=70, help="minutes of the run")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    data, run = options.folder / "photographs", options.folder / "run"
    make = [sys.executable, str(ROOT / "examples" / "photographs.py"), str(data)]
    subprocess.run(
        [*make, "--patch_size", "96", "--train_per_photograph", "150", "--test_per_photograph", "20"], check=True
    )
    command = [sys.executable, str(ROOT / "training" / "pretrain.py"), "--recipe", "demo", "--output", str(run)]
    command += ["--data", f"{data}/train-*.parquet", "--streaming", *NETWORK.split(), *RUN.split()]
    command += ["--knn_train", f"{data}:train", "--knn_test", f"{data}:test"]
    samples = watch(command, run / "log.jsonl", options.minutes, options.folder / "samples.jsonl")
    draw(samples, options.folder / "memory.png")
    last = samples[-1]
    print(f"{last['step']} steps in {last['second'] / 60:.0f} minutes; at the end {last['processes']} processes, "
          f"{last['files']} open files, {last['main_mb']:.0f} MB and with workers {last['all_mb']:.0f} MB")  # fmt: skip
    for name in ("main_mb", "all_mb", "files", "processes"):
        print(f"{name}: {growth(samples, name):+.3f} per 1000 steps after the first ten minutes")


if __name__ == "__main__":
    main()
