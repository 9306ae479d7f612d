# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a word that is no choice is refused with those that are."""

import pytest

from modeling_esvit.errors import ChoiceError, require_choice


@pytest.mark.parametrize("value", ["yes", True, None, 0])
def test_what_is_no_choice_is_refused(value):
    with pytest.raises(ChoiceError, match=f"compile is {value!r}; choose one of 'on', 'off'."):
        require_choice("compile", value, ("on", "off"))
    require_choice("compile", "off", ("on", "off"))
