# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Publishes a run's model, a model folder or a converted checkpoint on the Hub, in one commit.

    python training/publish.py runs/mine --repo_id org/name --dry_run      # writes the folder, sends nothing
    python training/publish.py runs/mine --repo_id org/name --private
    python training/publish.py runs/mine --repo_id org/name --checkpoint best --create_pr
    python training/publish.py esvit-swin-t --repo_id org/name --native    # transformers' own swin format

The folder is written first and stays, whatever happens then. If the push breaks off, the same command continues it:
files that arrived are not sent again. The token is that of `hf auth login`, or HF_TOKEN. Finally the model is loaded
from the Hub, in a process of its own, and must reproduce the outputs.

The first time that a model becomes public, the command asks; scripts say `--yes`, or `--private`.
"""

import os
import re
import shlex
import sys
from argparse import ArgumentParser
from dataclasses import dataclass, field
from pathlib import Path

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

from huggingface_hub import CommitInfo
from transformers.utils import logging as transformers_logging

from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.paths import parse_path
from modeling_esvit.storage.weights_record import RECORD, WeightsRecord
from training.options.command import run_command
from training.options.errors import OptionError
from training.options.hub_names import check_repo_id, is_hub_name
from training.publishing.card import build_card, write_card
from training.publishing.folder import describe_files, list_files, stage_folder, write_model
from training.publishing.hub import (
    PublishError,
    Repository,
    UnreadableFolderError,
    check_outputs,
    compute_outputs,
    decide_visibility,
    exit_on_signals,
    push,
)
from training.publishing.licenses import License
from training.publishing.source import CHECKPOINTS, find_source


@dataclass
class PublishOptions:
    """Holds the options of the command: see `--help`."""

    source: Path
    repo_id: str
    checkpoint: str | None = None
    output: Path | None = None
    native: bool = False
    private: bool = False
    gated: str | None = None
    revision: str | None = None
    create_pr: bool = False
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    base_model: str | None = None
    metrics: list[Path] = field(default_factory=list)
    benchmark: list[str] = field(default_factory=list)
    card: Path | None = None
    dry_run: bool = False
    check: bool = True
    yes: bool = False
    private_if_new: bool = False

    @property
    def destination(self) -> Path:
        source = self.source.resolve()
        return self.output or source.with_name(f"{source.name}-{'native' if self.native else 'hub'}")

    @property
    def benchmarks(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in self.benchmark)

    @property
    def repository(self) -> Repository:
        return Repository(self.repo_id, self.revision, self.create_pr, self.private, self.gated)


def publish(options: PublishOptions) -> CommitInfo | None:
    """Writes the folder, shows it, pushes it and checks what arrived. Returns the commit; None of a dry run.

    Raises:
        SourceError, FolderError, ConversionError, CardError: The model cannot be published; no folder is written.
        PublishError: The push or the check failed; the folder stays.
    """
    source = find_source(options.source, options.checkpoint)
    license, remark = choose_license(options, source.weights)
    with stage_folder(options.destination) as folder:
        model = write_model(source, folder, options.native)
        card = build_card(
            folder,
            source,
            model,
            options.repo_id,
            license=license,
            base_model=options.base_model,
            metrics=options.metrics,
            native=options.native,
        )
        write_card(folder, card, options.card, options.benchmarks)
    files = list_files(options.destination)
    print(f"{options.destination} will be {options.repo_id}:\n{describe_files(files)}", flush=True)
    if remark and options.card is None:
        print(remark)
    if options.dry_run:
        print("Nothing was sent (--dry_run).")
        return None
    repository = decide_visibility(options.repository, is_confirmed=options.yes, private_if_new=options.private_if_new)
    expected = compute_outputs(model, options.destination) if options.check else {}
    with exit_on_signals(f"error: The push to {options.repo_id} was interrupted.\n{describe_retry(options)}"):
        message = f"EsViT model{' in the swin format of transformers' if options.native else ''}"
        commit = push(options.destination, files, repository, message)
    print(f"Pushed: {commit.pr_url or commit.commit_url}", flush=True)
    if options.check:
        difference = check_outputs(options.repo_id, commit.oid, expected)
        print(f"Loaded back by its name in a fresh process: outputs differ by {difference:.1e} at most.")
    return commit


def choose_license(options: PublishOptions, weights: WeightsRecord | None) -> tuple[License | None, str | None]:
    """Returns the licence that the card names, and a remark unless it is simply the one that was given."""
    stated = weights.license if weights else None
    given = License(options.license, options.license_name, options.license_link) if options.license else None
    if given is None and stated is not None:
        return License(stated), f"The card names the licence {stated}, which is recorded with the weights ({RECORD})."
    if given is None:
        return (
            None,
            "The card names no licence, and without one nobody may use the model: --license apache-2.0, mit, ...",
        )
    if stated not in (None, given.identifier):
        return given, f"Note: the card names the licence {given.identifier}, but the weights have {stated} ({RECORD})."
    return given, None


def describe_retry(options: PublishOptions, state: str = "is whole") -> str:
    return f"The folder {options.destination} {state}; to try again: {shlex.join([sys.executable, *sys.argv])}"


def add_repository_arguments(parser: ArgumentParser) -> None:
    """Adds who may see the repository, and what of it changes."""
    parser.add_argument("--private", action="store_true", help="make the repository visible to its owner only")
    parser.add_argument(
        "--private_if_new", action="store_true", help="as --private, if the repository does not exist yet (for scripts)"
    )
    parser.add_argument(
        "--yes", action="store_true", help="do not ask before a model becomes public for the first time (for scripts)"
    )
    parser.add_argument(
        "--gated",
        nargs="?",
        const="auto",
        choices=("auto", "manual"),
        help="make users request access; auto, or no value, grants it at once, manual leaves it to you",
    )
    parser.add_argument("--revision", help="branch to push to, created if it does not exist (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead of changing the branch")


def add_card_arguments(parser: ArgumentParser) -> None:
    """Adds what the card of the model says."""
    parser.add_argument(
        "--license",
        help="licence of the weights, such as apache-2.0 (default: what is recorded with the weights, or none)",
    )
    parser.add_argument("--license_name", help="what a licence is called that the Hub does not know (--license other)")
    parser.add_argument("--license_link", help="where that licence is: a URL, or a file of the repository")
    parser.add_argument(
        "--base_model", help="model that it was trained from (default: the run's init_from if that is on the Hub)"
    )
    parser.add_argument(
        "--metrics", type=parse_path, nargs="+", default=[], help="JSON files of the evaluation commands, for the card"
    )
    parser.add_argument(
        "--benchmark",
        nargs="+",
        default=[],
        metavar="DATASET=TASK",
        help="results on these data sets are for leaderboards: benchmarks on the Hub, with the task of their eval.yaml",
    )
    parser.add_argument(
        "--card", type=parse_path, help="your own README.md, or one of model_cards/, instead of a generated one"
    )


def check_options(parser: ArgumentParser, options: PublishOptions) -> None:
    """Ends the program with a line if options are no names, or contradict each other."""
    try:
        check_repo_id(options.repo_id)
    except OptionError as error:
        parser.error(f"--repo_id: {error}")
    if wrong := [pair for pair in options.benchmark if not re.fullmatch(r"[^=]+/[^=]+=.+", pair)]:
        parser.error(f"--benchmark {wrong[0]} must be DATASET=TASK, such as org/name=default")
    base = options.base_model
    if base is not None and (not is_hub_name(base) or os.path.exists(base)):
        parser.error(f"--base_model {options.base_model} is no name on the Hub, such as org/name")
    if options.license is None and (options.license_name or options.license_link):
        parser.error("--license_name and --license_link describe a licence that the Hub does not know: --license other")
    if options.create_pr and options.revision is not None:
        parser.error("--create_pr opens a pull request to main: leave --revision out")
    if options.create_pr and (options.private or options.private_if_new or options.gated):
        parser.error("--create_pr changes no settings of the repository: leave --private and --gated out")


def parse_arguments(arguments: list[str] | None = None) -> PublishOptions:
    parser = ProgramParser(__doc__, first="dry_run private checkpoint metrics native license output")
    parser.add_argument("source", type=parse_path, help="folder of a run, or of a model of this project")
    parser.add_argument("--repo_id", required=True, help="user/name or organisation/name")
    parser.add_argument(
        "--checkpoint", choices=CHECKPOINTS, help="which model of a run (default: the first of these that it has)"
    )
    parser.add_argument("--output", type=parse_path, help="folder to write and push (default: SOURCE-hub)")
    parser.add_argument("--native", action="store_true", help="use transformers' own swin format; the backbone alone")
    add_repository_arguments(parser)
    add_card_arguments(parser)
    parser.add_argument("--dry_run", action="store_true", help="write the folder and show it; send nothing")
    parser.add_argument("--no_check", action="store_false", dest="check", help="do not load the model back")
    options = PublishOptions(**vars(parser.parse_args(arguments)))
    check_options(parser, options)
    return options


def run(options: PublishOptions) -> None:
    """Publishes, and says how to go on if the push fails."""
    try:
        publish(options)
    except KeyboardInterrupt:
        sys.exit("error: The command was interrupted; run it again to start over.")
    except PublishError as error:
        state = "will be written anew" if isinstance(error, UnreadableFolderError) else "is whole"
        sys.exit(f"error: {error}\n{describe_retry(options, state)}")


def main(arguments: list[str] | None = None) -> None:
    transformers_logging.disable_progress_bar()
    options = parse_arguments(arguments)
    run_command(lambda: run(options))


if __name__ == "__main__":
    main()
