# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of several threads whose results come in the order of the items, some of them in advance."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar


Item = TypeVar("Item")
Result = TypeVar("Result")


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
    for _ in range(threads):
        # Daemons: a program must be able to end while one of them waits for a server.
        Thread(target=_serve, args=(tasks, action), daemon=True).start()
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


def _serve(tasks: SimpleQueue[tuple[Future[Result], Item] | None], action: Callable[[Item], Result]) -> None:
    while (task := tasks.get()) is not None:
        future, item = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(action(item))
            except BaseException as error:  # whatever it is, it belongs to who asks for the result
                future.set_exception(error)
