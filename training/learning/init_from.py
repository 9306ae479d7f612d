# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Starts student and teacher from a run or a model instead of random weights (`--init_from`).

From a run (its folder, or one of its checkpoints), student and teacher each start from their own weights, with the
AdamW moments of all parameters that fit, matched by name; the original (microsoft/esvit, MIT) silently lost all moments
when a region head was added. From a model folder (also one that `convert_original` wrote) or a model on the Hub, both
networks start as that model. The backbone must fit. A head and its centre are taken if they fit; otherwise they are
new, and equal in student and teacher. Schedules start from their beginning.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.hub import require_hub
from modeling_esvit.images.model_limits import bound_build
from modeling_esvit.images.models import guard_weights, name_transformers_errors, read_fields
from modeling_esvit.storage.manifest import find_damage
from modeling_esvit.storage.paths import expand_home
from modeling_esvit.storage.run_folders import advise_on_folder, check_whole
from modeling_esvit.storage.weight_bars import hide_weight_bars
from training.learning.optimizer import group_parameters
from training.options.hub_names import is_hub_name
from training.state.checkpoint_folders import find_newest_whole, is_complete, list_checkpoints


BACKBONE = "backbone"
PARTS = {
    BACKBONE: ("esvit.",),
    "view head and centre": ("view_head.", "view_center"),
    "region head and centre": ("region_head.", "region_center"),
}
MAX_NAMED = 5
LARGEST_BUILT = 2**28  # numbers of a network, whose heads may not be stored and are then new


class InitialisationError(EsViTError, ValueError):
    """Raised when a run cannot start from the given weights."""


class Origin(NamedTuple):
    """Says where the networks are: model folders or names on the Hub, and the training state of a run."""

    student: str
    teacher: str
    training_state: Path | None


def initialise(
    source: str, student: EsViTForPreTraining, teacher: EsViTForPreTraining, optimizer: torch.optim.Optimizer
) -> str:
    """Loads the weights of `source` into student and teacher, which must be equal, and its moments into `optimizer`.

    Returns what was done, as text.

    Raises:
        InitialisationError: `source` names nothing to start from, is damaged, or its backbone does not fit.
    """
    origin = find_origin(source)
    original, tensors = load_network(origin.student)
    teachers = tensors if origin.teacher == origin.student else load_network(origin.teacher)[1]
    wanted = student.state_dict()
    problems = {
        part: find_misfits(wanted, tensors, prefixes) or find_misfits(wanted, teachers, prefixes)
        for part, prefixes in PARTS.items()
    }
    refuse_other_backbone(source, problems[BACKBONE])
    refuse_other_computation(source, original.config, student.config)
    kept = tuple(prefix for part, prefixes in PARTS.items() if not problems[part] for prefix in prefixes)
    for model, found in ((student, tensors), (teacher, teachers)):
        model.load_state_dict({name: found[name] for name in wanted if name.startswith(kept)}, strict=False)
    report = [
        f"Starting from {source}, student and teacher alike."
        if origin.training_state is None
        else f"Starting from {origin.training_state.parent}, student and teacher each from its own.",
        *describe_parts(wanted, tensors, problems),
        load_moments(origin.training_state, original, student, optimizer, kept),
        "schedules: from their beginning",
    ]
    if student.config.norm_last_layer and not original.config.norm_last_layer:
        report.append("norms of prototypes: as they were trained, fixed from now on")
    return "\n  ".join(report)


def find_origin(source: str) -> Origin:
    """Finds the networks that `source` names.

    Raises:
        InitialisationError: It names none, or they are damaged.
    """
    folder = expand_home(source)
    if folder.is_file():
        raise InitialisationError(
            f"init_from {source!r} is a file; name a folder. To turn a checkpoint of the original into one, use "
            f"`python -m modeling_esvit.convert_original {source} FOLDER`."
        )
    if not folder.exists():
        if not is_hub_name(source):
            raise InitialisationError(
                f"init_from {source!r} does not exist; name the folder of a run or of a model, or a model on the Hub."
            )
        return Origin(source, source, None)
    if (folder / "config.json").is_file():
        with explain_missing(str(folder)):
            check_whole(folder)
        return Origin(str(folder), str(folder), None)
    checkpoints = [folder, *list_checkpoints(folder / "checkpoints")]
    newest = find_newest_whole(checkpoints)
    damaged = [checkpoint for checkpoint in checkpoints if is_complete(checkpoint)]
    if newest is None and damaged:
        raise InitialisationError(
            f"init_from {source!r}: all checkpoints are damaged, as {damaged[-1].name}: "
            f"{'; '.join(find_damage(damaged[-1]))}. Name another run, or the model folder {folder / 'teacher'}."
        )
    if newest is None:
        raise InitialisationError(
            f"init_from {source!r} is neither the folder of a model (it has no config.json) nor that of a run (it has "
            f"no complete checkpoint): {advise_on_folder(folder)}"
        )
    return Origin(str(newest / "student"), str(newest / "teacher"), newest / "training_state")


def check_origin(origin: Origin, config: EsViTConfig) -> None:
    """Checks the networks of `origin` as far as their configuration tells.

    Raises:
        InitialisationError: There is no such model, or its backbone computes something else.
    """
    refuse_other_computation(origin.student, read_configuration(origin.student), config)


def read_configuration(name: str) -> EsViTConfig:
    """Returns the configuration of a model.

    Raises:
        InitialisationError: There is no such model, or its configuration names what is no part of it.
    """
    with explain_missing(name):
        read_fields(name)
        return EsViTConfig.from_pretrained(name)


@contextmanager
def explain_missing(name: str) -> Iterator[None]:
    """Turns the error of transformers for a model that it cannot find or read into one that names the option.

    Raises:
        InitialisationError: There is no such model, a file of it is damaged, or it describes one that cannot be.
    """
    try:
        require_hub(name)
        with name_transformers_errors(name), bound_build():
            yield
    except OSError as error:
        raise InitialisationError(f"init_from {name!r}: {error}") from error


def load_network(name: str) -> tuple[EsViTForPreTraining, dict[str, Tensor]]:
    """Loads a model in its own configuration, on the CPU in float32. Returns it, and its tensors that the files hold.

    Raises:
        InitialisationError: There is no such model, it is of another type, or its weights are damaged.
    """
    with explain_missing(name):
        model_type = read_fields(name).get("model_type")
    if model_type != "esvit":
        raise InitialisationError(
            f"init_from: {name} holds a model of type {model_type!r}, not 'esvit'. Convert the original checkpoint "
            "without --native."
        )
    with explain_missing(name), hide_weight_bars(), guard_weights(name, beside=LARGEST_BUILT):
        loaded: Any = EsViTForPreTraining.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
        )
    model, loading = loaded
    absent = {*loading["missing_keys"], *(entry[0] for entry in loading["mismatched_keys"])}
    return model, {key: tensor for key, tensor in model.state_dict().items() if key not in absent}


def find_misfits(wanted: dict[str, Tensor], found: dict[str, Tensor], prefixes: tuple[str, ...]) -> list[str]:
    """Returns a phrase for each tensor of one part that is missing on one side or differs in shape."""
    names = [name for name in {**wanted, **found} if name.startswith(prefixes)]
    shapes = [[list(t[name].shape) if name in t else "missing" for t in (found, wanted)] for name in names]
    return [
        f"{name} is {there} there and {here} here"
        for name, (there, here) in zip(names, shapes, strict=True)
        if there != here
    ]


def refuse_other_backbone(source: str, problems: list[str]) -> None:
    """Refuses a backbone whose tensors do not fit.

    Raises:
        InitialisationError: There are `problems`; it names the first ones.
    """
    if problems:
        rest = f"\n  and {len(problems) - MAX_NAMED} more" if len(problems) > MAX_NAMED else ""
        raise InitialisationError(
            f"The backbone of init_from {source!r} does not fit (architecture, window_size, depths, ...?):\n  "
            + "\n  ".join(problems[:MAX_NAMED])
            + rest
        )


def refuse_other_computation(source: str, there: EsViTConfig, here: EsViTConfig) -> None:
    """Refuses a backbone whose tensors fit, but which would compute something else with them.

    Raises:
        InitialisationError: See above.
    """
    values = here.family.unseen(here)
    for name, value in there.family.unseen(there).items():
        if value != values[name]:
            raise InitialisationError(
                f"The backbone of init_from {source!r} does not fit: {name} is {value} there and {values[name]} here."
            )


def describe_parts(wanted: dict[str, Tensor], found: dict[str, Tensor], problems: dict[str, list[str]]) -> list[str]:
    """Returns a line for each part that says whether it is kept."""
    lines = []
    for part, prefixes in PARTS.items():
        is_here, is_there = (any(name.startswith(prefixes) for name in tensors) for tensors in (wanted, found))
        if is_here and is_there:
            lines.append(f"{part}: new, because {problems[part][0]}" if problems[part] else f"{part}: kept")
        elif is_here:
            lines.append(f"{part}: new, because there is none")
        elif is_there:
            lines.append(f"{part}: left out, because the task does not need it")
    return lines


def load_moments(
    training_state: Path | None,
    source: EsViTForPreTraining,
    student: EsViTForPreTraining,
    optimizer: torch.optim.Optimizer,
    kept: tuple[str, ...],
) -> str:
    """Gives `optimizer` the run's moments of parameters of the same name, in the parts `kept`. Returns a summary."""
    if training_state is None:
        return "AdamW moments: new, because only a run has them"
    path = training_state / "training.pt"
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")["optimizer"]["state"]
    except (OSError, EOFError, RuntimeError, LookupError, TypeError, UnpicklingError) as error:
        raise InitialisationError(f"init_from: {path} is damaged ({type(error).__name__} on reading it).") from error
    theirs = {name: saved[number] for number, name in enumerate(list_optimized_names(source)) if number in saved}
    state, names = optimizer.state_dict(), list_optimized_names(student)
    for number, name in enumerate(names):
        if name.startswith(kept) and name in theirs:
            state["state"][number] = theirs[name]
    optimizer.load_state_dict(state)
    return f"AdamW moments: kept for {len(state['state'])} of {len(names)} parameters, by name"


def list_optimized_names(model: EsViTForPreTraining) -> list[str]:
    """Returns the names of the trainable parameters in the order in which the optimizer numbers them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in group_parameters(model) for parameter in group["params"]]
