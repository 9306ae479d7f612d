# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Pushes each best teacher to the Hub while training goes on (`--push_to_hub`).

A push is `publish.py` in a process of its own, on a copy of the checkpoint in `OUTPUT/hub/`: training neither waits
for it nor fails with it. Only one push runs at a time; if several teachers become best meanwhile, the newest is pushed
next. Each reason for a failure is reported once; the push is tried again with the next best teacher, and at the end of
the run. The token stays in the environment or the login, where the process finds it by itself.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from huggingface_hub import get_token
from tqdm.auto import tqdm

from modeling_esvit.storage.atomic import replace_folder, write_text
from modeling_esvit.storage.manifest import MANIFEST, name_record, read_json, remove_folder
from modeling_esvit.storage.run_folders import OPTIONS, check_whole
from modeling_esvit.storage.run_log import LOG
from modeling_esvit.storage.weights_record import RECORD
from training.options.hub_names import check_repo_id
from training.state.checkpoint_folders import PROGRESS, find_best


PUBLISH = Path(__file__).resolve().parents[1] / "publish.py"
LAST_PUSH_SECONDS = 900  # how long a run waits for its last push
NICENESS = 10  # more than the run's
# A push needs no GPU, and should leave the CPUs to the run.
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def make_pusher(repo_id: str | None, output_dir: str, is_main_process: bool) -> "Pusher":
    """Returns the pusher of a run, or one that pushes nothing.

    Raises:
        OptionError: `repo_id` is no name of a repository.
    """
    if repo_id is not None:
        check_repo_id(repo_id)
    return HubPush(repo_id, Path(output_dir)) if repo_id is not None and is_main_process else NoPush()


class Pusher(AbstractContextManager):
    """Describes when a run pushes. Left early, it ends a push; the next start of the run begins it again."""

    @abstractmethod
    def offer_best(self) -> None:
        """Pushes the best teacher unless it was offered before. Called after each evaluation."""

    @abstractmethod
    def poll(self) -> None:
        """Reports a push that has ended, and begins the next if one waits. Called after each checkpoint."""

    @abstractmethod
    def finish(self) -> None:
        """Waits for the last push. Called at the end of the run."""


class NoPush(Pusher):
    """Pushes nothing."""

    def offer_best(self) -> None:
        pass

    def poll(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        pass


class HubPush(Pusher):
    """Pushes the teachers of a run, from its main process."""

    def __init__(
        self,
        repo_id: str,
        output_dir: Path,
        say: Callable[[str], None] = tqdm.write,
        last_push_seconds: float = LAST_PUSH_SECONDS,
    ):
        self.repo_id, self.output_dir, self.say = repo_id, output_dir, say
        self.last_push_seconds = last_push_seconds
        self.folder = output_dir / "hub"
        self.process: subprocess.Popen | None = None
        self.offered: str | None = None
        self.pushing: str | None = None
        self.said: set[str] = set()

    def __enter__(self) -> "HubPush":
        if get_token() is None:
            self.say(
                f"Warning: there is no token to push to {self.repo_id} with. Log in with `hf auth login`, or set "
                "HF_TOKEN, before the next start. Training goes on without pushing."
            )
        for name in ("next", "current"):
            remove_folder(self.folder / name)
        self.offer_best()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is not None:
            self.stop()

    # -- what to push --------------------------------------------------------------------------------------------------

    def offer_best(self) -> None:
        best = find_best(self.output_dir / "checkpoints")
        if best is not None and best not in (self.offered, self.last_pushed()):
            self.offer(best)
        self.poll()

    def offer(self, name: str) -> None:
        """Copies a checkpoint, or the final model (`final`), to be pushed next."""
        try:
            self.copy(name)
        except OSError as error:  # a full disk, or a damaged checkpoint, ends the push, not the run
            self.warn(str(error))
        else:
            self.offered = name

    def copy(self, name: str) -> None:
        """Writes the run `OUTPUT/hub/next`, which holds this model alone: old checkpoints are deleted meanwhile."""
        checkpoint = self.output_dir / "checkpoints" / ("last" if name == "final" else name)
        check_whole(checkpoint / "teacher")
        with replace_folder(self.folder / "next") as copy:
            state = copy / "checkpoints" / ("last" if name == "final" else "best")
            (state / "training_state").mkdir(parents=True)
            shutil.copy(checkpoint / PROGRESS, state / PROGRESS)
            shutil.copy(checkpoint / MANIFEST, state)  # by which publish.py compares them, as those of the run
            for file in (OPTIONS, RECORD):
                shutil.copy(self.output_dir / name_record(file), copy)
            for file in (OPTIONS, RECORD, LOG):
                shutil.copy(self.output_dir / file, copy)
            shutil.copytree(checkpoint / "teacher", (copy if name == "final" else state) / "teacher")
            (copy / "name.json").write_text(json.dumps(name), encoding="utf-8")

    def last_pushed(self) -> str | None:
        """Returns the checkpoint that was pushed last to this repository."""
        record = read_json(self.folder / "pushed.json")
        is_ours = isinstance(record, dict) and record.get("repo_id") == self.repo_id
        return record.get("checkpoint") if is_ours else None

    # -- the process ---------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            self.report(self.process.returncode)
            self.process = None
        if self.process is None and (self.folder / "next").is_dir():
            self.start()

    def start(self) -> None:
        current = self.folder / "current"
        remove_folder(current)
        (self.folder / "next").rename(current)
        self.pushing = json.loads((current / "name.json").read_text(encoding="utf-8"))
        command = [sys.executable, PUBLISH, current, "--repo_id", self.repo_id, "--no_check", "--private_if_new"]
        command += ["--output", self.folder / "published"]
        with (self.folder / "push.log").open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # signals to the run do not reach it
            )
        niceness = os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
        os.setpriority(os.PRIO_PROCESS, self.process.pid, niceness)

    def report(self, code: int) -> None:
        lines = (self.folder / "push.log").read_text(encoding="utf-8", errors="replace").splitlines()
        if code == 0:
            record = {"repo_id": self.repo_id, "checkpoint": self.pushing}
            write_text(self.folder / "pushed.json", json.dumps(record) + "\n")
            where = next((line for line in lines if line.startswith("Pushed: ")), f"Pushed: {self.repo_id}")
            self.say(f"{where} ({self.pushing})")
            return
        reason = next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else f"code {code}")
        self.warn(reason.removeprefix("error: "))

    def warn(self, reason: str) -> None:
        """Reports why a push failed, once for each reason."""
        if reason not in self.said:
            self.said.add(reason)
            self.say(f"Warning: the teacher was not pushed: {reason} See {self.folder / 'push.log'}.")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()
        self.process = None

    # -- the end -------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Pushes the best teacher, or the final one of a run without k-NN evaluation, unless the Hub has it already."""
        deadline = time.monotonic() + self.last_push_seconds
        self.wait(deadline)
        best = find_best(self.output_dir / "checkpoints")
        name = best or "final"
        if self.last_pushed() != name and time.monotonic() < deadline:
            self.offer(name)
            self.poll()
            self.wait(deadline)
        if self.last_pushed() != name:
            which = " --checkpoint best" if best else ""
            self.say(
                f"The run's model is not on the Hub. To push it: python training/publish.py {self.output_dir} "
                f"--repo_id {self.repo_id}{which}"
            )

    def wait(self, deadline: float) -> None:
        """Waits until no push runs or waits, or until `deadline`."""
        while self.process is not None:
            try:
                self.process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                self.stop()
                self.warn(f"It took more than {self.last_push_seconds:g} seconds after the end of the run.")
                return
            self.poll()
