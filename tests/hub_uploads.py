# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What the Hub answers to those who create repositories and upload: git files in the commit, LFS files before it.

A user may write to repositories of the namespace of their name.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from hub_protocol import REPOSITORY, Hub, HubFile, Refusal, Repository, Request, Response, json_response, repo_type_of


class WritableHub(Hub):
    """A `Hub` that can be written to."""

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

    def validate_card(self, request: Request, user: str | None) -> Response:
        """The Hub checks the YAML header of a README.md here; this one finds every header good."""
        return json_response({"errors": [], "warnings": []})

    def preupload(self, request: Request, user: str | None, type: str, id: str, revision: str) -> Response:
        """Whether each file is to come as an LFS file, and the name of the version that is there, if any."""
        files = self._writable(type, id, user).at(revision)[1]
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
        """Where to PUT each object, but for those that are there."""
        self._writable(type, id, user)
        wanted = json.loads(request.body)["objects"]
        return json_response({"transfer": "basic", "objects": [self._lfs_instructions(object) for object in wanted]})

    def _lfs_instructions(self, object: Mapping[str, Any]) -> dict[str, Any]:
        answer = {"oid": object["oid"], "size": object["size"]}
        if object["oid"] in self.objects:
            return answer
        target = f"/upload/{object['oid']}"
        href = f"{self.cdn_url}{target}?signature={self._signature(target)}"
        return {**answer, "actions": {"upload": {"href": href, "header": {}}}}

    def send(self, request: Request) -> Response:
        """The LFS file that a signed address names, or, to PUT, the answer to one that came."""
        return self._receive(request) if request.method == "PUT" else super().send(request)

    def _receive(self, request: Request) -> Response:
        """Store an object that was PUT at its address, if it is what its name says."""
        sha256 = unquote(request.path).rpartition("/")[2]
        if hashlib.sha256(request.body).hexdigest() != sha256:
            raise Refusal(400, f"the content of {len(request.body)} bytes does not have the SHA-256 {sha256}.")
        self.objects[sha256] = request.body
        return Response(200)

    def commit(self, request: Request, user: str | None, type: str, id: str, revision: str) -> Response:
        """One commit, all or nothing: a line of JSON for the message, and one for each file."""
        if "create_pr" in parse_qs(request.query):
            raise Refusal(400, "The loopback Hub has no pull requests.")
        repository = self._writable(type, id, user)
        head, files = repository.at(revision)
        files = dict(files)
        for line in request.body.splitlines():
            operation = json.loads(line)
            self._apply(operation["key"], operation["value"], files, head)
        commit = repository.commit(files)
        page = self.page(repository.repo_type, id)
        return json_response({"success": True, "commitOid": commit, "commitUrl": f"{page}/commit/{commit}"})

    def _apply(self, key: str, value: Mapping[str, Any], files: dict[str, HubFile], head: str) -> None:
        """Apply one line of a commit to `files`."""
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
        """The address of a repository's page."""
        return f"{self.url}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}"

    def _writable(self, type: str | None, repo_id: str, user: str | None) -> Repository:
        repository = self.repository(repo_type_of(type), repo_id, user)
        self._refuse_writer(user, repo_id)
        return repository

    def _refuse_writer(self, user: str | None, repo_id: str) -> None:
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if user != repo_id.split("/")[0]:
            raise Refusal(403, f"You don't have the rights to write to {repo_id}")

    routes = [
        *Hub.routes,
        (r"/api/repos/create", create_repository),
        (r"/api/validate-yaml", validate_card),
        (REPOSITORY + r"/preupload/(?P<revision>[^/]+)", preupload),
        (REPOSITORY + r"/commit/(?P<revision>[^/]+)", commit),
        (r"/(?:(?P<type>datasets)/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch", lfs_batch),
    ]
