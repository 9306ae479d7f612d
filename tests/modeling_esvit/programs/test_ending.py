# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how programs of the package end."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from torch.distributed import DistBackendError

from modeling_esvit.errors import EsViTError
from modeling_esvit.programs.ending import INTERRUPTED, TERMINATED, exit_with_message


@pytest.mark.parametrize("error", [EsViTError("no such model"), FileNotFoundError("no such model")])
def test_errors_of_users_are_a_line(error):
    with pytest.raises(SystemExit, match="^error: no such model$"), exit_with_message():
        raise error


def test_what_strangers_wrote_does_not_change_the_terminal():
    with pytest.raises(SystemExit) as ended, exit_with_message():
        raise EsViTError("no model of type \x1b]0;mine\x07:\n\x9b2J\ttried")
    assert ended.value.code == "error: no model of type \\x1b]0;mine\\x07:\n\\x9b2J\ttried"


def test_passwords_are_not_shown():
    with pytest.raises(SystemExit, match="^error: no model 'https://host/m' or 'https://host/n'$"), exit_with_message():
        raise EsViTError("no model 'https://ada:secret@host/m' or 'https://host/n?sig=secret'")


def test_a_lost_process_is_a_line():
    with pytest.raises(SystemExit, match="^error: Process . of . .*lost another one"), exit_with_message():
        raise DistBackendError("the other has gone")


def test_other_errors_are_shown_whole():
    with pytest.raises(ZeroDivisionError), exit_with_message():
        raise ZeroDivisionError


def test_ctrl_c_is_a_line(capsys):
    with pytest.raises(SystemExit) as ended, exit_with_message():
        raise KeyboardInterrupt
    assert ended.value.code == INTERRUPTED and capsys.readouterr().err == "\nStopped by Ctrl-C.\n"


def test_sigterm_is_a_line_after_what_ctrl_c_would_clean_up(capsys):
    """Launchers and schedulers send it; temporary folders of features stayed behind, of gigabytes."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, exit_with_message(), TemporaryDirectory() as folder:
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == TERMINATED and capsys.readouterr().err == "\nStopped by SIGTERM.\n"
    assert not Path(folder).exists() and signal.getsignal(signal.SIGTERM) is before


def test_sigterm_stays_what_the_program_made_it():
    with exit_with_message():
        mine = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.signal(signal.SIGTERM, signal.SIG_DFL) is signal.SIG_IGN and mine is not None
    with ThreadPoolExecutor(1) as threads:  # where signals cannot be set
        assert threads.submit(run_nothing).result() is None


def run_nothing() -> None:
    with exit_with_message():
        pass
