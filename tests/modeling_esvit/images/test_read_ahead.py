# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""A program that ends, or fails, while others read ahead for it, leaves nothing behind."""

import gc
import threading

import pytest

from modeling_esvit.images.read_ahead import in_order
from tests.helpers.commands import run_program
from tests.helpers.waiting import wait_for


PROGRAM = """
import io, sys, time
import pyarrow, pyarrow.parquet
from modeling_esvit.images.read_ahead import in_order

buffer = io.BytesIO()
pyarrow.parquet.write_table(pyarrow.table({"a": list(range(1000))}), buffer)

class Slow(io.BytesIO):
    def read(self, *arguments):
        time.sleep(0.05)
        return super().read(*arguments)

def read(number):
    if number == WAITS:
        time.sleep(1000)
    return pyarrow.parquet.read_table(pyarrow.PythonFile(Slow(buffer.getvalue()), mode="r")).num_rows

print(next(in_order(iter(range(100)), read, threads=2, ahead=4)))
"""


@pytest.mark.parametrize("waits", [None, 1])
def test_a_program_may_end_while_native_code_reads(waits):
    """pyarrow calls Python, which aborts a process that is ending; nor is a server waited for that does not answer."""
    done = run_program(["python", "-c", PROGRAM.replace("WAITS", str(waits))])
    assert done.stdout == "1000\n", done.stderr


LEAVING = """
import threading, time
from modeling_esvit.images.read_ahead import in_order

own = threading.local()

class Kept:
    def __del__(self):
        time.sleep(0.5)
        print("left", flush=True)

def action(number):
    own.kept = Kept()

print(list(in_order(iter(range(1)), action, threads=1, ahead=1)), flush=True)
"""


def test_a_program_waits_for_threads_that_leave():
    """What torch keeps for a thread aborts a process that ends meanwhile."""
    done = run_program(["python", "-c", LEAVING])
    assert done.stdout == "[None]\nleft\n", done.stderr


def test_an_error_leaves_nothing_behind():
    """Not even until the next collection: a traceback that its own frames hold would keep readers and threads."""

    def action(number):
        if number == 2:
            raise ValueError("of two")
        return number

    def reader():
        outer = in_order(iter(range(8)), str, threads=2, ahead=4)  # is not at its end when the inner one fails
        yield next(outer)
        yield from in_order(iter(range(3)), action, threads=2, ahead=4)

    before = set(threading.enumerate())
    gc.disable()
    try:
        with pytest.raises(ValueError, match="of two"):
            list(reader())
        wait_for(lambda: not set(threading.enumerate()) - before, seconds=300)
    finally:
        gc.enable()
    assert not set(threading.enumerate()) - before
