# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers those who read, as a function of the request and of the repositories, without a socket.

`loopback_hub.py` serves it, `uploads.py` adds writing. Requests, headers and error codes are those that
huggingface_hub 2.4 and datasets 5.2 send and understand. As on the Hub, an LFS file is not sent by the Hub itself:
`resolve` redirects to a signed address of another host, the CDN, which wants no token; and of a gated repository
anybody may see the list of files and README.md.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, quote, unquote


LFS_SUFFIXES = (".parquet", ".tar", ".safetensors", ".bin", ".pth")
PUBLIC_FILES = ("README.md", ".gitattributes")
BUCKET = r"/api/buckets/(?P<id>[^/]+/[^/]+)"
REPOSITORY = r"/api/(?P<type>datasets|models)/(?P<id>[^/]+/[^/]+)"
DATE = "2026-01-01T00:00:00.000Z"


class Request(NamedTuple):
    """Holds one HTTP request; `path` is still quoted."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Response:
    """Holds one HTTP answer. To HEAD, the body is not sent, but its length is."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """Raised for an answer that is an error, which the client knows by `code` (X-Error-Code) and shows `message` of."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers

    def response(self) -> Response:
        headers = {"X-Error-Message": self.message, **self.headers}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return json_response({"error": self.message}, self.status, headers)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def repo_type_of(part: str | None) -> str:
    """Returns the type of a repository whose address has "datasets", "models", or nothing, which means a model."""
    return "dataset" if part == "datasets" else "model"


class HubFile:
    """Holds a version of a file: its content, and the names that git and LFS give it."""

    def __init__(self, content: bytes, lfs: bool) -> None:
        self.content, self.lfs = content, lfs

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def blob_id(self) -> str:
        content = self.content
        if self.lfs:
            content = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id

    def lfs_entry(self) -> dict[str, Any]:
        return {"oid": self.sha256, "sha256": self.sha256, "size": len(self.content), "pointerSize": 134}


class Repository:
    """Holds a repository: its files at each commit, its branches and pull requests, and who may read them.

    Args:
        repo_id: "namespace/name".
        files: Path to content. By their suffix files are LFS files or not.
        repo_type: "dataset" or "model".
        gated: If not False, files other than `PUBLIC_FILES` go to the users in `granted` only.
        private: It exists only for the user, or the members of the organisation, of its namespace.
    """

    def __init__(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        repo_type: str = "dataset",
        gated: Literal["auto", "manual", False] = False,
        granted: Iterable[str] = (),
        private: bool = False,
    ) -> None:
        self.repo_id, self.repo_type, self.private = repo_id, repo_type, private
        self.gated, self.granted = gated, set(granted)
        self.commits: dict[str, dict[str, HubFile]] = {}
        self.branches: dict[str, str] = {}  # also "refs/pr/1" and so on, to the newest commit
        self.commit({path: HubFile(content, self.is_lfs(path)) for path, content in files.items()})

    @staticmethod
    def is_lfs(path: str) -> bool:
        return path.endswith(LFS_SUFFIXES)

    def commit(self, files: dict[str, HubFile], branch: str = "main") -> str:
        """Makes `files` the content of a branch, and returns the id of the commit."""
        state = [len(self.commits), *((path, file.etag) for path, file in sorted(files.items()))]
        commit = hashlib.sha1(json.dumps(state).encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit

    def at(self, revision: str) -> tuple[str, dict[str, HubFile]]:
        """Returns the commit id and the files of a branch, pull request or commit."""
        commit = self.branches.get(revision, revision)
        if commit not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit, self.commits[commit]

    def refuse_reader(self, user: str | None) -> None:
        """Raises what the Hub answers to a user, None if anonymous, who may not read gated files."""
        restricted = f"Access to {self.repo_type} {self.repo_id} is restricted"
        if self.gated and user is None:
            message = f"{restricted}. You must have access to it and be authenticated to access it. Please log in."
            raise Refusal(401, message, "GatedRepo")
        if self.gated and user not in self.granted:
            raise Refusal(403, f"{restricted} and you are not in the authorized list.", "GatedRepo")


class Hub:
    """Answers requests as the Hub does.

    Args:
        repositories: What it holds.
        tokens: Token to user name; any other token is refused.
        page_size: Entries of a page of a list of files.
        organizations: Name to the users in it.
    """

    def __init__(
        self,
        repositories: Iterable[Repository],
        tokens: Mapping[str, str],
        page_size: int = 1000,
        organizations: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self.repositories = {(repository.repo_type, repository.repo_id): repository for repository in repositories}
        self.tokens, self.page_size = dict(tokens), page_size
        self.organizations = {name: set(members) for name, members in (organizations or {}).items()}
        self.buckets: dict[str, dict[str, HubFile]] = {}  # by their names, without commits
        self.url = self.cdn_url = ""  # set by the server
        self._secret = b"loopback"

    def answer(self, request: Request) -> Response:
        """Returns the response of the Hub's own host."""
        try:
            for pattern, method in self.routes:
                match = re.fullmatch(pattern, request.path)
                if match:
                    parts = {name: part and unquote(part) for name, part in match.groupdict().items()}
                    return method(self, request, self.user(request), **parts)
            raise Refusal(404, f"{request.path} is none of the addresses that the loopback Hub knows.")
        except Refusal as refusal:
            return refusal.response()

    def answer_cdn(self, request: Request) -> Response:
        """Returns the response of the host of the LFS files, which knows no users, only signed addresses."""
        try:
            signature = parse_qs(request.query).get("signature", [""])[0]
            if not hmac.compare_digest(signature, self._signature(request.path)):
                raise Refusal(403, "The signature of the address is wrong.")
            return self.send(request)
        except Refusal as refusal:
            return refusal.response()

    def send(self, request: Request) -> Response:
        """Sends the LFS file that a signed address names."""
        repo_type, namespace, name, commit, path = unquote(request.path).lstrip("/").split("/", 4)
        file = self.repositories[repo_type, f"{namespace}/{name}"].commits[commit][path]
        return ranged(file, request, {"ETag": f'"{file.etag}"'})

    def user(self, request: Request) -> str | None:
        """Returns the user whose token came, or None."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return None
        if token not in self.tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.tokens[token]

    def repository(self, repo_type: str, repo_id: str, user: str | None) -> Repository:
        """Returns the repository, if there is one for this user."""
        repository = self.repositories.get((repo_type, repo_id))
        if repository is None or (repository.private and not self.owns(user, repo_id)):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        return repository

    def owns(self, user: str | None, repo_id: str) -> bool:
        """Returns whether a repository is the user's own or of one of their organisations."""
        namespace = repo_id.split("/")[0]
        return user is not None and (user == namespace or user in self.organizations.get(namespace, ()))

    # -- addresses -----------------------------------------------------------------------------------------------------

    def whoami(self, request: Request, user: str | None) -> Response:
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        orgs = [{"name": name} for name, members in self.organizations.items() if user in members]
        return json_response({"type": "user", "name": user, "fullname": user, "orgs": orgs, "auth": {}})

    def info(self, request: Request, user: str | None, type: str, id: str, revision: str | None = None) -> Response:
        repository = self.repository(repo_type_of(type), id, user)
        commit, files = repository.at(revision or "main")
        metadata = "blobs" in parse_qs(request.query)
        answer = {
            "_id": hashlib.sha1(id.encode()).hexdigest()[:24],
            "id": id,
            "author": id.split("/")[0],
            "sha": commit,
            "private": repository.private,
            "gated": repository.gated,
            "disabled": False,
            "createdAt": DATE,
            "lastModified": DATE,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [_sibling(path, file, metadata) for path, file in sorted(files.items())],
        }
        return json_response(answer)

    def tree(
        self, request: Request, user: str | None, type: str, id: str, revision: str, path: str | None = None
    ) -> Response:
        """Returns one page of the entries below `path`; the address of the next one is in the Link header."""
        _, files = self.repository(repo_type_of(type), id, user).at(revision)
        query = parse_qs(request.query)
        recursive = query.get("recursive", ["false"])[0].lower() == "true"
        entries = _entries(files, f"{path}/" if path else "", recursive)
        if path and not entries:
            raise Refusal(404, f"{path} does not exist on {revision!r}", "EntryNotFound")
        start = int(query.get("cursor", ["0"])[0])
        headers, end = {}, start + self.page_size
        if end < len(entries):
            headers["Link"] = f'<{self.url}{request.path}?recursive={recursive}&cursor={end}>; rel="next"'
        return json_response(entries[start:end], headers=headers)

    def paths_info(self, request: Request, user: str | None, type: str, id: str, revision: str) -> Response:
        _, files = self.repository(repo_type_of(type), id, user).at(revision)
        wanted = parse_qs(request.body.decode()).get("paths", [])
        return json_response([entry for entry in _entries(files, "", recursive=True) if entry["path"] in wanted])

    def auth_check(self, request: Request, user: str | None, type: str, id: str) -> Response:
        repository = self.repository(repo_type_of(type), id, user)
        if not self.owns(user, id):
            repository.refuse_reader(user)
        return json_response({})

    def resolve(
        self, request: Request, user: str | None, type: str | None, id: str, revision: str, path: str
    ) -> Response:
        """Answers with a file, or the redirection to it. Strangers are not told which files a repository lacks."""
        repository = self.repository(repo_type_of(type), id, user)
        commit, files = repository.at(revision)
        if path not in PUBLIC_FILES and not self.owns(user, id):
            repository.refuse_reader(user)
        if path not in files:
            raise Refusal(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit})
        file = files[path]
        headers = {"ETag": f'"{file.etag}"', "X-Repo-Commit": commit}
        if not file.lfs:
            return ranged(file, request, headers)
        target = quote(f"/{repository.repo_type}/{id}/{commit}/{path}")
        headers["Location"] = f"{self.cdn_url}{target}?signature={self._signature(target)}"
        headers |= {"X-Linked-Size": str(len(file.content)), "X-Linked-ETag": f'"{file.etag}"'}
        return Response(302, b"", headers)

    def bucket(self, name: str) -> dict[str, HubFile]:
        if name not in self.buckets:
            raise Refusal(404, "Bucket not found", "BucketNotFound")
        return self.buckets[name]

    def bucket_info(self, request: Request, user: str | None, id: str) -> Response:
        sizes = [len(file.content) for file in self.bucket(id).values()]
        about = {"id": id, "private": False, "createdAt": DATE, "size": sum(sizes), "totalFiles": len(sizes)}
        return json_response(about)

    def bucket_tree(self, request: Request, user: str | None, id: str, path: str | None = None) -> Response:
        files, recursive = self.bucket(id), "true" in parse_qs(request.query.lower()).get("recursive", [])
        found = [entry["path"] for entry in _entries(files, f"{path}/" if path else "", recursive)]
        folders = {"type": "directory", "uploadedAt": DATE}
        named = [_bucket_entry(each, files[each]) if each in files else {**folders, "path": each} for each in found]
        return json_response(named)

    def bucket_paths(self, request: Request, user: str | None, id: str) -> Response:
        files, wanted = self.bucket(id), json.loads(request.body)["paths"]
        return json_response([_bucket_entry(name, files[name]) for name in wanted if name in files])

    def bucket_file(self, request: Request, user: str | None, id: str, path: str) -> Response:
        if path not in self.bucket(id):
            raise Refusal(404, "Entry not found", "EntryNotFound")
        return ranged(self.bucket(id)[path], request, {})

    def _signature(self, path: str) -> str:
        return hmac.new(self._secret, path.encode(), "sha256").hexdigest()

    routes: list[tuple[str, Callable[..., Response]]] = [
        (r"/api/whoami-v2", whoami),
        (BUCKET, bucket_info),
        (BUCKET + r"/tree(?:/(?P<path>.+))?", bucket_tree),
        (BUCKET + r"/paths-info", bucket_paths),
        (r"/buckets/(?P<id>[^/]+/[^/]+)/resolve/(?P<path>.+)", bucket_file),
        (REPOSITORY, info),
        (REPOSITORY + r"/revision/(?P<revision>[^/]+)", info),
        (REPOSITORY + r"/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", tree),
        (REPOSITORY + r"/paths-info/(?P<revision>[^/]+)", paths_info),
        (REPOSITORY + r"/auth-check", auth_check),
        (r"/(?:(?P<type>datasets)/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
    ]


def _bucket_entry(path: str, file: HubFile) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(file.content), "xetHash": file.sha256, "mtime": DATE}


def _sibling(path: str, file: HubFile, metadata: bool) -> dict[str, Any]:
    if not metadata:
        return {"rfilename": path}
    sibling: dict[str, Any] = {"rfilename": path, "size": len(file.content), "blobId": file.blob_id}
    return {**sibling, "lfs": file.lfs_entry()} if file.lfs else sibling


def _entries(files: Mapping[str, HubFile], prefix: str, recursive: bool) -> list[dict[str, Any]]:
    """Lists files and folders below `prefix` ("" or ending in "/"), sorted by path."""
    entries = {}
    for path, file in files.items():
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            folder = prefix + "/".join(parts[:depth])
            oid = hashlib.sha1(folder.encode()).hexdigest()
            entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
        if recursive or len(parts) == 1:
            entry = {"type": "file", "oid": file.blob_id, "size": len(file.content), "path": path}
            entries[path] = {**entry, "lfs": file.lfs_entry()} if file.lfs else entry
    return [entries[path] for path in sorted(entries)]


def ranged(file: HubFile, request: Request, headers: dict[str, str]) -> Response:
    """Answers with the file, or with the one range that the Range header asks for: "a-b", "a-" or "-n"."""
    size = len(file.content)
    headers = {**headers, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if match is None:
        return Response(200, file.content, headers)
    first, last = match.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        return Response(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Response(206, file.content[start:end], headers)
