# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Holds a whole exchange with a server to a deadline, whatever the server sends, and however slowly.

HTTP libraries limit silence: a server that sends a byte now and then, in a header, as a note that it is still at work,
or beside the body, can keep them waiting for ever. So the connection itself is given less and less time. What looks up
the name of a server knows no limit at all: it is left behind in a thread.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from threading import Thread
from typing import Any

from modeling_esvit.errors import EsViTError


END: ContextVar[float | None] = ContextVar("end", default=None)  # of `time.monotonic`, for this thread


class DeadlineError(EsViTError, TimeoutError):
    """Raised when an exchange with a server takes longer than it may."""


@contextmanager
def hold_to(end: float) -> Iterator[None]:
    """Ends the waiting of this thread for servers, inside the block, at a time of `time.monotonic`."""
    token = END.set(end)
    try:
        yield
    finally:
        END.reset(token)


def call_in_time(action: Callable[..., Any], *arguments: Any, timeout: float | None, **options: Any) -> Any:
    """Returns the result of an action on a connection that takes a limit of silence.

    Raises:
        DeadlineError: the time that `hold_to` names has come.
    """
    end = END.get()
    if end is None:
        return action(*arguments, timeout=timeout, **options)
    left = end - time.monotonic()
    if left <= 0:
        raise DeadlineError("the server takes too long")
    try:
        return action(*arguments, timeout=left if timeout is None else min(timeout, left), **options)
    except Exception as error:
        if time.monotonic() < end:
            raise
        raise DeadlineError("the server takes too long") from error


def call_or_leave(action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Returns the result of an action that takes no limit of time, such as looking up the name of a server.

    Raises:
        DeadlineError: the time that `hold_to` names has come; the action goes on in a thread, and nobody waits for it.
    """
    end = END.get()
    if end is None:
        return action(*arguments, **options)
    future: Future[Any] = Future()
    context = copy_context()

    def settle() -> None:
        try:
            future.set_result(context.run(action, *arguments, **options))
        except BaseException as error:  # whatever it is, it belongs to who asks for the result
            future.set_exception(error)

    Thread(target=settle, name="look-up", daemon=True).start()
    if not wait([future], end - time.monotonic()).done:
        raise DeadlineError("the server takes too long")
    return future.result()


class BoundedStream:
    """Wraps a connection of httpcore, whose waiting ends in time."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return call_in_time(self.stream.read, max_bytes, timeout=timeout)  # type: ignore[no-any-return]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        call_in_time(self.stream.write, buffer, timeout=timeout)

    def start_tls(self, *arguments: Any, timeout: float | None = None, **options: Any) -> "BoundedStream":
        return BoundedStream(call_in_time(self.stream.start_tls, *arguments, timeout=timeout, **options))


class BoundedBackend:
    """Wraps what opens the connections of httpcore."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def connect_tcp(self, *arguments: Any, timeout: float | None = None, **options: Any) -> BoundedStream:
        connect = self.backend.connect_tcp
        return BoundedStream(call_or_leave(call_in_time, connect, *arguments, timeout=timeout, **options))


def bound_client(client: Any) -> Any:
    """Returns an HTTP client whose connections, those through proxies too, keep to `hold_to`.

    httpx has no option for this; httpcore, on which it is built, has one for its pools of connections.
    """
    for transport in (client._transport, *client._mounts.values()):
        if transport is not None:  # a host without a proxy
            transport._pool._network_backend = BoundedBackend(transport._pool._network_backend)
    return client
