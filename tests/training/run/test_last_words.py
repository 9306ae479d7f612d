# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how a program ends: with a message alone for what a user can put right, with a traceback for anything else."""

import signal

import pytest

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import DataOptionError
from training.monitoring.monitor import NonFiniteLossError
from training.options.errors import OptionError, SharedError
from training.run import last_words
from training.run.checks import PreparationError
from training.run.last_words import exit_as_one
from training.state.checkpoints import ResumeError
from training.state.files import FolderInUseError
from training.state.interruption import InterruptedRunError


MISSING = FileNotFoundError(2, "No such file or directory", "photographs/a.png")
WORKER = DataOptionError("Caught DataOptionError in DataLoader worker process 0.\nTraceback ...\nDataOptionError: bad.")


@pytest.mark.parametrize(
    "error, message",
    [(DataOptionError("It is empty."), "It is empty."), (MISSING, str(MISSING)), (WORKER, "bad.")],
)
def test_the_message_alone(error, message):
    with pytest.raises(SystemExit) as end, exit_as_one():
        raise error
    assert end.value.code == f"error: {message}"


@pytest.mark.parametrize("error", [OSError("Something broke."), RuntimeError("A fault."), KeyError("name")])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)) as raised, exit_as_one():
        raise error
    assert raised.value is error


@pytest.mark.parametrize("error", [SharedError("All of us."), InterruptedRunError(signal.SIGTERM, 3)])
def test_only_the_main_process_reports_what_all_raise(error, monkeypatch, capsys):
    monkeypatch.setattr(last_words.time, "sleep", lambda seconds: None)
    code = 75 if isinstance(error, InterruptedRunError) else 1
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as silent, exit_as_one():
        raise error
    assert silent.value.code == code and capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SystemExit) as end, exit_as_one():
        raise error
    assert str(error) in (str(end.value.code) + capsys.readouterr().err)


def test_an_error_of_one_process_is_reported_by_it(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit, match="error: My shard is damaged"), exit_as_one():
        raise EsViTError("My shard is damaged.")


def test_errors_that_all_processes_raise_say_so_by_their_base():
    shared = (PreparationError, OptionError, NonFiniteLossError, ResumeError, FolderInUseError)
    assert all(issubclass(error, SharedError) for error in shared) and not issubclass(DataOptionError, SharedError)


def test_ctrl_c_is_a_line_of_the_main_process(monkeypatch, capsys):
    monkeypatch.setattr(last_words.time, "sleep", lambda seconds: None)
    for rank, line in (
        ("1", ""),
        ("0", "\nEnded at once by Ctrl-C. The same command continues from the last checkpoint, if there is one.\n"),
    ):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit, match="130"), exit_as_one():
            raise KeyboardInterrupt
        assert capsys.readouterr().err == line
