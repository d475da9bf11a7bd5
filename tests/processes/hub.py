"""A Hugging Face Hub of our own, which keeps what is committed and gives it back, for the real client."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secretsecretsecret"


class Hub:
    """Repositories by name, their branches, and the files of those."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.private: dict[str, bool] = {}
        self.branches: dict[str, dict[str, dict[str, bytes]]] = {}
        self.stored: dict[str, bytes] = {}  # large files, by SHA-256
        self.messages: list[str] = []
        self.refuses = 0  # the status of every answer, if not 0
        self.url = ""

    def make(self, name: str, private: bool, **files: bytes) -> None:
        self.private[name], self.branches[name] = private, {"main": dict(files)}

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to a request."""
        self.asked.append(f"{method} {path}")
        if self.refuses:
            return self.refuses, {}, json.dumps({"error": f"no, {TOKEN}"}).encode()
        found: Any = None
        if path == "/api/repos/create":
            found = self.create(**json.loads(body))
        elif path == "/api/validate-yaml":
            if "license: unheard" in json.loads(body)["content"]:
                return (
                    400,
                    {},
                    json.dumps({"errors": [{"message": '"license" must be one of'}], "warnings": []}).encode(),
                )
            found = {"errors": [], "warnings": []}
        elif m := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            files = [f["path"] for f in json.loads(body)["files"]]
            large = {f: "lfs" if f.endswith(".safetensors") else "regular" for f in files}
            found = {"files": [{"path": f, "uploadMode": large[f], "shouldIgnore": False} for f in files]}
        elif m := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                o | {"actions": {"upload": {"href": f"{self.url}/store/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            found = {"transfer": "basic", "objects": objects}
        elif method == "PUT" and path.startswith("/store/"):
            self.stored[path.rpartition("/")[2]] = body
            found = {}
        elif m := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/(.+)", path):
            self.branches[m[1]][m[2]] = dict(self.branches[m[1]]["main"])
            found = {}
        elif m := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            found = self.commit(m[1], m[2], [json.loads(line) for line in body.splitlines()])
        elif m := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path):
            found = self.info(m[1], m[2] or "main")
        elif m := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            found = self.tree(m[1], m[2])
        elif m := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(m[1], m[2], m[3])
        if found is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        return 200, {}, json.dumps(found).encode()

    def create(
        self, name: str, organization: str, visibility: str = "public", private: bool = False, **_: Any
    ) -> dict[str, str]:
        """visibility, or private as clients before version 1 say it."""
        full = f"{organization}/{name}"
        if full not in self.branches:
            self.make(full, private or visibility == "private", **{".gitattributes": b""})
        return {"url": f"{self.url}/{full}"}

    def sha(self, name: str, revision: str) -> str:
        return hashlib.sha1(repr((name, revision, sorted(self.branches[name][revision].items()))).encode()).hexdigest()

    def branch(self, name: str, revision: str) -> str | None:
        """The branch of that name, or whose commit it is."""
        found = [b for b in self.branches.get(name, {}) if revision in (b, self.sha(name, b))]
        return found[0] if found else None

    def commit(self, name: str, branch: str, operations: list[dict[str, Any]]) -> dict[str, str]:
        for o in operations:
            value = o["value"]
            if o["key"] == "header":
                self.messages.append(value["summary"])
                continue
            assert o["key"] in ("file", "lfsFile"), "nothing is deleted"
            lfs = o["key"] == "lfsFile"
            data = self.stored[value["oid"]] if lfs else base64.b64decode(value["content"])
            self.branches[name][branch][value["path"]] = data
        return {"commitUrl": f"{self.url}/{name}/commit/1", "commitOid": self.sha(name, branch), "pullRequestUrl": ""}

    def info(self, name: str, revision: str) -> dict[str, Any] | None:
        branch = self.branch(name, revision)
        if branch is None:
            return None
        files = [{"rfilename": f} for f in self.branches[name][branch]]
        return {"id": name, "sha": self.sha(name, branch), "private": self.private[name], "siblings": files}

    def tree(self, name: str, revision: str) -> list[dict[str, Any]] | None:
        branch = self.branch(name, revision)
        files = self.branches[name][branch] if branch else {}
        return [
            {"type": "file", "path": f, "size": len(d), "oid": hashlib.sha1(d).hexdigest()} for f, d in files.items()
        ]

    def resolve(self, name: str, revision: str, file: str) -> tuple[int, dict[str, str], bytes]:
        branch = self.branch(name, revision)
        if branch is None or file not in self.branches[name][branch]:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        data = self.branches[name][branch][file]
        return 200, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.sha(name, branch)}, data


@contextmanager
def serving() -> Iterator[Hub]:
    """The Hub, at its `url` meanwhile."""
    made = Hub()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            status, headers, data = made.answer(self.command, path, body)
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = respond  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
