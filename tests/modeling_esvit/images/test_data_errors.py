# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what becomes of the errors of `datasets`."""

import datasets
import pytest

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError, EmptySourceError, name_datasets_errors


GENERATION = datasets.exceptions.DatasetGenerationError("An error occurred")


@pytest.mark.parametrize(
    "error, expected, message",
    [
        (datasets.exceptions.DatasetNotFoundError("none"), DataNotFoundError, "'photos' is neither a file.*: none"),
        (ConnectionError("offline"), DataNotFoundError, "'photos' is neither a file.*: offline"),
        (ValueError("no split"), DataOptionError, "^'photos': no split"),
        (RuntimeError("Dataset scripts are no longer supported"), DataOptionError, "^'photos': Dataset scripts"),
        (GENERATION, DataOptionError, "^'photos' cannot be read: An error occurred"),
        (EmptySourceError("complete"), EmptySourceError, "^complete"),
    ],
)
def test_errors_of_datasets_are_named(error, expected, message):
    with pytest.raises(EsViTError, match=message) as found, name_datasets_errors("photos"):
        raise error
    assert type(found.value) is expected
