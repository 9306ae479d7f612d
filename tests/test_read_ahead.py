# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""A program that ends while others read ahead for it ends well."""

import subprocess
import sys
import time
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import io, sys, time
import pyarrow, pyarrow.parquet
from modeling_esvit.read_ahead import in_order

buffer = io.BytesIO()
pyarrow.parquet.write_table(pyarrow.table({"a": list(range(1000))}), buffer)

class Slow(io.BytesIO):
    def read(self, *arguments):
        time.sleep(0.05)
        return super().read(*arguments)

def read(number):
    if number == WAITS:
        time.sleep(60)
    return pyarrow.parquet.read_table(pyarrow.PythonFile(Slow(buffer.getvalue()), mode="r")).num_rows

print(next(in_order(iter(range(100)), read, threads=2, ahead=4)))
"""


@pytest.mark.parametrize("waits", [None, 1])
def test_a_program_may_end_while_native_code_reads(waits):
    """pyarrow calls Python, which aborts a process that is ending; nor is a server waited for that does not answer."""
    started = time.monotonic()
    command = [sys.executable, "-c", PROGRAM.replace("WAITS", str(waits))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "1000\n"), done.stderr
    assert time.monotonic() - started < 40
