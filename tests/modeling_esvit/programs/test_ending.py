# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how programs of the package end."""

import pytest

from modeling_esvit.errors import EsViTError
from modeling_esvit.programs.ending import INTERRUPTED, exit_with_message


@pytest.mark.parametrize("error", [EsViTError("no such model"), FileNotFoundError("no such model")])
def test_errors_of_users_are_a_line(error):
    with pytest.raises(SystemExit, match="^error: no such model$"), exit_with_message():
        raise error


def test_other_errors_are_shown_whole():
    with pytest.raises(ZeroDivisionError), exit_with_message():
        raise ZeroDivisionError


def test_ctrl_c_is_a_line(capsys):
    with pytest.raises(SystemExit) as ended, exit_with_message():
        raise KeyboardInterrupt
    assert ended.value.code == INTERRUPTED and capsys.readouterr().err == "\nStopped by Ctrl-C.\n"
