# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks on one GPU, in minutes, all that no other test can: numbers, kernels, memory, and how fast a step is.

    python tests/gpu/check_gpu.py --output FOLDER                    # all stages, at most 9 minutes
    python tests/gpu/check_gpu.py --output FOLDER --stages golden step_compiled
    python tests/gpu/check_gpu.py --output FOLDER --device cpu --tiny      # tries the script itself

Needs torch, transformers, accelerate and numpy, what these bring along, and what reads images: Pillow and OpenCV. Each
stage runs in a process of its own with a time limit; `report.json` is written after each, and a stage that fails does
not stop the others. The exit code is 1 if a stage failed. The last stage runs tests of the suite, where pytest is
installed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


ROOT = Path(__file__).resolve().parents[2]
LIMIT = 540.0  # seconds for all stages together
SHOWN = 4000  # characters of a failed stage's last words that go into the report


@dataclass(frozen=True)
class Stage:
    """Names a function of one of the modules beside this file, and the seconds that it may take."""

    function: str
    seconds: float


STAGES = {
    "machine": Stage("numerics:describe_machine", 30),
    "golden": Stage("numerics:check_golden_outputs", 60),
    "trajectory": Stage("numerics:check_trajectory", 60),
    "attention": Stage("kernels:check_attention", 40),
    "updates": Stage("kernels:check_updates", 30),
    "augmentation": Stage("kernels:check_augmentation", 90),
    "program": Stage("programs:check_program", 120),
    "waits": Stage("programs:check_waits", 60),
    "serving": Stage("programs:check_serving", 60),
    "step_eager": Stage("speed:time_eager_step", 60),
    "step_compiled": Stage("speed:time_compiled_step", 180),
    "step_small": Stage("speed:time_small_step", 60),
    "step_reference": Stage("speed:time_reference_step", 60),
    "profile": Stage("speed:profile_step", 60),
    "loss": Stage("speed:time_loss", 60),
    "loader": Stage("programs:time_loader", 60),
    "architectures": Stage("speed:time_architectures", 90),
    "tests": Stage("suite:run_tests", 240),
}


def run_stage(name: str, arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Runs one stage in a process of its own, and returns what the report says of it."""
    folder = arguments.output / name
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.gpu.run_stage", STAGES[name].function, str(folder), arguments.device]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    started = time.monotonic()
    status, words = run_session(command + ["--tiny"] * arguments.tiny, environment, seconds, folder / "output.txt")
    report = json.loads(result.read_text()) if result.is_file() else {}
    report |= {"status": status, "seconds": round(time.monotonic() - started, 1)}
    return report if status == "ok" else {**report, "last_words": words[-SHOWN:]}


def run_session(command: list[str], environment: dict[str, str], seconds: float, output: Path) -> tuple[str, str]:
    """Runs a command for so many seconds at most; returns how it ended, and what it printed, which `output` keeps.

    No program that it started outlives it: it would go on using the device.
    """
    with output.open("w") as printed:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = "ok" if process.wait(seconds) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = f"stopped after {seconds:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return status, output.read_text(errors="replace")


def describe(name: str, report: dict[str, Any]) -> str:
    """Returns one line on a stage, and one on each check that does not hold."""
    broken = [check for check in report.get("checks", []) if not check["holds"]]
    lines = [f"{name:<15} {report['status']:<8} {report['seconds']:6.1f} s  {len(report.get('checks', []))} checks"]
    lines += [f"    {check['name']}: {float(check['value']):.3g}, limit {check['limit']:.3g}" for check in broken]
    if report["status"] != "ok" and not broken:
        lines.append("    " + (report.get("last_words", "").strip().splitlines() or ["without a word"])[-1])
    return "\n".join(lines)


def run_all(arguments: argparse.Namespace) -> bool:
    """Runs the stages one after the other while there is time. Returns whether all of them ended well."""
    arguments.output.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"device": arguments.device, "tiny": arguments.tiny, "stages": {}}
    deadline = time.monotonic() + arguments.limit
    for name in arguments.stages:
        seconds = min(STAGES[name].seconds * (5 if arguments.tiny else 1), deadline - time.monotonic())
        if seconds > 1:
            found = run_stage(name, arguments, seconds)
        else:
            found = {"status": "not run", "seconds": 0.0, "last_words": f"All {arguments.limit:.0f} s were used up."}
        report["stages"][name] = found
        (arguments.output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        print(describe(name, found), flush=True)
    return all(stage["status"] == "ok" for stage in report["stages"].values())


def read_arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for report.json and what the stages print")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=[*STAGES], metavar="STAGE", help=", ".join(STAGES)
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu, ... (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="networks and images of a test, on any device")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for all stages (default: %(default)s)")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = read_arguments(sys.argv[1:] if words is None else words)
    try:
        is_good = run_all(arguments)
    except OSError as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
