# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks reading ahead: its order, and that a program that ends or fails meanwhile leaves nothing behind."""

import gc
import os
import threading
from collections import Counter

import pytest

from modeling_esvit.images.read_ahead import in_order
from tests.helpers.commands import run_program
from tests.helpers.paths import ROOT
from training.data.shard_files import ShardError


# Handlers run in the opposite order: `ended` is set before the readers are waited for, `late` after that. The module is
# loaded alone, because importing the package takes seconds.
BEGIN = f"""
import atexit, importlib.util, io, threading
ended, late, inside, for_ever = (threading.Event() for _ in range(4))
atexit.register(late.set)
spec = importlib.util.spec_from_file_location("read_ahead", {str(ROOT / "modeling_esvit/images/read_ahead.py")!r})
read_ahead = importlib.util.module_from_spec(spec)
spec.loader.exec_module(read_ahead)
abandonable, in_order = read_ahead.abandonable, read_ahead.in_order
atexit.register(ended.set)
"""
READING = """
import pyarrow, pyarrow.parquet

buffer = io.BytesIO()
pyarrow.parquet.write_table(pyarrow.table({"a": list(range(1000))}), buffer)

class Slow(io.BytesIO):
    def read(self, *arguments):
        inside.set()
        ended.wait()
        return super().read(*arguments)

def read(number):
    if number == 0:
        return 1000
    if number == WAITS:
        with abandonable():
            for_ever.wait()
    # In this thread alone, as shards are read: nothing is known of the threads of pyarrow's own.
    source = pyarrow.PythonFile(Slow(buffer.getvalue()), mode="r")
    with pyarrow.parquet.ParquetFile(source, pre_buffer=False) as file:
        return file.read(use_threads=False).num_rows

results = in_order(iter(range(100)), read, threads=2, ahead=4)
print(next(results))
inside.wait()
"""
NESTED = """
def inner(number):
    inside.set()
    with abandonable():
        for_ever.wait()

def outer(number):
    return number and list(in_order(iter(range(2)), inner, threads=2, ahead=2))

results = in_order(iter(range(3)), outer, threads=2, ahead=2)
print(next(results))
inside.wait()
"""
ANSWERED = """
def action(number):
    if number:
        inside.set()
        with abandonable():
            late.wait()
        print("worked on", flush=True)

results = in_order(iter(range(3)), action, threads=2, ahead=2)
print(next(results))
inside.wait()
"""
LEAVING = """
own = threading.local()

class Kept:
    def __del__(self):
        ended.wait()
        print("left", flush=True)

def action(number):
    own.kept = Kept()

print(list(in_order(iter(range(1)), action, threads=1, ahead=1)), flush=True)
"""
FORKED = """
import os
results = in_order(iter(range(4)), str, threads=2, ahead=2)
next(results)
if os.fork() == 0:
    print(list(in_order(iter(range(3)), str, threads=2, ahead=2)))
else:
    os.wait()
"""


def run(program: str) -> str:
    """Returns what a program prints; it must end well, and by itself."""
    done = run_program(["python", "-c", BEGIN + program])
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("waits", [None, 1])
def test_a_program_may_end_while_native_code_reads(waits):
    """pyarrow calls Python, which aborts a process that is ending; nor is a server waited for that does not answer."""
    assert run(READING.replace("WAITS", str(waits))) == "1000\n"


def test_a_program_may_end_while_a_reader_waits_for_other_readers():
    assert run(NESTED) == "0\n"


def test_what_a_server_answers_at_the_end_is_not_worked_on():
    assert run(ANSWERED) == "None\n"


def test_a_program_waits_for_threads_that_leave():
    """What torch keeps for a thread aborts a process that ends meanwhile."""
    assert run(LEAVING) == "[None]\nleft\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_reads_ahead_and_ends():
    assert run(FORKED) == "['0', '1', '2']\n"


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
        for thread in set(threading.enumerate()) - before:
            thread.join(timeout=60)
    finally:
        gc.enable()
    assert not set(threading.enumerate()) - before


def test_errors_come_in_the_place_of_their_result():
    def action(number):
        if number == 3:
            raise ShardError("three")
        return number

    results = in_order(iter(range(9)), action, threads=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ShardError, match="three"):
        next(results)


def test_no_more_is_read_ahead_than_said():
    begun = Counter()
    results = in_order(iter(range(100)), lambda number: begun.update([number]), threads=2, ahead=10)
    for _ in range(5):
        next(results)
    results.close()
    assert 5 <= len(begun) <= 17
