# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the command lines of all programs: one name for each thing in two spellings, and help of one screen.

    parser = ProgramParser(__doc__, first="train test k output")
    parser.add_argument("--batch_size", type=int, default=64, help="images in a batch")   # also --batch-size

`--help` shows the program's text with its examples and the first options, `--help_all` all of them.
"""

import argparse
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from modeling_esvit.errors import EsViTError
from modeling_esvit.storage.url_secrets import redact_urls


# Names that options had before, or have in another program -> those that they have, where a program has those alone.
RENAMED = {
    "num_workers": "workers",
    "num_threads": "workers",
    "threads": "workers",
    "size": "image_size",
    "output_dir": "output",
    "folder": "output",
    "mixed_precision": "dtype",  # of weights and images, and of autocast in training
    "dtype": "mixed_precision",
}
FIRST = 10  # options that --help shows
WIDTH = 100  # columns of the help, or those of the terminal if it has fewer
INDENT = 24
NUMBERS: dict[Any, str] = {int: "N", float: "X"}  # what their values are called


class OldNameError(EsViTError, ValueError):
    """Raised when an option is called by a name that it had before, or has in another program."""


def check_name(name: str, known: Sequence[str]) -> None:
    """Refuses a name that an option had before, or has in another program.

    Raises:
        OldNameError: it is one, and `known` has the right one.
    """
    new = RENAMED.get(name.replace("-", "_"))
    if new in known and name.replace("-", "_") not in known:
        raise OldNameError(f"--{name} is called --{new} here.")


def check_counts(parser: argparse.ArgumentParser, options: argparse.Namespace, *names: str) -> None:
    """Refuses options below 1. Options that were not given, and have no default, are None and pass."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")


def spell(word: str, known: Sequence[str]) -> str:
    """Returns a word of a command line with underscores, if it is an option in the spelling with dashes.

    Raises:
        OldNameError: see `check_name`.
    """
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    check_name(name, known)
    underscored = name.replace("-", "_")
    return f"--{underscored}{equals}{value}" if underscored in known and name not in known else word


class HelpOfOneScreen(argparse.ArgumentParser):
    """Adds both spellings and `--help_all` to a parser of any kind; `text` and `first` are set by its subclasses."""

    text: str = ""
    first: Sequence[str] = ()

    def list_known(self) -> list[str]:
        """Returns the names of all options, without dashes."""
        return [flag[2:] for action in self._actions for flag in action.option_strings if flag.startswith("--")]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses a command line in both spellings, and shows the help that it asks for."""
        words, known = list(sys.argv[1:] if args is None else args), self.list_known()
        try:
            words = [spell(word, known) for word in words]
        except OldNameError as error:
            self.error(str(error))
        if "--help_all" in words:
            print(self.describe(self.list_options()))
            self.exit()
        return super().parse_known_args(words, namespace)

    def list_options(self) -> list[argparse.Action]:
        """Returns the options that are shown."""
        hidden = [action for action in self._actions if action.dest == "help" or action.help == argparse.SUPPRESS]
        return [action for action in self._actions if action.option_strings and action not in hidden]

    def choose_first(self) -> list[argparse.Action]:
        """Returns those options that come first: what is required, then those of `first`, then others."""
        options = self.list_options()
        named = {action.dest: action for action in options}
        chosen = [action for action in options if action.required]
        chosen += [named[name] for name in self.first if name in named]
        return list(dict.fromkeys([*chosen, *(() if self.first else options)]))[:FIRST]

    def error(self, message: str) -> NoReturn:
        """Ends the program with what is wrong with its options, without passwords and queries of URLs."""
        super().error(redact_urls(message))

    def format_help(self) -> str:
        return self.describe(self.choose_first())

    def format_usage(self) -> str:
        """Returns the line that stands before an error."""
        needed = [action for action in self._actions if not action.option_strings or action.required]
        needed.sort(key=lambda action: bool(action.option_strings))
        return " ".join(["usage:", self.prog, *map(name_argument, needed), "[options], see --help\n"])

    def describe(self, options: Sequence[argparse.Action]) -> str:
        """Returns usage and text of the program, its arguments, and some of its options."""
        places = [action for action in self._actions if not action.option_strings]
        usage = self.format_usage().removesuffix(", see --help\n")
        more = len(self.list_options()) - len(options)
        end = [f"--help_all shows {more} more options."] if more else []
        lines = [line for action in (*places, *options) for line in describe_action(action)]
        return "\n".join([usage, "", self.text.strip(), "", *lines, *end, ""])


def name_values(action: argparse.Action) -> str:
    """Returns how the values of an argument are named, such as `MODEL`, `N ...` (whole numbers) or `view|region`."""
    if action.nargs == 0 or action.nargs == "?" and action.const is True:  # a switch
        return ""
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    choices = "|".join(shlex.quote(str(choice)) for choice in action.choices or ())
    name = action.metavar or choices or NUMBERS.get(action.type) or action.dest.upper()
    if isinstance(action.nargs, int):
        return " ".join([name] * action.nargs)
    return f"{name} ..." if action.nargs in ("+", "*") else name


def name_argument(action: argparse.Action) -> str:
    """Returns an argument as it is typed, such as `MODEL` or `--seed N`."""
    flag = next((flag for flag in action.option_strings if flag.startswith("--")), "")
    return f"{flag} {name_values(action)}".strip()


def describe_action(action: argparse.Action) -> Iterator[str]:
    """Yields the lines of an argument or option: its name and values, its help, its default where it says something."""
    head = f"  {name_argument(action)}"
    text = ((action.help or "") % {**vars(action), "prog": "", "default": action.default}).removesuffix(".")
    values = action.default if isinstance(action.default, list | tuple) else [action.default]
    shown = " ".join(str(value) for value in values if value is not None and not isinstance(value, bool))
    if action.option_strings and shown not in ("", argparse.SUPPRESS) and "default" not in text:
        text = f"{text} (default: {shown})".lstrip()
    width = min(shutil.get_terminal_size().columns, WIDTH) - INDENT
    wrapped = textwrap.wrap(text, max(width, 20)) or [""]
    if len(head) < INDENT - 1:
        yield head.ljust(INDENT) + wrapped.pop(0)
    else:
        yield head
    yield from (" " * INDENT + line for line in wrapped)


def parse_text(text: str) -> str:
    """Returns a word of a command line as it is.

    Raises:
        ArgumentTypeError: it is empty, as an unset variable of a shell is, and would mean that nobody gave it.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "it is empty; give a value, or leave the option out (is a variable of the shell not set?)"
        )
    return text


class ProgramParser(HelpOfOneScreen):
    """Parses the command line of a program; see [`HelpOfOneScreen`]. It refuses empty words, see [`parse_text`].

    Args:
        text: what the program does, and examples: its docstring.
        first: the most important options, one after the other; those that are required come before them.
        options: of `argparse.ArgumentParser`.
    """

    def __init__(self, text: str | None = None, first: str = "", **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self.register("type", None, parse_text)
        self.text, self.first = text or "", first.split()
