# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks spellings, old names and the help of all programs' parser."""

import argparse

import pytest

from modeling_esvit.programs.parser import OldNameError, ProgramParser, check_counts, check_name


TEXT = """Measures a model.

    python measure.py MODEL --batch_size 8
"""
HELP = """usage: measure.py MODEL --data DATA [options]

Measures a model.

    python measure.py MODEL --batch_size 8

  MODEL                 a model folder
  --data DATA           images, 1% of them
  --seed N              of the draws (default: 0)
  --workers N           threads (default: 4)
--help_all shows 7 more options.
"""


def make_parser() -> ProgramParser:
    parser = ProgramParser(TEXT, first="seed workers", prog="measure.py")
    parser.add_argument("model", help="a model folder")
    parser.add_argument("--batch_size", type=int, default=64, help="images in a batch")
    parser.add_argument("--workers", type=int, default=4, help="threads (default: %(default)s)")
    parser.add_argument("--data", required=True, metavar="DATA", help="images, 1%% of them")
    parser.add_argument("--point", nargs=2, type=int, metavar=("X", "Y"), help="where")
    parser.add_argument("--names", nargs="+", help="of some things")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--kind", nargs="+", default=(), choices=["view", "by place"])
    parser.add_argument("--scale", nargs=2, type=float, default=[0.4, 1.0])
    parser.add_argument("--no_check", action="store_false", help="do not look again")
    parser.add_argument("--of_the_program_itself", help=argparse.SUPPRESS)
    parser.add_argument("--fast", type=bool, nargs="?", const=True, default=False, help="be fast")
    return parser


@pytest.mark.parametrize("words", ["--batch-size 8", "--batch_size 8", "--batch-size=8", "--batch_size=8"])
def test_both_spellings(words):
    given = make_parser().parse_args(["a--b", "--data", "my-images", *words.split(), "--names", "a-b", "c"])
    assert (given.model, given.data, given.batch_size, given.names) == ("a--b", "my-images", 8, ["a-b", "c"])


@pytest.mark.parametrize("words", [["m", "--data="], ["m", "--data", "x", "--names", "a", " "], ["", "--data", "x"]])
def test_an_empty_word_is_not_taken_for_none(words, capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(words)
    assert "it is empty; give a value, or leave the option out" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--num_workers", "--num-workers=3", "--num_threads", "--threads"])
def test_old_names_are_refused_with_the_new_one(word, capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["model", "--data", "x", word, "3"])
    assert capsys.readouterr().err.splitlines() == [
        "usage: measure.py MODEL --data DATA [options], see --help",
        f"measure.py: error: {word.partition('=')[0]} is called --workers here.",
    ]


def test_a_type_is_called_as_the_program_calls_it():
    for name, other in (("dtype", "mixed_precision"), ("mixed_precision", "dtype")):
        check_name(name, [name])
        with pytest.raises(OldNameError, match=f"--{name} is called --{other} here"):
            check_name(name, [other])


def test_names_that_a_program_has_are_not_old():
    check_name("size", ["size"])
    check_name("size", ["height"])
    with pytest.raises(OldNameError, match="--size is called --image_size here"):
        check_name("size", ["image_size"])


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_shows_what_comes_first(word, capsys):
    with pytest.raises(SystemExit) as end:
        make_parser().parse_args([word])
    assert end.value.code == 0 and capsys.readouterr().out == HELP


def test_help_all_shows_everything(capsys):
    with pytest.raises(SystemExit) as end:
        make_parser().parse_args(["--help_all"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "  --batch_size N        images in a batch (default: 64)\n" in shown
    assert "  --kind view|'by place' ...\n" in shown
    assert "  --scale X X           (default: 0.4 1.0)\n" in shown
    assert "  --no_check            do not look again\n  --fast                be fast\n" in shown
    assert "  --point X Y           where\n  --names NAMES ...     of some things\n" in shown
    assert "None" not in shown and "more options" not in shown


def test_counts(capsys):
    options = argparse.Namespace(k=1, size=None, workers=0)
    check_counts(argparse.ArgumentParser(), options, "k", "size")
    with pytest.raises(SystemExit):
        check_counts(argparse.ArgumentParser(), options, "k", "workers")
    assert "--workers must be at least 1, got 0" in capsys.readouterr().err


def test_passwords_of_options_are_not_shown(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--batch_size", "https://ada:secret@host/m"])
    assert "invalid int value: 'https://host/m'" in capsys.readouterr().err
