# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Sends a folder to the Hub in one commit, and loads the model back by its name."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx
from safetensors.torch import save_file
from transformers import AutoModel

from modeling_esvit import EsViTForPreTraining, EsViTModel
from modeling_esvit.errors import EsViTError
from modeling_esvit.modeling_esvit import PRETRAINING_INDEX
from modeling_esvit.storage.weights_record import RECORD
from training.publishing.eval_results import FOLDER, PREFIX
from training.publishing.folder import CURVES, HEADS, OPTIONS
from training.publishing.published_check import sample_outputs
from training.state.interruption import restore_handlers, set_handlers


CHECK = Path(__file__).with_name("published_check.py")
CHECK_SECONDS = 1800
TOLERANCE = 1e-5  # of the largest output; on one machine the difference is zero
CODE = tuple(path.name for path in (Path(__file__).parents[2] / "modeling_esvit").glob("*.py"))
OPTIONAL_FILES = {
    HEADS,
    PRETRAINING_INDEX,
    RECORD,
    OPTIONS,
    CURVES,
    *CODE,
}  # some publications have them, others do not
XET = "hf_xet"  # the client of the store; its own errors are PermissionErrors, though they are none of the disk
NETWORK_ERRORS = (HfHubHTTPError, httpx.HTTPError, ConnectionError, TimeoutError, json.JSONDecodeError)


class PublishError(EsViTError, RuntimeError):
    """Raised when a push, or the check after it, does not succeed."""


class UnreadableFolderError(PublishError):
    """Raised when a file of the folder is gone or cannot be read. The same command writes the folder anew."""


@dataclass
class Repository:
    """Names the repository to push to.

    Attributes:
        repo_id: USER/NAME or ORGANISATION/NAME.
        revision: Branch; None is the main one.
        create_pr: Whether to open a pull request instead of changing the branch.
        private: Whether only its owner may see it.
        gated: Who grants access to it, "auto" or "manual"; None: everybody has it.
    """

    repo_id: str
    revision: str | None = None
    create_pr: bool = False
    private: bool = False
    gated: str | None = None


def decide_visibility(repository: Repository, *, is_confirmed: bool, private_if_new: bool) -> Repository:
    """Returns the repository to push to, after a question if a model would become public for the first time.

    Whoever made the repository public, or has published a model there already, is not asked again.

    Args:
        is_confirmed: Whether the answer is known to be yes.
        private_if_new: Whether a repository that does not exist yet is made private, without a question.

    Raises:
        PublishError: The answer is no, there is no terminal to ask on, or the Hub cannot be reached.
    """
    if is_confirmed or repository.private or get_token() is None:  # without a token nothing is sent, which `push` says
        return repository
    try:
        found = HfApi().model_info(repository.repo_id)
    except RepositoryNotFoundError:
        if private_if_new:
            return replace(repository, private=True)
        if repository.create_pr:  # `push` explains that
            return repository
        ask(f"{repository.repo_id} does not exist yet. Create it, visible to everybody?")
        return repository
    except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise explain(error, repository.repo_id) from error
    has_model = any(file.rfilename == "config.json" for file in found.siblings or [])
    if not found.private and not has_model and not private_if_new:
        ask(f"{repository.repo_id} is visible to everybody. Publish the model there?")
    return repository


def ask(question: str) -> None:
    """Raises an error unless somebody says yes.

    Raises:
        PublishError: The answer is another one, or there is no terminal.
    """
    if not sys.stdin.isatty():
        raise PublishError(f"{question} Nobody can be asked here: add --yes, or --private for a private repository.")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise PublishError("Nothing was sent. For a private repository add --private.")


def push(folder: Path, files: Iterable[str], repository: Repository, message: str) -> CommitInfo:
    """Creates the repository if it does not exist, and sends `files` of `folder` in one commit.

    A repository that is to be private or gated is closed before anything is in it.

    Raises:
        UnreadableFolderError: A file cannot be read.
        PublishError: The Hub cannot be reached, or refuses.
    """
    if get_token() is None:
        raise PublishError(
            "There is no token: log in with `hf auth login`, or set HF_TOKEN, with a token that may write."
        )
    api = HfApi()
    try:
        if not repository.create_pr:
            create_repository(api, repository)
        return api.create_commit(
            repo_id=repository.repo_id,
            operations=[*find_deletions(api, repository, files), *find_additions(folder, files)],
            commit_message=message,
            revision=repository.revision,
            create_pr=repository.create_pr,
        )
    except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled, OSError, RuntimeError, ValueError) as error:
        raise explain(error, repository.repo_id) from error


def create_repository(api: HfApi, repository: Repository) -> None:
    api.create_repo(repository.repo_id, private=repository.private or None, exist_ok=True)
    if repository.gated or repository.private:
        gate: Any = repository.gated
        api.update_repo_settings(repository.repo_id, gated=gate, private=repository.private or None)
    if repository.revision not in (None, constants.DEFAULT_REVISION):
        api.create_branch(repository.repo_id, branch=repository.revision, exist_ok=True)


def find_additions(folder: Path, files: Iterable[str]) -> list[CommitOperationAdd]:
    """Returns these files, whatever the folder holds by now: no part of a model is published alone."""
    try:
        return [CommitOperationAdd(name, folder / name) for name in files]
    except ValueError as error:
        raise FileNotFoundError(str(error)) from error


def find_deletions(api: HfApi, repository: Repository, files: Iterable[str]) -> list[CommitOperationDelete]:
    """Returns the files of an earlier publication that this one no longer has."""
    existing = api.list_repo_files(repository.repo_id, revision=repository.revision)
    ours = [name for name in existing if name in OPTIONAL_FILES or name.startswith(f"{FOLDER}/{PREFIX}")]
    return [CommitOperationDelete(name) for name in ours if name not in files]


def explain(error: Exception, repo_id: str) -> PublishError:
    """Returns an error that says what a failure of the Hub, the network or the disk means to the publisher."""
    error = find_cause(error)
    if type(error).__module__ == XET or type(error) in (RuntimeError, ConnectionError):  # those of sockets are others
        return PublishError(
            f"The store of the Hub's large files did not take them ({shorten_message(error)}). What has arrived is not "
            "sent again. If it fails again, HF_HUB_DISABLE_XET=1 sends them another way."
        )
    response = error.response if isinstance(error, HfHubHTTPError) else None
    status = None if response is None else response.status_code
    if isinstance(error, RevisionNotFoundError):
        return PublishError(f"{repo_id} has no such revision: {error}")
    if status == 401:
        return PublishError(
            f"{constants.ENDPOINT} does not accept the token (or {repo_id} does not exist): log in again with "
            "`hf auth login`, or set HF_TOKEN."
        )
    if status == 403:
        return PublishError(
            f"The token may not write to {repo_id}. It needs write access to that user's or organisation's "
            "repositories; `hf auth whoami` says whose token it is. To propose the model to others, use --create_pr."
        )
    if status == 404:
        return PublishError(f"There is no {repo_id} that this token may see: {error}")
    if status == 429:
        wait = "" if response is None else response.headers.get("Retry-After", "")
        when = f"in {wait} s" if wait.isdigit() else "later"
        return PublishError(f"{constants.ENDPOINT} is asked too often by this account (429): try again {when}.")
    refused = isinstance(error, HfHubHTTPError) and (status is None or status < 500)
    if refused or isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        return PublishError(f"The Hub refused the push to {repo_id}: {error}")
    if not isinstance(error, NETWORK_ERRORS):
        return UnreadableFolderError(f"The files to send to {repo_id} cannot be read here: {error}.")
    return PublishError(f"{constants.ENDPOINT} cannot be reached, or cannot answer now ({shorten_message(error)}).")


def find_cause(error: Exception) -> Exception:
    """Returns what stopped the upload of a file: huggingface_hub raises a RuntimeError that only names the file."""
    while type(error) is RuntimeError and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def shorten_message(error: Exception) -> str:
    """Returns type and first line of an error."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


@contextmanager
def exit_on_signals(message: str) -> Iterator[None]:
    """Ends the program at once on Ctrl-C and SIGTERM, with a message.

    An exception would wait until the client's threads have sent their files.
    """

    def end(number: int, frame: Any) -> None:
        os.write(sys.stderr.fileno(), f"\n{message}\n".encode())
        os._exit(1)

    before = set_handlers((signal.SIGINT, signal.SIGTERM), end)
    try:
        yield
    finally:
        restore_handlers(before)


def compute_outputs(model: EsViTForPreTraining | EsViTModel, folder: Path) -> dict[str, torch.Tensor]:
    """Returns random images of the model's size and the outputs for them that every user must get.

    The backbone's outputs are those of the folder, the heads' those of the trained `model`.
    """
    config = model.config
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    images = torch.randn(2, config.num_channels, height, width, generator=torch.Generator().manual_seed(0))
    outputs = {"pixel_values": images}
    with torch.no_grad():
        outputs |= sample_outputs(AutoModel.from_pretrained(folder).eval(), images.to(model.dtype))
        if (folder / HEADS).is_file():
            outputs |= sample_outputs(model, images.to(model.dtype))
    return {name: tensor.clone().contiguous() for name, tensor in outputs.items()}


def check_outputs(repo_id: str, revision: str, outputs: dict[str, torch.Tensor]) -> float:
    """Loads the published model by its name, in a fresh process without our package and with an empty cache.

    Returns:
        The largest difference to `outputs`, relative to the largest value of each.

    Raises:
        PublishError: The model does not load, or the difference is above TOLERANCE.
    """
    with tempfile.TemporaryDirectory() as scratch:
        expected = Path(scratch) / "expected.safetensors"
        save_file(outputs, expected)
        command = [sys.executable, "-I", CHECK, repo_id, revision, expected, Path(scratch) / "cache"]
        try:
            done = subprocess.run(
                list(map(str, command)), cwd=scratch, capture_output=True, text=True, timeout=CHECK_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise PublishError(
                f"{repo_id} was pushed ({revision}), but could not be loaded back within {CHECK_SECONDS} seconds."
            ) from error
        except KeyboardInterrupt as error:
            raise PublishError(f"{repo_id} was pushed ({revision}); loading it back was interrupted.") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PublishError(f"{repo_id} was pushed ({revision}), but does not load by its name: {reason}")
    differences = json.loads(done.stdout.splitlines()[-1])
    wrong = {name: value for name, value in differences.items() if not value <= TOLERANCE}
    if wrong:
        raise PublishError(f"{repo_id} was pushed ({revision}), but gives other outputs: {wrong}.")
    return max(differences.values())
