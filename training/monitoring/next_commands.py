# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Composes the commands that a run names at its end, to be pasted into a shell: to continue, measure and publish."""

import shlex
import shutil
import sys
from pathlib import Path

import psutil

from modeling_esvit.storage.paths import expand_home
from modeling_esvit.storage.run_folders import is_model
from modeling_esvit.storage.url_secrets import hide_secrets
from training.features.frozen_models import UNTRAINED
from training.options.hub_names import make_repo_name
from training.options.pretrain_options import PretrainOptions


PROGRAMS = Path(__file__).resolve().parents[1]
SCRIPT = PROGRAMS / "pretrain.py"
PUBLISH, KNN = PROGRAMS / "publish.py", PROGRAMS / "knn.py"


def find_start_command() -> list[str]:
    """Returns the command line that started this process, with its launcher, such as `torchrun` or `timeout`.

    It is that of the furthest process above this one whose last arguments are this script and its arguments. Passwords
    and signatures of its URLs are left out.
    """
    command = list(sys.orig_argv)
    for process in psutil.Process().parents():
        try:
            line = process.cmdline()
        except psutil.Error:  # belongs to another user, or has ended
            break
        if [hide_secrets(word) for word in line[-len(sys.argv) :]] == [hide_secrets(word) for word in sys.argv]:
            command = line
    return shorten([hide_secrets(word) for word in command])


def shorten(command: list[str]) -> list[str]:
    """Drops the interpreter of a script that the shell finds by its name: `python /usr/bin/torchrun` is `torchrun`."""
    if len(command) > 1 and shutil.which(Path(command[1]).name) == command[1]:
        return [Path(command[1]).name, *command[2:]]
    return command


def make_resume_command(output_dir: str, max_steps: int) -> str:
    """Returns the command that continues the run from its last checkpoint, without a limit of steps.

    A run that was started from Python, in a notebook say, is continued with the options in its folder.
    """
    if Path(sys.argv[0]).name == SCRIPT.name:
        command = find_start_command()
    else:
        command = [sys.executable, str(SCRIPT), "--recipe", str(Path(output_dir).absolute() / "options.yaml")]
    if max_steps:
        command = [*drop_option(command, "max_steps"), "--max_steps", "0"]
    return f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(command)}"


def drop_option(command: list[str], name: str) -> list[str]:
    """Returns a command without an option and its value, in either spelling."""
    spellings, kept, words = (f"--{name}", f"--{name.replace('_', '-')}"), list[str](), iter(command)
    for word in words:
        if word in spellings:
            next(words, None)
        elif word.partition("=")[0] not in spellings:
            kept.append(word)
    return kept


def publish_command(output_dir: str) -> str:
    """Returns the command that publishes the run's model under a name like the folder's; USER is to be replaced."""
    folder = Path(output_dir).absolute()
    return shlex.join([sys.executable, str(PUBLISH), str(folder), "--repo_id", f"USER/{make_repo_name(folder.name)}"])


def make_upload_command(classifier: Path) -> str:
    """Returns the command that publishes a classifier, without what only its training needs; USER is to be replaced."""
    unneeded = [word for name in ("checkpoint-*", "training_args.bin") for word in ("--exclude", name)]
    name = f"USER/{make_repo_name(classifier.absolute().name)}"
    return shlex.join(["hf", "upload", name, str(classifier), "--private", *unneeded])


def describe_classifier(output: Path) -> str:
    """Says where the classifier is, and how to use and publish it."""
    return f"""The classifier is in {output}. In Python:
    import modeling_esvit
    from transformers import pipeline
    classify = pipeline('image-classification', model={str(output)!r})
To publish it: {make_upload_command(output)}"""


def embed_command(output_dir: str) -> str:
    """Returns the command that computes features of images by the run's model; IMAGES is to be replaced."""
    command = [sys.executable, "-m", "modeling_esvit.embed", str(Path(output_dir).absolute())]
    return shlex.join([*command, "IMAGES", "--output", "features.parquet"])


def name_start(options: PretrainOptions) -> str:
    """Returns the model that a run began from, as evaluations take it; UNTRAINED if it began at random."""
    given = options.backbone if options.backbone_weights else options.init_from
    if given is None:
        return UNTRAINED
    folder = expand_home(given)
    if not folder.exists():  # on the Hub, or of timm
        return given
    return str(folder.absolute()) if is_model(folder) else UNTRAINED


def knn_command(options: PretrainOptions) -> str:
    """Returns the command that compares the run's model with what it began from; LABELLED is to be replaced."""
    command = [sys.executable, str(KNN), str(Path(options.output).absolute())]
    return shlex.join([*command, "--train", "LABELLED", "--against", name_start(options)])
