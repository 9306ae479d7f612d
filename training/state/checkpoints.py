# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes and reads the checkpoints of a run, `checkpoints/step-00001234/`.

Each holds

    student/, teacher/   model folders, loadable with from_pretrained
    .manifest.json       sizes and checksums of all these, by which they are verified before they are loaded
    training_state/      progress.json, training.pt (optimizer, scaler), rng-0.pt, rng-1.pt, ... (one a process)
    evaluation.json      the teacher's scores, once it was evaluated

Beside them are two links: `last`, to the newest, and `best`, to that of the highest k-NN accuracy (see `best.json`).

A checkpoint is written under a temporary name, forced to the disk, and renamed when it is whole, so a folder with the
final name is valid after a kill or a power cut at any instant. The main process alone writes, also the other processes'
states of random generators. No pickle is trusted: weights are safetensors, states load with `weights_only=True`.
"""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from safetensors import SafetensorError

from modeling_esvit import EsViTForPreTraining
from modeling_esvit.images.wording import show_number
from modeling_esvit.storage.atomic import PARTIAL, force_to_disk, record_file, replace_link, write_text
from modeling_esvit.storage.manifest import ForeignFilesError, check_own, find_damage, read_json, remove_folder
from training.data.batch_order import Lanes
from training.options.pretrain_options import SHARES_OF_A_STEP, PretrainOptions
from training.state.checkpoint_folders import PROGRESS, find_newest_whole, is_complete, list_checkpoints
from training.state.files import RunFolderError, on_main, replace_run_folder, report_write_errors


logger = logging.getLogger(__name__)

EVALUATION = "evaluation.json"


class ResumeError(RunFolderError, ValueError):
    """Raised when this command cannot continue a run from its checkpoint."""


@dataclass
class Progress:
    """Holds how far a run is, in finished optimizer steps, and what must not change when it is continued."""

    step: int
    world_size: int
    steps_per_epoch: int
    options: dict[str, Any]
    lanes: Lanes
    unreadable: dict[str, str] = field(default_factory=dict)  # images that were left out so far, and why


def share_step(options: PretrainOptions, progress: Progress, world_size: int) -> PretrainOptions:
    """Returns the options with which so many processes give each step of a continued run the images that it had.

    With the same batch size and accumulation as before, as when torchrun starts fewer or more processes again, each
    process accumulates more or fewer batches. Otherwise the options are what somebody chose.

    Raises:
        ResumeError: No number of batches gives a step its images.
    """
    if any(progress.options[name] != getattr(options, name) for name in SHARES_OF_A_STEP):
        return options
    images = progress.lanes.images_per_step
    batches, rest = divmod(images, options.batch_size * world_size)
    if rest:
        raise ResumeError(
            f"A step of this run has {images} images, and {show_number(world_size, 'processes')} with --batch_size "
            f"{options.batch_size} cannot share them evenly. {advise_on_shares(images, options.batch_size, world_size)}"
        )
    return replace(options, gradient_accumulation_steps=batches)


def advise_on_shares(images: int, batch_size: int, world_size: int) -> str:
    """Says in what batches so many processes could share a step's images; if in none, how many processes can."""
    if images % world_size:
        able = [str(number) for number in range(1, images + 1) if images % (batch_size * number) == 0]
        return f"These numbers of processes can: {', '.join(able)}."
    return (
        "Give a --batch_size and --gradient_accumulation_steps with "
        f"{world_size} x batch_size x gradient_accumulation_steps = {images}."
    )


def make_damage_error(folder: Path, error: Exception) -> ResumeError:
    name = type(error).__name__  # torch's own message advises to switch the safety off
    return ResumeError(f"{folder} is damaged ({name} on reading it). Delete it to continue from the one before it.")


class Checkpoints:
    """Writes and reads the checkpoints of one run. All processes call the public methods, at the same time."""

    def __init__(self, output_dir: str, keep: int, accelerator: Accelerator):
        self.root = Path(output_dir) / "checkpoints"
        self.keep = keep
        self.accelerator = accelerator

    def save(
        self,
        progress: Progress,
        student: EsViTForPreTraining,
        teacher: EsViTForPreTraining,
        optimizer: torch.optim.Optimizer,
    ) -> Path:
        """Writes a checkpoint and deletes the oldest beyond `keep`. Returns its folder.

        Raises:
            UnwritableCheckpointError: On all processes; earlier checkpoints stay as they were.
        """
        generators = gather_object([get_rng_state()])
        return on_main(self.accelerator, lambda: self._write(progress, student, teacher, optimizer, generators))

    def _write(
        self,
        progress: Progress,
        student: EsViTForPreTraining,
        teacher: EsViTForPreTraining,
        optimizer: torch.optim.Optimizer,
        generators: list[dict[str, Any]],
    ) -> Path:
        final = self.root / f"step-{progress.step:08d}"
        scaler = self.accelerator.scaler
        training = {"optimizer": optimizer.state_dict(), "scaler": None if scaler is None else scaler.state_dict()}
        with replace_run_folder(final, later=[EVALUATION]) as folder:
            student.save_pretrained(folder / "student")
            teacher.save_pretrained(folder / "teacher")
            state = folder / "training_state"
            state.mkdir()
            save_tensors(training, state / "training.pt")
            for rank, generator in enumerate(generators):
                save_tensors(generator, state / f"rng-{rank}.pt")
            (folder / PROGRESS).write_text(json.dumps(asdict(progress), indent=2) + "\n", encoding="utf-8")
        with report_write_errors(self.root):
            replace_link(self.root / "last", final)
            force_to_disk(self.root.parent)  # the first checkpoint made the folder `checkpoints` there
            self._delete_old()
        return final

    def _list_complete(self) -> list[Path]:
        return [folder for folder in list_checkpoints(self.root) if is_complete(folder)]

    def _delete_old(self) -> None:
        """Deletes all but the newest checkpoints and the best.

        Each loses its final name first, so that no kill leaves half a checkpoint under that name. One to which
        somebody has added files stays, and so does what cannot be removed, as while a program on another machine has a
        file of it open. The next checkpoint tries again.
        """
        best = (self.root / "best").resolve()
        for folder in self._list_complete()[: -self.keep]:
            if folder.resolve() != best:
                with keep_at_error():
                    check_own(folder)
                    folder.rename(folder.with_name(folder.name + PARTIAL))
        for folder in self.root.glob(f"step-*{PARTIAL}"):
            with keep_at_error():
                remove_folder(folder)

    def scores(self, folder: Path) -> dict[str, float] | None:
        """Returns the scores of a checkpoint's teacher, the one that decides `best` first; None before evaluation."""
        return on_main(self.accelerator, lambda: read_scores(folder))

    def add_scores(self, folder: Path, scores: dict[str, float]) -> None:
        """Writes the scores of a checkpoint's teacher, and points `best` to it if the first score is a new maximum.

        After a kill this can be repeated without harm.

        Raises:
            UnwritableCheckpointError: On all processes.
        """
        on_main(self.accelerator, lambda: self._add_scores(folder, scores))

    def _add_scores(self, folder: Path, scores: dict[str, float]) -> None:
        with report_write_errors(self.root):
            name, score = next(iter(scores.items()))
            best = self.root / "best"
            before = None if best.resolve() == folder.resolve() else read_scores(best)
            write_text(folder / EVALUATION, json.dumps(scores) + "\n")
            record_file(folder, EVALUATION)
            if before is None or score > next(iter(before.values())):
                replace_link(self.root / "best", folder)
                content = {"checkpoint": folder.name, "metric": name, "score": score}
                write_text(self.root / "best.json", json.dumps(content) + "\n")

    def latest(self) -> tuple[Path, Progress] | None:
        """Returns the newest complete checkpoint and its progress, if there is one, and points `last` to it.

        Raises:
            ResumeError: On all processes. It is damaged; or there is none, but a finished model, which would be
                overwritten.
        """
        return on_main(self.accelerator, self._latest)

    def _latest(self) -> tuple[Path, Progress] | None:
        for folder in list_checkpoints(self.root):
            if not is_complete(folder):
                logger.warning("Ignoring the incomplete checkpoint %s.", folder)
        complete = self._list_complete()
        if not complete and (self.root.parent / "teacher").exists():
            raise ResumeError(
                f"{self.root.parent} holds a finished model, and no checkpoint to continue from. Give another "
                "output, or move the folder away."
            )
        if not complete:
            return None
        newest = find_newest_whole(complete)
        if newest is None:
            raise ResumeError(
                f"All checkpoints in {self.root} are damaged, as {complete[-1].name}: "
                f"{'; '.join(find_damage(complete[-1]))}. Restore one from a copy, or give another output."
            )
        progress = read_progress(newest)
        with report_write_errors(self.root):
            replace_link(self.root / "last", newest)  # a kill may have come before that
        return newest, progress

    def check(self, folder: Path, progress: Progress, options: PretrainOptions, steps_per_epoch: int) -> None:
        """Checks that a run with these options can continue from a checkpoint.

        Raises:
            ResumeError: It was made with other options or other data, or with other numbers of images a step; or it is
                further than the run is to go.
        """
        if 0 < options.max_steps < progress.step:
            raise ResumeError(
                f"{folder} is at step {progress.step}, and max_steps {options.max_steps} is behind it. Give more, or "
                "leave it out."
            )
        changed = [
            f"{name} was {there!r} and is {here!r}"
            for name, (there, here) in options.differences(progress.options).items()
        ]
        processes = self.accelerator.num_processes
        before = progress.lanes.images_per_step
        images = Lanes(processes, options.batch_size, options.gradient_accumulation_steps).images_per_step
        if before != images:
            changed.append(
                f"images a step were {before} and are {images} ({show_number(processes, 'processes')} x batch_size "
                f"{options.batch_size} x gradient_accumulation_steps {options.gradient_accumulation_steps})"
            )
        elif progress.steps_per_epoch != steps_per_epoch:
            changed.append(f"steps per epoch were {progress.steps_per_epoch} and are {steps_per_epoch} (the data?)")
        if changed:
            raise ResumeError(
                f"{folder} belongs to another run: {'; '.join(changed)}. Give the same values, or another output, "
                f"with --init_from {self.root.parent} to start there from the weights of this run. More epochs would "
                "lengthen it, and --max_steps ends it sooner."
            )

    def load(
        self,
        folder: Path,
        progress: Progress,
        student: EsViTForPreTraining,
        teacher: EsViTForPreTraining,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Loads the state of a checkpoint into the objects of this run.

        Other numbers of processes than wrote it have no states of random generators there, and begin new ones.

        Raises:
            ResumeError: A file of it is missing or damaged.
        """
        state = folder / "training_state"
        is_same = progress.world_size == self.accelerator.num_processes
        try:
            weights = [load_weights(folder / name) for name in ("student", "teacher")]
            training = torch.load(state / "training.pt", weights_only=True, map_location="cpu")
            rng = torch.load(state / f"rng-{self.accelerator.process_index}.pt", weights_only=True) if is_same else None
        except (OSError, EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
            raise make_damage_error(folder, error) from error
        student.load_state_dict(weights[0])
        teacher.load_state_dict(weights[1])
        own_groups = optimizer.state_dict()["param_groups"]  # the plan sets their rates before each step
        optimizer.load_state_dict(training["optimizer"] | {"param_groups": own_groups})
        if training["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(training["scaler"])
        if rng is None:
            set_seed(progress.options["seed"] + progress.step, device_specific=True)
        else:
            set_rng_state(rng)


@contextmanager
def keep_at_error() -> Iterator[None]:
    """Warns of an old checkpoint that the block cannot remove: that is no reason to end the run."""
    try:
        yield
    except (ForeignFilesError, OSError) as error:
        logger.warning("An old checkpoint is kept: %s", error)


def read_scores(folder: Path) -> dict[str, float] | None:
    """Returns the scores of a checkpoint's teacher; None if there are none, or others than were written."""
    if not (folder / EVALUATION).exists():
        return None
    if damage := find_damage(folder, [EVALUATION]):
        logger.warning("The scores of %s are not used: %s.", folder, damage[0])
        return None
    return read_json(folder / EVALUATION)


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a model folder by the names of modules; transformers saves some by older names."""
    model, loading = EsViTForPreTraining.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    if loading["missing_keys"]:
        raise RuntimeError(f"{folder} lacks {sorted(loading['missing_keys'])}.")
    return model.state_dict()


def read_progress(folder: Path) -> Progress:
    """Returns how far a run was at a complete checkpoint.

    Raises:
        ResumeError: The checkpoint is damaged.
    """
    try:
        values = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        # A checkpoint of an earlier version does not say its lanes: each process had its own.
        own = (values["world_size"], *(values["options"][name] for name in SHARES_OF_A_STEP))
        values["lanes"] = Lanes(**values["lanes"]) if "lanes" in values else Lanes(*own)
        return Progress(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise make_damage_error(folder, error) from error


def read_saved_options(output_dir: str) -> dict[str, Any] | None:
    """Returns the options in a run's newest complete checkpoint, if there is one. Each process reads by itself.

    Raises:
        ResumeError: The checkpoint is damaged.
    """
    newest = find_newest_whole(list_checkpoints(Path(output_dir) / "checkpoints"), [PROGRESS.as_posix()])
    return read_progress(newest).options if newest else None


def save_tensors(content: dict[str, Any], path: Path) -> None:
    """Saves tensors by way of the memory: torch's own file writer does not say that the disk is full."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getbuffer())


def get_rng_state() -> dict[str, Any]:
    """Returns the states of the generators that a step draws from (DropPath, dropout)."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None}


def set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
