# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads exact byte ranges of a file that may lie on another machine, and may fail for a while.

Everything that a stream reads goes through `ShardFile.read_range`: either it returns all the bytes that were asked for,
or it raises an error that names the file. A range can be asked for again without harm, so a fault neither loses nor
repeats a sample.
"""

import asyncio
import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar

import fsspec

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.read_ahead import abandonable


logger = logging.getLogger(__name__)

FIRST_DELAY, LAST_DELAY = 0.5, 30.0  # seconds between two attempts, doubled from one to the next
# A server must connect, and then send at least a byte, within so many seconds; else the range is asked for again.
STALL_SECONDS = 30
HTTP = ("http://", "https://")
PRECONDITION_FAILED = 412
Result = TypeVar("Result")


class ShardError(EsViTError, OSError):
    """Raised when a shard cannot be read, or does not hold what it should. The message names it."""


class ShortReadError(OSError):
    """Raised when fewer bytes came than were asked for."""


class ChangedShardError(ShardError):
    """Raised when a shard has changed since it was opened."""


class ShardFile(NamedTuple):
    """Represents a file by its path or URL, of any kind that fsspec knows: local, https://, hf://.

    `version` changes with the file: it is the time of modification of a local file, and the ETag (or Last-Modified) of
    an https:// one. It is empty if the server does not say, and for hf:// URLs, which name a commit.
    """

    url: str
    size: int
    retry_seconds: float
    version: str = ""

    @classmethod
    def locate(cls, url: str, retry_seconds: float) -> "ShardFile":
        """Finds a file and its size.

        Raises:
            ShardError: it does not exist, or its size is still unknown after `retry_seconds`.
        """
        filesystem, path = _filesystem(url)
        info = retry(url, retry_seconds, lambda: filesystem.info(path))
        if info["size"] is None:
            raise ShardError(
                f"{url}: the server does not tell its size, so no part of it can be asked for. Use another server."
            )
        return cls(url, info["size"], retry_seconds, _version(info))

    @property
    def is_local(self) -> bool:
        return "://" not in self.url

    def read_range(self, start: int, stop: int) -> bytes:
        """Returns the bytes `start` to `stop - 1`, in one request. Several threads may call it.

        Raises:
            ChangedShardError: it was changed since `locate`.
            ShardError: it cannot be read; a remote file is tried for `retry_seconds`.
        """
        if start == stop:
            return b""
        seconds = 0 if self.is_local else self.retry_seconds
        try:
            return retry(self.url, seconds, lambda: self._read_once(start, stop))
        except ShardError as error:
            if PRECONDITION_FAILED in map(_status, _with_causes(error)):
                raise self._make_changed_error() from error
            raise

    def _read_once(self, start: int, stop: int) -> bytes:
        filesystem, path = _filesystem(self.url)
        if self.is_local and _version(filesystem.info(path)) != self.version:
            raise self._make_changed_error()
        condition = {"headers": _condition(self.version)} if self.url.startswith(HTTP) else {}
        # With its size given, opening asks the server for nothing; without a cache, reading asks for this range alone.
        with filesystem.open(path, "rb", size=self.size, cache_type="none", **condition) as file:
            file.seek(start)
            content = file.read(stop - start)
        if len(content) != stop - start:
            raise ShortReadError(f"{len(content)} bytes came instead of the {stop - start} from {start} on")
        return content

    def _make_changed_error(self) -> ChangedShardError:
        return ChangedShardError(
            f"{self.url} was changed since it was opened: what was read and what is to come are not of one data set. "
            "Shards must stay as they are while a run reads them."
        )


def _version(info: dict[str, Any]) -> str:
    """Returns what changes with a file. Servers take no weak ETag as a condition; then it is the date."""
    tag = info.get("ETag", "")
    return str(info.get("mtime") or (tag if tag.startswith('"') else info.get("Last-Modified", tag)))


def _condition(version: str) -> dict[str, str]:
    """Returns headers with which a server sends parts of this version alone, and else answers PRECONDITION_FAILED."""
    if not version or version.startswith("W/"):
        return {}
    return {"If-Match" if version.startswith('"') else "If-Unmodified-Since": version}


def _filesystem(url: str) -> tuple[Any, str]:
    if not url.startswith(HTTP):
        return fsspec.core.url_to_fs(url)
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=STALL_SECONDS, sock_read=STALL_SECONDS)
    return fsspec.core.url_to_fs(url, client_kwargs={"timeout": timeout})


@abandonable()
def retry(name: str, seconds: float, action: Callable[[], Result]) -> Result:
    """Returns what `action` returns, and calls it again for up to `seconds` after errors that may pass.

    Raises:
        ShardError: the error did not pass, or is of a kind that does not. The message begins with `name`.
    """
    deadline, delay = time.monotonic() + seconds, FIRST_DELAY
    # fsspec raises ValueError when a server cannot send a part of a file.
    expected: tuple[type[Exception], ...] = (*_network_errors(), OSError, ValueError)
    while True:
        try:
            return action()
        except ShardError:  # its message is complete
            raise
        except expected as error:
            wait = max(delay, _retry_after(error))
            reason = f"{name}: {type(error).__name__}: {error}"
            if not _may_pass(error):
                raise ShardError(reason) from error
            if time.monotonic() + wait > deadline:
                raise ShardError(f"{reason} (tried for {seconds:g} s, see stream_retry_seconds)") from error
        logger.warning("%s; trying again in %.1f s.", reason, wait)
        time.sleep(wait)
        delay = min(2 * delay, LAST_DELAY)


@cache
def _network_errors() -> tuple[type[Exception], ...]:
    """Returns the errors that the clients of https:// and hf:// raise when a connection fails."""
    import aiohttp
    from huggingface_hub.utils import httpx  # under this name in every version

    return (aiohttp.ClientError, asyncio.TimeoutError, httpx.RequestError, ConnectionError, TimeoutError)


def _may_pass(error: BaseException) -> bool:
    answers = [status for status in map(_status, _with_causes(error)) if status is not None]
    if answers:
        return answers[0] in (408, 429) or answers[0] >= 500
    return any(isinstance(each, (*_network_errors(), ShortReadError)) for each in _with_causes(error))


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its causes: fsspec turns some errors into others."""
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """Returns the HTTP status of an error of aiohttp or huggingface_hub; None for other errors."""
    response = getattr(error, "response", None)
    return getattr(error, "status", None) if response is None else response.status_code


def _retry_after(error: BaseException) -> float:
    """Returns the seconds that the server asks to wait; 0 if it does not say, or names a date."""
    for each in _with_causes(error):
        headers = getattr(getattr(each, "response", each), "headers", None) or {}
        if headers.get("Retry-After", "").isdigit():
            return float(headers["Retry-After"])
    return 0.0


class RangeReader(io.RawIOBase):
    """Presents a `ShardFile` as a seekable file, for libraries that want one.

    `ranges` (start, stop) are fetched at once and then served from memory. Outside of them every read is a request of
    at least `ahead` bytes, which are kept until the next request.
    """

    def __init__(self, file: ShardFile, ranges: Iterable[tuple[int, int]] = (), ahead: int = 0) -> None:
        self._file, self._ahead, self._position = file, ahead, 0
        self._parts = [(start, memoryview(file.read_range(start, stop))) for start, stop in ranges]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Returns `size` bytes, fewer only at the end of the file."""
        left = max(self._file.size - self._position, 0)
        start, count = self._position, left if size is None or size < 0 else min(size, left)
        self._position += count
        return self._bytes(start, start + count) if count else b""

    def _bytes(self, start: int, stop: int) -> bytes:
        for first, part in self._parts:
            if first <= start and stop <= first + len(part):
                return bytes(part[start - first : stop - first])
        content = self._file.read_range(start, min(max(stop, start + self._ahead), self._file.size))
        if self._ahead:
            self._parts = [(start, memoryview(content))]
        return content[: stop - start]
