# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a failed write names its file, and is repeated where it may pass."""

import errno

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from modeling_esvit.storage.atomic import replace_file, replace_folder
from modeling_esvit.storage.failed_writes import name_failed_write, repeat_writing
from tests.helpers.full_disk import largest_file


@pytest.mark.parametrize("replace", [replace_file, replace_folder])
@pytest.mark.parametrize(
    "write", [lambda path: path.write_text("x" * 99), lambda path: save_file({"x": np.ones(9)}, path)]
)
def test_a_failed_write_names_the_file(tmp_path, replace, write):
    """Python's own error names no file, and safetensors' is none of the system."""
    final = tmp_path / "result"
    with pytest.raises(OSError, match="File too large") as raised, replace(final) as partial, largest_file(10):
        write(partial / "file" if replace is replace_folder else partial)
    assert raised.value.errno == errno.EFBIG and raised.value.filename == str(final)
    assert not final.exists()


def test_a_failed_write_of_torch_names_the_file(tmp_path):
    file = tmp_path / "optimizer.pt"
    with pytest.raises(OSError, match="is the disk full") as raised, name_failed_write(file), largest_file(100):
        torch.save(torch.ones(999), file)
    assert raised.value.filename == str(file)
    with pytest.raises(RuntimeError, match="^another$"), name_failed_write(file):
        raise RuntimeError("another")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ESTALE])
def test_what_may_pass_is_repeated_with_a_line(monkeypatch, caplog, number):
    waits, errors = [], iter([OSError(number, "No", "a.json"), OSError(number, "No", "a.json")])
    monkeypatch.setattr("modeling_esvit.storage.failed_writes.time.sleep", waits.append)

    def write() -> str:
        if error := next(errors, None):
            raise error
        return "written"

    assert repeat_writing(write) == "written" and waits == [1, 3]
    assert f"A write has failed ([Errno {number}] No: 'a.json'), and is tried again in 3 s." in caplog.text


def test_what_stays_is_raised(monkeypatch):
    tries = []
    monkeypatch.setattr("modeling_esvit.storage.failed_writes.time.sleep", lambda seconds: None)

    def write(number: int) -> None:
        tries.append(number)
        raise OSError(number, "No")

    for number in (errno.ENOSPC, errno.ENAMETOOLONG):
        with pytest.raises(OSError, match=f"Errno {number}"):
            repeat_writing(lambda number=number: write(number))
    assert tries == [*[errno.ENOSPC] * 4, errno.ENAMETOOLONG]
