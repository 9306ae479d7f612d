# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Starts trackers of Accelerate, several at once. What they write on this machine lies in the run's folder."""

import importlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from training.options.errors import OptionError
from training.options.pretrain_options import PretrainOptions
from training.options.public_options import select_public_options
from training.state.provenance_record import read_provenances


PROJECT = "esvit"
RUN_NAME = "tracked_as"  # the file that holds the name, so that a continued run keeps it
PACKAGES = {"tensorboard": "torch.utils.tensorboard"}  # if the name is not the tracker's own


def list_trackers(options: PretrainOptions) -> list[str]:
    """Returns the names of the trackers; none for "none"."""
    return [name for name in options.tracker if name != "none"]


def check_trackers(options: PretrainOptions) -> None:
    """Imports the trackers, and looks for the login of those that send their values away.

    Raises:
        OptionError: Some are unknown, not installed (Accelerate would silently leave them out), or not logged in.
    """
    # trackio reads it when it is imported.
    os.environ.setdefault("TRACKIO_DIR", str(Path(options.output).resolve() / "trackio"))
    problems = [problem for name in list_trackers(options) for problem in find_problems(name)]
    if problems:
        raise OptionError("\n".join(problems))


def find_problems(name: str) -> list[str]:
    """Returns a sentence if the tracker cannot be used."""
    known = [known for known in LoggerType.list() if known != "all"]
    if name not in known:
        return [f"There is no tracker {name!r}; known: none, {', '.join(known)}."]
    if name not in map(str, get_available_trackers()):
        return [f"The tracker {name!r} is not installed; install it or use --tracker none."]
    package = PACKAGES.get(name, name)
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        return [f"The tracker {name!r} is installed, but importing {package} fails: {error}"]
    if name == "wandb" and module.setup().settings.mode == "online":
        return find_login_problems(module)
    return []


def find_login_problems(wandb: ModuleType) -> list[str]:
    """Returns a sentence if wandb has no valid login."""
    try:
        if wandb.login(prompt=False):
            return []
        reason = "no key was found; run `wandb login`"
    except wandb.Error as error:  # a wrong key, or no way to the server
        reason = str(error).rstrip(".")
    return [f"The tracker 'wandb' is not logged in: {reason}. WANDB_MODE=offline needs no login."]


def start_trackers(accelerator: Accelerator, options: PretrainOptions, step: int) -> None:
    """Starts the trackers, or continues them after `step` steps, under the name that the run's folder holds."""
    settings = make_tracker_settings(Path(options.output), step) if accelerator.is_main_process else {}
    accelerator.init_trackers(PROJECT, make_hyperparameters(options), settings)


@contextmanager
def outlive_tracker(say: Callable[[str], None]) -> Iterator[None]:
    """Says that a tracker could not write, in the block: a full disk is no reason to stop the run."""
    try:
        yield
    except OSError as error:
        say(f"Warning: a tracker has lost values, which the log has: {error}")


@contextmanager
def hide_writer_traceback() -> Iterator[None]:
    """Lets the thread in which TensorBoard writes end without a traceback, within the block, when it cannot write.

    The same error is raised at the next value, where `outlive_tracker` says it.
    """
    before = threading.excepthook

    def show(arguments: threading.ExceptHookArgs) -> None:
        is_writer = type(arguments.thread).__module__.startswith("tensorboard.")
        if not (is_writer and isinstance(arguments.exc_value, OSError)):
            before(arguments)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = before


def end_trackers(accelerator: Accelerator, say: Callable[[str], None]) -> None:
    """Ends each tracker, and the exchange between processes."""
    for tracker in accelerator.trackers:
        with outlive_tracker(say):
            tracker.finish()
    accelerator.trackers = []
    accelerator.end_training()


def make_hyperparameters(options: PretrainOptions) -> dict[str, bool | int | float | str]:
    """Returns the public options as trackers take them: numbers stay numbers, and lists and None become text."""
    public = select_public_options(asdict(options), read_provenances(Path(options.output)))
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in public.items()
    }


def make_tracker_settings(folder: Path, step: int) -> dict[str, dict[str, Any]]:
    """Returns the settings of each tracker that let it continue after `step` steps."""
    name = read_run_name(folder)
    return {
        "tensorboard": {"purge_step": step + 1},  # hides what a killed run wrote after the checkpoint
        "wandb": {"dir": str(folder), "id": name, "name": name, "resume": "allow"},
        "trackio": {"name": name, "resume": "allow"},
    }


def read_run_name(folder: Path) -> str:
    """Returns the run's name, made once of its folder's name and something unique."""
    path = folder / RUN_NAME
    if not path.exists():
        path.write_text(f"{folder.resolve().name}-{uuid.uuid4().hex[:8]}\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
