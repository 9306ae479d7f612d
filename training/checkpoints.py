# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints of a run: `checkpoints/step-00001234/` with

    student/, teacher/   model folders, loadable with from_pretrained
    training_state/      progress.json, training.pt (optimizer, scaler), rng-0.pt, rng-1.pt, ... (one a process)

and beside them two links: `last`, the newest, and `best`, that of the highest k-NN accuracy (`best.json` says which).

A checkpoint is written under a temporary name, forced to the disk, and renamed when it is whole, so a folder with the
final name is valid after a kill or a power cut at any instant. Nothing is unpickled: weights are safetensors, states
are loaded with `weights_only=True`.
"""

import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file

from modeling_esvit import EsViTForPreTraining
from options import PretrainOptions


logger = logging.getLogger(__name__)

PARTIAL = ".partial"


class ResumeError(ValueError):
    """A checkpoint that cannot be continued by this command."""


@dataclass
class Progress:
    """How far a run is, and what it must not change: `step` optimizer steps are done."""

    step: int
    world_size: int
    steps_per_epoch: int
    options: dict[str, Any]


def model_folder(model: EsViTForPreTraining, path: Path) -> None:
    """Write a model folder under a temporary name and put it in place of any older one."""
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    force_to_disk(partial)
    if path.exists():
        shutil.rmtree(path)
    partial.rename(path)


def force_to_disk(folder: Path) -> None:
    """Files first, then the folders that name them."""
    for path in [*(p for p in folder.rglob("*") if p.is_file()), *(p for p in folder.rglob("*") if p.is_dir()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def point(link: Path, folder: Path) -> None:
    """Make `link` a relative link to its sibling `folder`, at once: there is no instant without it."""
    partial = link.with_name(link.name + PARTIAL)
    partial.unlink(missing_ok=True)
    partial.symlink_to(folder.name, target_is_directory=True)
    partial.replace(link)


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint has its final name and the file that is written last."""
    return not folder.name.endswith(PARTIAL) and (folder / "training_state" / "progress.json").is_file()


def damaged(folder: Path, error: Exception) -> ResumeError:
    name = type(error).__name__  # torch's own message advises to switch the safety off
    return ResumeError(f"{folder} is damaged ({name} on reading it). Delete it to continue from the one before it.")


class Checkpoints:
    """The checkpoints of one run. Every process calls `save` and `load`; the main one writes what is common to all."""

    def __init__(self, output_dir: str, keep: int, accelerator: Accelerator):
        self.root = Path(output_dir) / "checkpoints"
        self.keep = keep
        self.accelerator = accelerator

    def complete(self) -> list[Path]:
        """Valid checkpoints, oldest first."""
        return [folder for folder in sorted(self.root.glob("step-*")) if is_complete(folder)]

    def report_incomplete(self) -> None:
        """Name in the log what is not used."""
        for folder in sorted(self.root.glob("step-*")):
            if self.accelerator.is_main_process and not is_complete(folder):
                logger.warning("Ignoring the incomplete checkpoint %s.", folder)

    def delete_old(self) -> None:
        """
        Keep the newest, and the best. What is deleted loses its final name first, so that no kill leaves half of it
        under that.
        """
        best = (self.root / "best").resolve()
        for folder in self.complete()[: -self.keep]:
            if folder.resolve() != best:
                folder.rename(folder.with_name(folder.name + PARTIAL))
        for folder in self.root.glob(f"step-*{PARTIAL}"):
            shutil.rmtree(folder)

    def save(
        self,
        progress: Progress,
        student: EsViTForPreTraining,
        teacher: EsViTForPreTraining,
        optimizer: torch.optim.Optimizer,
    ) -> Path:
        """Write a checkpoint and delete the oldest beyond `keep`. Returns its folder."""
        final = self.root / f"step-{progress.step:08d}"
        partial = final.with_name(final.name + PARTIAL)
        state = partial / "training_state"
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            state.mkdir(parents=True)
            student.save_pretrained(partial / "student")
            teacher.save_pretrained(partial / "teacher")
            scaler = self.accelerator.scaler
            training = {
                "optimizer": optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
            }
            torch.save(training, state / "training.pt")
        self.accelerator.wait_for_everyone()
        torch.save(rng_state(), state / f"rng-{self.accelerator.process_index}.pt")
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (state / "progress.json").write_text(json.dumps(asdict(progress), indent=2) + "\n")
            force_to_disk(partial)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            point(self.root / "last", final)
            force_to_disk(self.root)
            self.delete_old()
        self.accelerator.wait_for_everyone()
        return final

    def best_score(self) -> float:
        """The accuracy of the checkpoint that `best` names; -1 if there is none."""
        path = self.root / "best.json"
        return json.loads(path.read_text())["score"] if path.exists() else -1.0

    def offer_best(self, folder: Path, name: str, score: float) -> None:
        """Point `best` to a checkpoint if its `score`, called `name`, is higher than any before."""
        if not self.accelerator.is_main_process or score <= self.best_score():
            return
        point(self.root / "best", folder)
        partial = self.root / f"best.json{PARTIAL}"
        partial.write_text(json.dumps({"checkpoint": folder.name, "metric": name, "score": score}) + "\n")
        partial.replace(self.root / "best.json")
        force_to_disk(self.root)

    def latest(self, options: PretrainOptions, steps_per_epoch: int) -> tuple[Path, Progress] | None:
        """
        The newest valid checkpoint and its progress, if there is one.

        Raises:
            ResumeError: it was made with other options, another number of processes or other data; or there is none,
                but a finished model, which would be overwritten.
        """
        self.report_incomplete()
        complete = self.complete()
        if not complete and (self.root.parent / "teacher").exists():
            raise ResumeError(
                f"{self.root.parent} holds a finished model, and no checkpoint to continue from. Give another "
                "output_dir, or move the folder away."
            )
        if not complete:
            return None
        folder = complete[-1]
        try:
            progress = Progress(**json.loads((folder / "training_state" / "progress.json").read_text()))
        except (json.JSONDecodeError, TypeError) as error:
            raise damaged(folder, error) from error
        changed = [
            f"{name} was {there!r} and is {here!r}"
            for name, (there, here) in options.differences(progress.options).items()
        ]
        if progress.world_size != self.accelerator.num_processes:
            changed.append(f"processes were {progress.world_size} and are {self.accelerator.num_processes}")
        if progress.steps_per_epoch != steps_per_epoch:
            changed.append(f"steps per epoch were {progress.steps_per_epoch} and are {steps_per_epoch} (the data?)")
        if changed:
            raise ResumeError(
                f"{folder} belongs to another run: {'; '.join(changed)}. Give the same values, or another output_dir."
            )
        return folder, progress

    def load(
        self,
        folder: Path,
        student: EsViTForPreTraining,
        teacher: EsViTForPreTraining,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """
        Put the state of a checkpoint into the objects of this run.

        Raises:
            ResumeError: a file of it is missing or damaged.
        """
        state = folder / "training_state"
        try:
            weights = [load_file(folder / name / "model.safetensors") for name in ("student", "teacher")]
            training = torch.load(state / "training.pt", weights_only=True, map_location="cpu")
            rng = torch.load(state / f"rng-{self.accelerator.process_index}.pt", weights_only=True)
        except (OSError, EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
            raise damaged(folder, error) from error
        student.load_state_dict(weights[0])
        teacher.load_state_dict(weights[1])
        optimizer.load_state_dict(training["optimizer"])
        if training["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(training["scaler"])
        set_rng_state(rng)


def rng_state() -> dict[str, Any]:
    """The generators that a step draws from (DropPath, dropout)."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None}


def set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
