# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of several threads whose results come in the order of the items, some of them in advance."""

import atexit
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, TypeVar


Item = TypeVar("Item")
Result = TypeVar("Result")

THREAD_NAME = "read-ahead"
PATIENCE = 5  # seconds that a program waits at its end for actions under way, but not for servers
INSTANT = 0.2  # seconds
_under_way: set[Future[Any]] = set()
_leaving: list[Thread] = []
_ending = Event()


@atexit.register
def _end() -> None:
    """Native code that reads through Python, such as pyarrow's, aborts a process that ends meanwhile; so does what torch
    keeps for a thread, if the thread ends then. Threads of pyarrow's own let go of what they read an instant later.
    """
    _ending.set()
    deadline = monotonic() + PATIENCE
    busy = [thread for thread in _leaving if thread.is_alive()]
    wait(list(_under_way), timeout=PATIENCE)
    for thread in busy:
        thread.join(max(deadline - monotonic(), 0))
    if busy:
        sleep(INSTANT)


def in_order(
    items: Iterator[Item],
    action: Callable[[Item], Result],
    *,
    threads: int,
    ahead: int,
    weight: Callable[[Item], int] = lambda item: 1,
) -> Iterator[Result]:
    """`action(item)` of each item, in order; `threads` work up to a weight of `ahead` in advance.

    An error of `action` is raised here, in the place of its result.
    """
    tasks: SimpleQueue[tuple[Future[Result], Item] | None] = SimpleQueue()
    # Daemons: a program must be able to end while one of them waits for a server.
    workers = [Thread(target=_serve, args=(tasks, action), name=THREAD_NAME, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    waiting: deque[tuple[Future[Result], int]] = deque()
    try:
        for item in items:
            waiting.append((Future(), weight(item)))
            tasks.put((waiting[-1][0], item))
            while sum(size for _, size in waiting) > ahead + waiting[0][1]:
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        for future, _ in waiting:
            future.cancel()
        for _ in range(threads):
            tasks.put(None)
        _leaving[:] = [thread for thread in (*_leaving, *workers) if thread.is_alive()]


def _serve(tasks: SimpleQueue[tuple[Future[Result], Item] | None], action: Callable[[Item], Result]) -> None:
    while (task := tasks.get()) is not None and not _ending.is_set():
        future, item = task
        if future.set_running_or_notify_cancel():
            _under_way.add(future)
            try:
                future.set_result(action(item))
            except BaseException as error:  # whatever it is, it belongs to who asks for the result
                future.set_exception(error)
            _under_way.discard(future)
        del task, future, item  # an error's traceback holds this frame: it must not hold the error in turn
