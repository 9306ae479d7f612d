# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that libraries are silenced below errors, and no longer than asked."""

import logging
import warnings

import pytest

from modeling_esvit.programs.notes import hide_notes


def test_notes_are_hidden_and_errors_are_not(capsys, caplog):
    logger = logging.getLogger("a.library")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with hide_notes():
            print("step 1 of 3")
            warnings.warn("experimental", stacklevel=1)
            logger.warning("experimental")
            logger.error("broken")
    logger.warning("afterwards")
    assert capsys.readouterr().out == "" and caplog.messages == ["broken", "afterwards"]
    with pytest.raises(ZeroDivisionError), hide_notes():
        raise ZeroDivisionError
    assert logging.root.manager.disable == logging.NOTSET
