# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which errors a program prints as a message alone, and which seeds are refused."""

import argparse

import pytest

from modeling_esvit.errors import EsViTError
from training.options.command import parse_seed, run_command
from training.options.pretrain_options import LARGEST_SEED


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [EsViTError("It is empty."), FileNotFoundError(2, "No such file", "a.png")])
def test_errors_that_a_user_can_put_right_are_a_message(error):
    with pytest.raises(SystemExit) as end:
        run_command(lambda: fail(error))
    assert end.value.code == f"error: {error}"


def test_a_lost_process_is_a_message():
    with pytest.raises(SystemExit, match="^error: Process . of . .*lost another one"):
        run_command(
            lambda: fail(RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:1] Reset by peer"))
        )


@pytest.mark.parametrize("error", [OSError("Something broke."), KeyError("name")])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)) as raised:
        run_command(lambda: fail(error))
    assert raised.value is error


@pytest.mark.parametrize("text", ["-1", str(LARGEST_SEED + 1), "1.5", "", "9" * 5000])
def test_what_is_no_seed_for_every_library_is_refused(text, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=parse_seed)
    assert parser.parse_args(["--seed", str(LARGEST_SEED)]).seed == LARGEST_SEED
    with pytest.raises(SystemExit):
        parser.parse_args([f"--seed={text}"])
    assert f"a seed is a whole number from 0 to {LARGEST_SEED}" in capsys.readouterr().err


def test_ctrl_c_is_a_line(capsys):
    with pytest.raises(SystemExit, match="130"):
        run_command(lambda: fail(KeyboardInterrupt()))
    assert capsys.readouterr().err == "\nStopped by Ctrl-C.\n"


def test_a_missing_package_is_a_line():
    with pytest.raises(SystemExit) as end:
        run_command(lambda: fail(ModuleNotFoundError("No module named 'evaluate'", name="evaluate")))
    assert end.value.code == "error: this needs the package evaluate: pip install -e '.[training]'"
    for name in (None, "training.no_such"):
        with pytest.raises(ModuleNotFoundError):
            run_command(lambda name=name: fail(ModuleNotFoundError("No module named", name=name)))
