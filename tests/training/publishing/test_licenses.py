# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which licences of a card the Hub takes."""

import pytest

from tests.hub.uploads import LICENSES as TAKEN
from training.publishing.licenses import LICENSES, find_license_problem


def test_names_are_those_of_the_hub():
    assert len(set(LICENSES)) == len(LICENSES) > 70 and set(TAKEN) < set(LICENSES)
    assert [find_license_problem({"license": name}) for name in TAKEN if name != "other"] == [None] * (len(TAKEN) - 1)
    assert find_license_problem({"license": ["mit", "apache-2.0"]}) is None


@pytest.mark.parametrize(
    "data, said",
    [
        ({"license": "Apache 2.0"}, "no license 'Apache 2.0'; did you mean apache-2.0"),
        ({"license": "proprietary"}, "https://huggingface.co/docs/hub/repositories-licenses; .* use 'other' with"),
        ({"license": ["mit", "mine"]}, "no license 'mine'"),
        ({"license": "other"}, "needs a license_name"),
        ({"license": 2.0}, "no license 2.0"),
    ],
)
def test_others_are_named_with_what_to_do(data, said):
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(find_license_problem(data))
