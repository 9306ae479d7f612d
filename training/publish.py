# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Publish a run's model, a model folder or a converted checkpoint on the Hub, in one commit.

    python training/publish.py runs/mine --repo_id org/name --dry_run      # writes the folder, sends nothing
    python training/publish.py runs/mine --repo_id org/name --private
    python training/publish.py runs/mine --repo_id org/name --checkpoint best --create_pr
    python training/publish.py esvit-swin-t --repo_id org/name --native    # transformers' own swin format

The folder is written first and stays, whatever happens then; the same command again goes on where a push broke off:
files that arrived are not sent again. The token is that of `hf auth login`, or HF_TOKEN. At last the model is loaded
back by its name, in a process of its own, and has to give the same outputs.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError
from huggingface_hub.utils import httpx
from safetensors.torch import save_file
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from modeling_esvit import EsViTForPreTraining, EsViTModel
from modeling_esvit.conversion import ConversionError
from modeling_esvit.errors import EsViTError
from modeling_esvit.modeling_esvit import PRETRAINING_INDEX
from modeling_esvit.storage.atomic import replace_folder
from training.options.pretrain_options import OptionError
from training.publishing.hub_push import check_repo_id
from training.publishing.model_card import CardError, check_card
from training.publishing.publication import (
    CHECKPOINTS,
    CURVES,
    HEADS,
    OPTIONS,
    SourceError,
    check_destination,
    files_of,
    find_source,
    write_history,
    write_weights,
)
from training.publishing.published_check import sample_outputs
from training.publishing.run_card import card_of


CHECK = Path(__file__).parent / "publishing" / "published_check.py"
CHECK_SECONDS = 1800
TOLERANCE = 1e-5  # of the largest output; on one machine the difference is zero
LARGE = 10_000_000  # bytes, from where on files go to the Hub's large file storage in any case
# What an earlier publication in another format may have left.
OWN_FILES = (HEADS, PRETRAINING_INDEX, OPTIONS, CURVES)
CODE_FILES = tuple(path.name for path in (Path(__file__).parents[1] / "modeling_esvit").glob("*.py"))


class PublishError(EsViTError, RuntimeError):
    """A push that did not succeed. The folder is whole, if it can be read."""


class TokenError(PublishError):
    """There is no token, or the Hub does not know it."""


class PermissionRefusedError(PublishError):
    """The Hub knows who asks, and does not let them write there."""


class UnreachableHubError(PublishError):
    """No network, or a Hub that does not answer or cannot serve now."""


class UnreadableFolderError(PublishError):
    """A file of the folder is no longer there, or cannot be read. The same command writes the folder anew."""


class CheckError(PublishError):
    """What was published cannot be loaded by its name, or gives other outputs."""


@dataclass
class PublishOptions:
    """See `--help`."""

    source: Path
    repo_id: str
    checkpoint: str | None = None
    folder: Path | None = None
    native: bool = False
    private: bool = False
    gated: str | None = None
    revision: str | None = None
    create_pr: bool = False
    license: str = "apache-2.0"
    base_model: str | None = None
    metrics: list[Path] = field(default_factory=list)
    card: Path | None = None
    dry_run: bool = False
    check: bool = True

    @property
    def destination(self) -> Path:
        source = self.source.resolve()
        return self.folder or source.with_name(f"{source.name}-{'native' if self.native else 'hub'}")


# -- the folder --------------------------------------------------------------------------------------------------------


def prepare(options: PublishOptions) -> EsViTForPreTraining | EsViTModel:
    """Write the folder. Returns the model.

    Raises:
        SourceError, ConversionError, CardError: what is to be published is not, or cannot be; nothing is written.
    """
    check_destination(options.destination)
    source = find_source(options.source, options.checkpoint)
    with replace_folder(options.destination) as folder:
        model = write_weights(source, folder, options.native)
        write_history(source, folder)
        card = card_of(
            source,
            model,
            options.repo_id,
            license=options.license,
            base_model=options.base_model,
            metrics=options.metrics,
            native=options.native,
            files=files_of(folder),
        )
        text = card.render() if options.card is None else given_card(options.card, options.repo_id)
        check_card(text)
        (folder / "README.md").write_text(text)
    return model


def given_card(path: Path, repo_id: str) -> str:
    """A card of the user's; one of `model_cards/` gets the repository's name.

    Raises:
        CardError: it is not text.
    """
    try:
        return path.read_text(encoding="utf-8").replace(f"org/{path.stem}", repo_id)
    except UnicodeDecodeError as error:
        raise CardError(f"--card {path} is not text in UTF-8 ({error}).") from error


def describe_files(files: dict[str, int]) -> str:
    lines = [f"  {size:>13,}  {name}{' (large file)' if size > LARGE else ''}" for name, size in files.items()]
    return "\n".join([*lines, f"  {sum(files.values()):>13,}  bytes in {len(files)} files"])


# -- the push ----------------------------------------------------------------------------------------------------------


def push(options: PublishOptions, files: Iterable[str]) -> CommitInfo:
    """Create the repository if it is not there, close it before anything is in it if it is to be private or gated, and
    send `files` of the folder in one commit.

    Raises:
        TokenError, PermissionRefusedError, UnreachableHubError, UnreadableFolderError, PublishError: see there.
    """
    if get_token() is None:
        raise TokenError(
            "There is no token: log in with `hf auth login`, or set HF_TOKEN, with a token that may write."
        )
    api = HfApi()
    try:
        if not options.create_pr:
            open_repository(api, options)
        return api.create_commit(
            repo_id=options.repo_id,
            operations=[*deletions(api, options, files), *additions(options, files)],
            commit_message=f"EsViT model{' in the swin format of transformers' if options.native else ''}",
            revision=options.revision,
            create_pr=options.create_pr,
        )
    except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        explain(error, options.repo_id)


def open_repository(api: HfApi, options: PublishOptions) -> None:
    api.create_repo(options.repo_id, private=options.private or None, exist_ok=True)
    if options.gated or options.private:
        gate: Any = options.gated
        api.update_repo_settings(options.repo_id, gated=gate, private=options.private or None)
    if options.revision not in (None, constants.DEFAULT_REVISION):
        api.create_branch(options.repo_id, branch=options.revision, exist_ok=True)


def additions(options: PublishOptions, files: Iterable[str]) -> list[CommitOperationAdd]:
    """Of these files, not of what the folder holds now: half a model is not to be published."""
    try:
        return [CommitOperationAdd(name, options.destination / name) for name in files]
    except ValueError as error:
        raise FileNotFoundError(str(error)) from error


def deletions(api: HfApi, options: PublishOptions, files: Iterable[str]) -> list[CommitOperationDelete]:
    """Of files of a publication that this one has not, where an earlier one put them there."""
    gone = {*OWN_FILES, *CODE_FILES}.difference(files)
    there = api.list_repo_files(options.repo_id, revision=options.revision)
    return [CommitOperationDelete(name) for name in there if name in gone]


def explain(error: Exception, repo_id: str) -> NoReturn:
    """Raise what a refusal, a failure of the network or of the disk means for somebody who publishes."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if isinstance(error, RevisionNotFoundError):
        raise PublishError(f"{repo_id} has no such revision: {error}") from error
    if status == 401:
        raise TokenError(
            f"{constants.ENDPOINT} does not accept the token (or {repo_id} does not exist): log in again with "
            "`hf auth login`, or set HF_TOKEN."
        ) from error
    if status == 403:
        raise PermissionRefusedError(
            f"The token may not write to {repo_id}. It needs write access to that user's or organisation's "
            "repositories; `hf auth whoami` says whose token it is. To propose the model to others, use --create_pr."
        ) from error
    if status == 404:
        raise PermissionRefusedError(f"There is no {repo_id} that this token may see: {error}") from error
    refused = isinstance(error, HfHubHTTPError) and (status is None or status < 500 and status != 429)
    if refused or isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        raise PublishError(f"The Hub refused the push to {repo_id}: {error}") from error
    network = (HfHubHTTPError, httpx.HTTPError, ConnectionError, TimeoutError, json.JSONDecodeError)
    if not isinstance(error, network):  # the disk's
        raise UnreadableFolderError(f"What is to be sent to {repo_id} cannot be read here: {error}.") from error
    first_line = str(error).partition("\n")[0]
    raise UnreachableHubError(
        f"{constants.ENDPOINT} cannot be reached, or cannot answer now ({type(error).__name__}: {first_line})."
    ) from error


# -- the check ---------------------------------------------------------------------------------------------------------


def expected_outputs(model: EsViTForPreTraining | EsViTModel, folder: Path) -> dict[str, torch.Tensor]:
    """What a stranger has to get: of the network that was trained, on random images of its construction size."""
    config = model.config
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    images = torch.randn(2, config.num_channels, height, width, generator=torch.Generator().manual_seed(0))
    outputs = {"pixel_values": images}
    with torch.no_grad():
        outputs |= sample_outputs(AutoModel.from_pretrained(folder).eval(), images.to(model.dtype))
        if (folder / HEADS).is_file():
            outputs |= sample_outputs(model, images.to(model.dtype))
    return {name: tensor.clone().contiguous() for name, tensor in outputs.items()}


def check(repo_id: str, revision: str, outputs: dict[str, torch.Tensor]) -> float:
    """Load the published model by its name in a fresh process without our package and with an empty cache. Returns the
    largest difference to these outputs.

    Raises:
        CheckError: it does not load, or the difference is above TOLERANCE.
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
            raise CheckError(f"{repo_id} was not loaded back within {CHECK_SECONDS} seconds.") from error
        except KeyboardInterrupt as error:
            raise CheckError(f"{repo_id} was pushed ({revision}); loading it back was interrupted.") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckError(f"{repo_id} was pushed ({revision}), but does not load by its name: {reason}")
    found = json.loads(done.stdout.splitlines()[-1])
    wrong = {name: value for name, value in found.items() if not value <= TOLERANCE}
    if wrong:
        raise CheckError(f"{repo_id} was pushed ({revision}), but gives other outputs: {wrong}.")
    return max(found.values())


# -- the command -------------------------------------------------------------------------------------------------------


def publish(options: PublishOptions) -> CommitInfo | None:
    """Write, show, push, check. Returns the commit; None of a dry run."""
    model = prepare(options)
    folder = options.destination
    files = files_of(folder)
    print(f"{folder} is to be {options.repo_id}:\n{describe_files(files)}", flush=True)
    if options.dry_run:
        print("Nothing was sent (--dry_run).")
        return None
    expected = expected_outputs(model, folder) if options.check else {}
    try:
        with ended_by_signals(f"error: The push to {options.repo_id} was interrupted.\n{next_step(folder)}"):
            commit = push(options, files)
        print(f"Pushed: {commit.pr_url or commit.commit_url}", flush=True)
        if options.check:
            difference = check(options.repo_id, commit.oid, expected)
            print(f"Loaded back by its name in a fresh process: outputs differ by {difference:.1e} at most.")
    except PublishError as error:
        state = "will be written anew" if isinstance(error, UnreadableFolderError) else "is whole"
        raise type(error)(f"{error}\n{next_step(folder, state)}") from error
    return commit


@contextmanager
def ended_by_signals(message: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM end at once: an exception would wait until the client's threads have sent their files."""

    def end(number: int, frame: Any) -> None:
        os.write(sys.stderr.fileno(), f"\n{message}\n".encode())
        os._exit(1)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def next_step(folder: Path, state: str = "is whole") -> str:
    return f"The folder {folder} {state}; to try again: {shlex.join([sys.executable, *sys.argv])}"


def parse_arguments(arguments: list[str] | None = None) -> PublishOptions:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of a run, or of a model of this project")
    parser.add_argument("--repo_id", required=True, help="user/name or organisation/name")
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, help="of a run (default: the first of these that it has)")
    parser.add_argument("--folder", type=Path, help="where to write what is published (default: SOURCE-hub)")
    parser.add_argument("--native", action="store_true", help="in transformers' own swin format, the backbone alone")
    parser.add_argument("--private", action="store_true", help="a repository that only its owner sees")
    parser.add_argument(
        "--gated",
        nargs="?",
        const="auto",
        choices=("auto", "manual"),
        help="ask users to request access; who grants it",
    )
    parser.add_argument("--revision", help="branch to push to (default: main); created if it is not there")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead of changing the branch")
    parser.add_argument("--license", default="apache-2.0", help="of the weights (default: %(default)s)")
    parser.add_argument("--base_model", help="what it was trained from (default: init_from, if that is on the Hub)")
    parser.add_argument(
        "--metrics", type=Path, nargs="+", default=[], help="JSON files of the evaluation commands, for the card"
    )
    parser.add_argument(
        "--card", type=Path, help="your own README.md, or one of model_cards/, instead of a generated one"
    )
    parser.add_argument("--dry_run", action="store_true", help="write the folder and show it; send nothing")
    parser.add_argument("--no_check", action="store_false", dest="check", help="do not load the model back")
    options = PublishOptions(**vars(parser.parse_args(arguments)))
    try:
        check_repo_id(options.repo_id)
    except OptionError as error:
        parser.error(f"--repo_id: {error}")
    if options.create_pr and options.revision is not None:
        parser.error("--create_pr opens a pull request to main: leave --revision out")
    if options.create_pr and (options.private or options.gated):
        parser.error("--create_pr changes no settings of the repository: leave --private and --gated out")
    return options


def main(arguments: list[str] | None = None) -> None:
    transformers_logging.disable_progress_bar()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        publish(parse_arguments(arguments))
    except KeyboardInterrupt:
        sys.exit("error: interrupted; the same command begins anew.")
    except (PublishError, SourceError, CardError, ConversionError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
