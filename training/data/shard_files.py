# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads exact byte ranges of a file that may lie on another machine, and may fail for a while.

Everything that a stream reads goes through `ShardFile.read_range`: either it returns all the bytes that were asked for,
or it raises an error that names the file. A range can be asked for again without harm, so a fault neither loses nor
repeats a sample.
"""

import io
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar

import fsspec

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.http_client import RedirectError, RequestError
from modeling_esvit.images.read_ahead import abandonable
from modeling_esvit.storage.url_secrets import redact_urls, reveal_url
from training.data.http_ranges import (
    AnswerError,
    ChangedFileError,
    HttpFile,
    ShortReadError,
    StatusError,
    find_http_file,
    get_http,
    read_http_range,
)


logger = logging.getLogger(__name__)

FIRST_DELAY, LAST_DELAY = 0.5, 30.0  # seconds between two attempts, doubled from one to the next
LONGEST_WAIT = 60.0  # seconds that a server may ask to wait
UNKNOWN_HOST_SECONDS = 20.0  # in which a resolver may learn a name: mostly it is a misspelt one
HTTP = ("http://", "https://")
BUCKET = re.compile(r"hf://buckets/(?P<bucket>[^/]+/[^/]+)/(?P<path>.+)")
REFUSED = (401, 403)
CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"  # of OpenSSL, in whatever error a library makes of it
# What stores call the version of a file, the surest first: hashes, numbers of versions, times.
VERSIONS = ("xet_hash", "ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "last_modified", "created")
# The libraries of stores have errors of their own, which are known by the packages that define them.
STORE_PACKAGES = ("aiobotocore", "botocore", "gcsfs", "google", "adlfs", "azure")
Result = TypeVar("Result")


class ShardError(EsViTError, OSError):
    """Raised when a shard cannot be read, or does not hold what it should. The message names it."""


class ChangedShardError(ShardError):
    """Raised when a shard has changed since it was opened."""


class ShardFile(NamedTuple):
    """Represents a file by its path or URL, of any kind that fsspec knows: local, https://, hf://, s3://.

    `url` has no password and no query: see `url_secrets`. `version` changes with the file: it is the time of
    modification of a local file, the ETag (or Last-Modified) of an https:// one, and the hash (or what comes next in
    VERSIONS) of one in a store. It is empty if nobody says, and for hf:// URLs, which name a commit.
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
        found = retry(url, retry_seconds, lambda: find_http_file(url) if url.startswith(HTTP) else _find_stored(url))
        return cls(url, found.size, retry_seconds, found.version)

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
            if isinstance(error.__cause__, ChangedFileError):
                raise ChangedShardError(
                    f"{self.url} was changed since it was opened ({error.__cause__}): what was read and what is to "
                    "come are not of one data set. Shards must stay as they are while a run reads them."
                ) from error
            raise

    def _read_once(self, start: int, stop: int) -> bytes:
        if self.url.startswith(HTTP):
            return read_http_range(self.url, start, stop, HttpFile(self.size, self.version))
        try:
            content = _read_stored(self.url, start, stop, self.size)
        except (OSError, ValueError):
            self._check_version()  # of a file that was changed, a part may be missing
            raise
        self._check_version()
        return content

    def _check_version(self) -> None:
        """Compares what the store says of the file now with what it said at first."""
        now = _find_stored(self.url)
        if now != HttpFile(self.size, self.version):
            raise ChangedFileError(f"version and size are now {now.version} and {now.size}")


def open_store(url: str) -> tuple[Any, str]:
    """Returns the file system of a URL or local path, and the path in it, which may have `::` in it if it is local.

    Raises:
        ShardError: nothing that is installed can read such URLs.
    """
    if "://" not in url:
        return fsspec.filesystem("file"), os.path.abspath(url)
    try:
        return fsspec.core.url_to_fs(reveal_url(url))
    except ImportError as error:
        package = re.search(r"\b(?:[Ii]nstall|requires) (\w+)", str(error))
        hint = f"pip install {package[1]}" if package else str(error)
        raise ShardError(f"{url}: reading it needs another package: {hint}") from error
    except ValueError as error:
        raise ShardError(f"{url}: nothing is known that reads such URLs ({error}).") from error


def _find_stored(url: str) -> HttpFile:
    """Finds size and version of a file in a store, or on the local disk. No listing that was kept is used."""
    bucket = BUCKET.fullmatch(url)
    if bucket is not None:
        return _find_in_bucket(bucket["bucket"], bucket["path"])
    filesystem, path = open_store(url)
    if url.startswith("hf://"):  # its commit never changes, so neither does a listing of it
        return HttpFile(filesystem.info(path)["size"], "")
    filesystem.invalidate_cache(filesystem._parent(path))
    info = filesystem.info(path)
    return HttpFile(info["size"], str(next((info[name] for name in VERSIONS if info.get(name)), "")))


def _find_in_bucket(bucket: str, path: str) -> HttpFile:
    from huggingface_hub import HfApi

    found = [each for each in HfApi().get_bucket_paths_info(bucket, [path]) if each.path == path]
    if not found:
        raise FileNotFoundError(f"the bucket {bucket} has no file {path!r}")
    return HttpFile(found[0].size, found[0].xet_hash)


def _read_stored(url: str, start: int, stop: int, size: int) -> bytes:
    filesystem, path = open_store(url)
    # With its size given, opening asks the store for nothing; without a cache, reading asks for this range alone.
    with filesystem.open(path, "rb", size=size, cache_type="none") as file:
        file.seek(start)
        content = file.read(stop - start)
    if len(content) != stop - start:
        raise ShortReadError(f"{len(content)} bytes came instead of the {stop - start} from {start} on")
    return content


@abandonable()
def retry(name: str, seconds: float, action: Callable[[], Result]) -> Result:
    """Returns what `action` returns, and calls it again for up to `seconds` after errors that may pass.

    Raises:
        ShardError: the error did not pass, or is of a kind that does not. The message begins with `name`.
    """
    begun, delay = time.monotonic(), FIRST_DELAY
    while True:
        try:
            return action()
        except ShardError:  # its message is complete
            raise
        except Exception as error:
            if not _is_expected(error):
                raise
            reason = redact_urls(f"{name}: {type(error).__name__}: {error}") + _explain(error)
            allowed = min(seconds, UNKNOWN_HOST_SECONDS) if _is_unknown_host(error) else seconds
            left = begun + allowed - time.monotonic()
            if not _may_pass(error):
                raise ShardError(reason) from error
            if left <= 0:
                raise ShardError(f"{reason} (tried for {allowed:g} s, see stream_retry_seconds)") from error
            wait = min(max(delay, min(_retry_after(error), LONGEST_WAIT)), left)
        logger.warning("%s; trying again in %.1f s.", reason, wait)
        time.sleep(wait)
        delay = min(2 * delay, LAST_DELAY)


def _is_expected(error: Exception) -> bool:
    """Returns whether an error is one of reading. fsspec raises ValueError when a store cannot send parts of files."""
    kinds = (*_network_errors(), OSError, ValueError)
    return isinstance(error, kinds) or type(error).__module__.partition(".")[0] in STORE_PACKAGES


@cache
def _network_errors() -> tuple[type[Exception], ...]:
    """Returns the errors that clients of https:// and hf:// raise when a connection fails."""
    return (get_http().HTTPError, ConnectionError, TimeoutError)


def _may_pass(error: BaseException) -> bool:
    answers = [status for status in map(_status, _with_causes(error)) if status is not None]
    if answers:
        return answers[0] in (408, 429) or answers[0] >= 500
    if isinstance(error, (AnswerError, RedirectError, RequestError)):
        return False
    if CERTIFICATE in str(error):
        return False
    return any(isinstance(each, (*_network_errors(), ShortReadError)) for each in _with_causes(error))


def _is_unknown_host(error: BaseException | None) -> bool:
    """Returns whether no server of this name is known; a resolver that does not answer is something else."""
    codes = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))  # macOS has no second one
    while error is not None:
        if isinstance(error, socket.gaierror):
            return error.errno in codes
        error = error.__cause__ or error.__context__  # the second by httpcore
    return False


def _explain(error: BaseException) -> str:
    """Returns what to do about a refusal, a missing account, an unknown server or certificate."""
    if _is_unknown_host(error):
        return "; no server of this name is known here: is it spelt right?"
    if CERTIFICATE in str(error):
        return (
            " The server's certificate is signed by nobody who is trusted here; behind the proxy of a company, "
            "SSL_CERT_FILE names the file of certificates to trust."
        )
    if type(error).__name__ == "NoCredentialsError":  # of botocore
        return ". Log in as the tools of the store do; FSSPEC_S3_ANON=true reads a public bucket without an account."
    if not any(_status(each) in REFUSED for each in _with_causes(error)):
        return ""
    return (
        ". The server refuses: the signature of the URL may have expired, or a password or token is missing. Give the "
        "URL anew; passwords and signatures are never stored."
    )


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its causes: fsspec turns some errors into others."""
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """Returns the HTTP status of an error of the clients of https:// and hf://; None for other errors."""
    if isinstance(error, StatusError):
        return error.status
    return getattr(getattr(error, "response", None), "status_code", None)


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
