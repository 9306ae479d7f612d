# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs an action on many items in several threads, ahead of the caller, and returns the results in order.

A thread that is inside native code (of torch, OpenCV, pyarrow) when the interpreter ends aborts the process. So a
program waits at its end for the items under way, however long they take. Only an action that waits for a server may be
left behind: it says so by [`abandonable`]. No clock is involved.
"""

import atexit
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from enum import Enum
from queue import SimpleQueue
from threading import Condition, Thread, current_thread
from typing import TypeVar


Item = TypeVar("Item")
Result = TypeVar("Result")

THREAD_NAME = "read-ahead"


class State(Enum):
    """Names what a reading thread does."""

    IDLE = "waits for an item"
    WORKING = "runs an action"
    ABANDONABLE = "waits for a server, or for ever"
    DEPARTED = "does nothing more"


class Readers:
    """Holds the state of each reading thread, so that the program can end when none is inside native code."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.states: dict[Thread, State] = {}
        self.leaving: set[Thread] = set()  # threads that were told to depart
        self.ending = False

    def add(self, threads: list[Thread]) -> None:
        with self.changed:
            for thread in [thread for thread, state in self.states.items() if state is State.DEPARTED]:
                if not thread.is_alive():
                    del self.states[thread]
                    self.leaving.discard(thread)
            self.states.update(dict.fromkeys(threads, State.IDLE))

    def dismiss(self, threads: list[Thread], tasks: SimpleQueue) -> None:
        """Lets threads depart, unless the program is ending: then they stay where they are."""
        with self.changed:
            if not self.ending:
                self.leaving.update(threads)
                for _ in threads:
                    tasks.put(None)

    def enter(self, state: State) -> None:
        """Notes the new state of this thread. Once the program is ending, a thread that would work waits for ever."""
        with self.changed:
            while self.ending and state is State.WORKING:
                self.states[current_thread()] = State.ABANDONABLE
                self.changed.notify_all()
                self.changed.wait()
            self.states[current_thread()] = state
            self.changed.notify_all()

    def is_working_here(self) -> bool:
        return self.states.get(current_thread()) is State.WORKING

    def is_busy(self, thread: Thread, state: State) -> bool:
        return state is State.WORKING or (state is State.IDLE and thread in self.leaving)

    def end(self) -> None:
        """Returns when no thread works any more, and those that depart have ended."""
        with self.changed:
            self.ending = True
            self.changed.wait_for(lambda: not any(self.is_busy(*each) for each in self.states.items()))
            departed = [thread for thread, state in self.states.items() if state is State.DEPARTED]
        for thread in departed:  # what torch keeps for a thread is freed as it ends
            thread.join()


_readers = Readers()


@atexit.register
def _end() -> None:
    _readers.end()


def _forget() -> None:
    """Replaces the state in a forked process, which has none of the threads."""
    global _readers
    _readers = Readers()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def abandonable() -> Iterator[None]:
    """Allows the program to end inside: for plain Python code that waits for a server. Has an effect in the threads of
    `in_order` alone.
    """
    if not _readers.is_working_here():
        yield
        return
    _readers.enter(State.ABANDONABLE)
    try:
        yield
    finally:
        _readers.enter(State.WORKING)


def in_order(
    items: Iterator[Item],
    action: Callable[[Item], Result],
    *,
    threads: int,
    ahead: int,
    weight: Callable[[Item], int] = lambda item: 1,
) -> Iterator[Result]:
    """Yields `action(item)` of each item, in order; `threads` work up to a weight of `ahead` in advance.

    An error of `action` is raised here, in the place of its result.
    """
    tasks: SimpleQueue[tuple[Future[Result], Item] | None] = SimpleQueue()
    # Daemons: a program must be able to end while one of them waits for a server.
    workers = [Thread(target=_serve, args=(tasks, action), name=THREAD_NAME, daemon=True) for _ in range(threads)]
    _readers.add(workers)
    for worker in workers:
        worker.start()
    waiting: deque[tuple[Future[Result], int]] = deque()
    try:
        for item in items:
            waiting.append((Future(), weight(item)))
            tasks.put((waiting[-1][0], item))
            while sum(size for _, size in waiting) > ahead + waiting[0][1]:
                yield _next_result(waiting)
        while waiting:
            yield _next_result(waiting)
    finally:
        for future, _ in waiting:
            future.cancel()
        _readers.dismiss(workers, tasks)


@abandonable()  # the caller may be a reading thread, too
def _next_result(waiting: deque[tuple[Future[Result], int]]) -> Result:
    # No name for the future: it holds its error, whose traceback holds this frame.
    return waiting.popleft()[0].result()


def _serve(tasks: SimpleQueue[tuple[Future[Result], Item] | None], action: Callable[[Item], Result]) -> None:
    while (task := tasks.get()) is not None:
        future, item = task
        if future.set_running_or_notify_cancel():
            _readers.enter(State.WORKING)
            try:
                future.set_result(action(item))
            except BaseException as error:  # whatever it is, it belongs to who asks for the result
                future.set_exception(error)
            _readers.enter(State.IDLE)
        del task, future, item  # an error's traceback holds this frame: it must not hold the error in turn
    _readers.enter(State.DEPARTED)
