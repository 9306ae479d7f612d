# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers those who create repositories and upload: git files in the commit, LFS files before it.

A user may write to repositories of the namespace of their name and of their organisations; to others that they can
see they may propose a pull request. Cards are checked for what the Hub refuses in their metadata.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

import yaml

from tests.hub.protocol import (
    REPOSITORY,
    Hub,
    HubFile,
    Refusal,
    Repository,
    Request,
    Response,
    json_response,
    repo_type_of,
)


STRINGS = ("library_name", "pipeline_tag", "license")
LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "other", "unknown")

NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")  # of a repository; also of the oldest, which have no namespace


class WritableHub(Hub):
    """Answers as a `Hub` that can be written to."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.objects: dict[str, bytes] = {}  # LFS: sha256 to content

    def create_repository(self, request: Request, user: str | None) -> Response:
        options = json.loads(request.body)
        namespace, name = options.get("organization") or user, options["name"]
        repo_type, repo_id = options.get("type") or "model", f"{namespace}/{name}"
        self._refuse_writer(user, repo_id)
        answer = {"url": self.page(repo_type, repo_id), "name": repo_id}
        if (repo_type, repo_id) in self.repositories:
            message = f"You already created this {repo_type} repo"
            return json_response({**answer, "error": message}, 409, {"X-Error-Message": message})
        private = options.get("visibility") == "private"
        self.repositories[repo_type, repo_id] = Repository(repo_id, {}, repo_type, private=private)
        return json_response(answer)

    def settings(self, request: Request, user: str | None, type: str, id: str) -> Response:
        repository, settings = self._writable(type, id, user), json.loads(request.body)
        repository.gated = settings.get("gated", repository.gated)
        if "visibility" in settings:
            repository.private = settings["visibility"] == "private"
        return json_response({})

    def branch(self, request: Request, user: str | None, type: str, id: str, revision: str) -> Response:
        """Creates a branch at the newest commit of `main`, or of its starting point."""
        repository = self._writable(type, id, user)
        if revision in repository.branches:
            raise Refusal(409, f"Reference already exists: {revision}")
        start = json.loads(request.body).get("startingPoint", "main")
        repository.branches[revision] = repository.at(start)[0]
        return json_response({})

    def validate_card(self, request: Request, user: str | None) -> Response:
        """Returns what the Hub refuses in the YAML header of a README.md; that there is none is a warning."""
        errors, warnings = card_problems(json.loads(request.body)["content"])
        answer = {
            name: [{"message": text} for text in found]
            for name, found in zip(("errors", "warnings"), (errors, warnings), strict=True)
        }
        return json_response(answer, 400 if errors else 200)

    def preupload(self, request: Request, user: str | None, type: str, id: str, revision: str) -> Response:
        """Says whether each file is to come as an LFS file, and names the version that is there, if any."""
        files = self._target(type, id, user, request).at(revision)[1]
        paths = [described["path"] for described in json.loads(request.body)["files"]]
        answers = [
            {
                "path": path,
                "uploadMode": "lfs" if Repository.is_lfs(path) else "regular",
                "shouldIgnore": False,
                "oid": files[path].etag if path in files else None,
            }
            for path in paths
        ]
        return json_response({"files": answers})

    def lfs_batch(self, request: Request, user: str | None, type: str | None, id: str) -> Response:
        """Says where to PUT each object that is not there yet, and where to say that it has come."""
        self._target(type, id, user, request)
        wanted = json.loads(request.body)["objects"]
        verify = f"{self.page(repo_type_of(type), id)}.git/info/lfs/objects/verify"
        objects = [self._lfs_instructions(object, verify) for object in wanted]
        return json_response({"transfer": "basic", "objects": objects})

    def lfs_verify(self, request: Request, user: str | None, type: str | None, id: str) -> Response:
        """Says whether an object arrived as it was announced."""
        self._target(type, id, user, request)
        announced = json.loads(request.body)
        if len(self.objects.get(announced["oid"], b"")) != announced["size"]:
            raise Refusal(404, f"The object {announced['oid']} is not there in its size.")
        return json_response({})

    def _lfs_instructions(self, object: Mapping[str, Any], verify: str) -> dict[str, Any]:
        answer = {"oid": object["oid"], "size": object["size"]}
        if object["oid"] in self.objects:
            return answer
        target = f"/upload/{object['oid']}"
        href = f"{self.cdn_url}{target}?signature={self._signature(target)}"
        actions = {"upload": {"href": href, "header": {}}, "verify": {"href": verify, "header": {}}}
        return {**answer, "actions": actions}

    def send(self, request: Request) -> Response:
        """Sends the LFS file that a signed address names, or, to PUT, answers the one that came."""
        return self._receive(request) if request.method == "PUT" else super().send(request)

    def _receive(self, request: Request) -> Response:
        """Stores an object that was PUT at its address, if it is what its name says."""
        sha256 = unquote(request.path).rpartition("/")[2]
        if hashlib.sha256(request.body).hexdigest() != sha256:
            raise Refusal(400, f"the content of {len(request.body)} bytes does not have the SHA-256 {sha256}.")
        self.objects[sha256] = request.body
        return Response(200)

    def commit(self, request: Request, user: str | None, type: str, id: str, revision: str) -> Response:
        """Makes one commit, all or nothing, of a line of JSON for the message and one for each file."""
        proposed = "create_pr" in parse_qs(request.query)
        repository = self._target(type, id, user, request)
        head, files = repository.at(revision)
        files = dict(files)
        for line in request.body.splitlines():
            operation = json.loads(line)
            self._apply(operation["key"], operation["value"], files, head)
        number = 1 + sum(name.startswith("refs/pr/") for name in repository.branches)
        commit = repository.commit(files, f"refs/pr/{number}" if proposed else revision)
        page = self.page(repository.repo_type, id)
        answer = {"success": True, "commitOid": commit, "commitUrl": f"{page}/commit/{commit}"}
        return json_response({**answer, "pullRequestUrl": f"{page}/discussions/{number}"} if proposed else answer)

    def _apply(self, key: str, value: Mapping[str, Any], files: dict[str, HubFile], head: str) -> None:
        """Applies one line of a commit to `files`."""
        if key == "header":
            if value.get("parentCommit", head) != head:
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        elif key == "file":
            files[value["path"]] = HubFile(base64.b64decode(value["content"]), lfs=False)
        elif key == "lfsFile":
            if value["oid"] not in self.objects:
                raise Refusal(400, f"LFS pointer of {value['path']} points to a file that does not exist")
            files[value["path"]] = HubFile(self.objects[value["oid"]], lfs=True)
        elif key == "deletedFile":
            del files[value["path"]]
        elif key == "deletedFolder":
            folder = value["path"].rstrip("/") + "/"
            for path in [path for path in files if path.startswith(folder)]:
                del files[path]
        else:
            raise Refusal(400, f"The loopback Hub knows no operation {key!r} in a commit.")

    def page(self, repo_type: str, repo_id: str) -> str:
        """Returns the address of a repository's page."""
        return f"{self.url}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}"

    def _writable(self, type: str | None, repo_id: str, user: str | None) -> Repository:
        repository = self.repository(repo_type_of(type), repo_id, user)
        self._refuse_writer(user, repo_id)
        return repository

    def _target(self, type: str | None, repo_id: str, user: str | None, request: Request) -> Repository:
        """Returns the repository that a commit, or a file of one, is for; a file's pull request is not announced."""
        proposed = "create_pr" in parse_qs(request.query) or "/info/lfs/" in request.path
        if user is not None and proposed:
            return self.repository(repo_type_of(type), repo_id, user)
        return self._writable(type, repo_id, user)

    def _refuse_writer(self, user: str | None, repo_id: str) -> None:
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if not self.owns(user, repo_id):
            raise Refusal(403, f"You don't have the rights to write to {repo_id}")

    routes = [
        *Hub.routes,
        (r"/api/repos/create", create_repository),
        (r"/api/validate-yaml", validate_card),
        (REPOSITORY + r"/settings", settings),
        (REPOSITORY + r"/branch/(?P<revision>[^/]+)", branch),
        (REPOSITORY + r"/preupload/(?P<revision>[^/]+)", preupload),
        (REPOSITORY + r"/commit/(?P<revision>[^/]+)", commit),
        (r"/(?:(?P<type>datasets)/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch", lfs_batch),
        (r"/(?:(?P<type>datasets)/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/verify", lfs_verify),
    ]


def card_problems(content: str) -> tuple[list[str], list[str]]:
    """Returns errors and warnings about the metadata of a model card, by the Hub's rules that concern this project."""
    header = re.match(r"---\r?\n(.*?)\r?\n---", content, re.DOTALL)
    if header is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(header[1])
    except yaml.YAMLError as error:
        return [f"YAML: {error}"], []
    if not isinstance(data, dict):
        return ["The metadata must be a mapping."], []
    errors = [f'"{name}" must be a string' for name in STRINGS if not isinstance(data.get(name, ""), str)]
    if data.get("license", "mit") not in LICENSES:
        errors.append(f'"license" must be one of {LICENSES}')
    if data.get("license") == "other" and not data.get("license_name"):
        errors.append('"license_name" is required for license "other"')
    for name in ("datasets", "base_model"):
        names = data.get(name, [])
        names = [names] if isinstance(names, str) else names
        wrong = [(index, entry) for index, entry in enumerate(names) if not NAME.fullmatch(str(entry))]
        errors += [f'"{name}[{index}]" with value {entry!r} is not valid' for index, entry in wrong]
    for model in data.get("model-index", []):
        errors += [] if isinstance(model.get("name"), str) else ['"model-index[0].name" is required']
        errors += [problem for result in model["results"] for problem in result_problems(result)]
    return errors, []


def result_problems(result: Mapping[str, Any]) -> list[str]:
    """Checks that a result of a model-index says what was done, on which data set, and what came out."""
    wanted = [("task", "type"), ("dataset", "type"), ("dataset", "name")]
    errors = [f'"{part}.{name}" is required' for part, name in wanted if not result.get(part, {}).get(name)]
    for metric in result.get("metrics") or [{}]:
        errors += [f'"metrics.{name}" is required' for name in ("type", "value") if metric.get(name) is None]
    source = result.get("source", {"url": "none"})
    return errors if source.get("url") else [*errors, '"source.url" is required']
