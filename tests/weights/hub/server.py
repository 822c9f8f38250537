"""A small Hugging Face Hub on 127.0.0.1: enough of its HTTP API for the real client, and faults on demand.

    with Hub() as hub:                      # hub.endpoint goes into HF_ENDPOINT
        hub.fail("GET", "resolve/.*model.safetensors", corrupt=True, times=1)

Repositories hold commits; a commit is a mapping from paths to contents. Files that a git repository would
hand to git-lfs (`*.safetensors`) have a sha256 as their id, all others git's blob id.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

OWNER, READER = "hf_owner", "hf_reader"
"""Tokens: one may do all, the other reads what is public."""


@dataclass
class Repo:
    """One repository: its commits, oldest first, and where its branches stand."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit that holds exactly `files`."""
        sha = hashlib.sha1(repr((len(self.commits), branch, sorted(files))).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """Return the commit that a branch or a commit's id means."""
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Fault:
    """What goes wrong, where, and how often."""

    method: str
    path: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    corrupt: bool = False
    cut: bool = False
    times: int = 10**9


class Answer(Exception):  # noqa: N818 - it is an answer, and ends the handling of a request
    """Ends a request with a status, headers and a body."""

    def __init__(self, status: int, body: bytes | dict[str, Any] | list[Any] = b"", **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def lfs(path: str) -> bool:
    """Whether the Hub keeps a file in git-lfs."""
    return path.endswith(".safetensors")


def blob_id(content: bytes) -> str:
    """Git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def file_id(path: str, content: bytes) -> str:
    """The id under which the Hub shows a file."""
    return hashlib.sha256(content).hexdigest() if lfs(path) else blob_id(content)


class Hub:
    """The server, in a thread of this process; a context manager."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the server down; its port then refuses connections."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def fail(self, method: str, path: str, **fault: Any) -> None:
        """Make requests whose path matches (and for `status`, `corrupt` and `cut`, see `Fault`) go wrong."""
        self.faults.append(Fault(method, path, **fault))

    def add(self, repo_id: str, files: dict[str, bytes], *, private: bool = False, gated: bool = False) -> str:
        """Put a repository there, without the API, and return its commit."""
        repo = self.repos.setdefault(repo_id, Repo())
        repo.private, repo.gated = private, gated
        return repo.commit(files)


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        self.state.requests.append(f"{self.command} {path}")
        body = self._read()
        fault = self._fault(path)
        try:
            if fault is not None and fault.status:
                raise Answer(fault.status, {"error": "as the test wishes"}, **fault.headers)
            self._route(path, query, body)
            raise Answer(404, {"error": "no such address"})
        except Answer as answer:
            self._send(answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815 - the names http.server asks for

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _fault(self, path: str) -> Fault | None:
        for fault in self.state.faults:
            if fault.times > 0 and fault.method == self.command and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        body = answer.body
        if fault is not None and fault.corrupt and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and fault.cut:
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)

    # Who may do what

    def _token(self) -> str | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in (OWNER, READER):
            raise Answer(401, {"error": "bad token"}, X_Error_Message="Invalid credentials in Authorization header")
        return given or None

    def _write(self) -> None:
        if self._token() is None:
            raise Answer(401, {"error": "log in"}, X_Error_Message="Invalid username or password.")
        if self._token() != OWNER:
            raise Answer(403, {"error": "no"}, X_Error_Message="You don't have the rights to write here")

    def _repo(self, repo_id: str) -> Repo:
        token = self._token()
        repo = self.state.repos.get(repo_id)
        if repo is None or (repo.private and token != OWNER):
            raise Answer(404 if token else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        return repo

    def _files(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repo = self._repo(repo_id)
        commit = repo.resolve(revision)
        if commit is None:
            raise Answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        return commit, repo.commits[commit]

    # Addresses

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        name = r"([^/]+/[^/]+?)"
        for method, pattern, action in (
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/validate-yaml", self._validate),
            ("POST", rf"/api/models/{name}/preupload/(.+)", self._preupload),
            ("POST", rf"/api/models/{name}/commit/(.+)", self._commit),
            ("POST", rf"/api/models/{name}/branch/(.+)", self._branch),
            ("GET", rf"/api/models/{name}/tree/([^/]+)", self._tree),
            ("POST", rf"/api/models/{name}/paths-info/(.+)", self._tree),
            ("GET", rf"/api/models/{name}(?:/revision/(.+))?", self._info),
            ("POST", rf"/{name}\.git/info/lfs/objects/batch", self._batch),
            ("PUT", r"/lfs/(\w{64})", self._upload),
            ("POST", r"/lfs/(\w{64})/verify", self._verify),
            ("GET", rf"/{name}/resolve/([^/]+)/(.+)", self._resolve),
        ):
            found = re.fullmatch(pattern, path)
            if found and (self.command == method or (self.command, method) == ("HEAD", "GET")):
                action(body, query, *found.groups())

    def _create(self, body: bytes, query: Any) -> None:
        self._write()
        wanted = json.loads(body)
        repo_id = f"{wanted['organization'] or 'owner'}/{wanted['name']}"
        url = {"url": f"{self.state.endpoint}/{repo_id}", "name": repo_id, "id": repo_id}
        if repo_id in self.state.repos:
            raise Answer(409, {"error": "You already created this model repo"} | url)
        repo = Repo(private=bool(wanted.get("private")) or wanted.get("visibility") == "private")
        repo.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.state.repos[repo_id] = repo
        raise Answer(200, url)

    def _validate(self, body: bytes, query: Any) -> None:
        raise Answer(200, {"errors": [], "warnings": []})

    def _preupload(self, body: bytes, query: Any, repo_id: str, revision: str) -> None:
        self._write()
        files = self._files(repo_id, revision)[1]
        answer = []
        for one in json.loads(body)["files"]:
            path = one["path"]
            old = file_id(path, files[path]) if path in files else None
            mode = "lfs" if lfs(path) else "regular"
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": old})
        raise Answer(200, {"files": answer})

    def _batch(self, body: bytes, query: Any, repo_id: str) -> None:
        self._write()
        self._repo(repo_id)
        objects = []
        for one in json.loads(body)["objects"]:
            href = f"{self.state.endpoint}/lfs/{one['oid']}"
            actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            known = one["oid"] in self.state.objects
            objects.append({**one, "authenticated": True} | ({} if known else {"actions": actions}))
        raise Answer(200, {"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")

    def _upload(self, body: bytes, query: Any, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Answer(400, {"error": "the content's sha256 is another"})
        self.state.objects[oid] = body
        raise Answer(200, b"", ETag=f'"{oid}"')

    def _verify(self, body: bytes, query: Any, oid: str) -> None:
        known = self.state.objects.get(oid)
        raise Answer(200 if known is not None and len(known) == json.loads(body)["size"] else 404, {})

    def _commit(self, body: bytes, query: Any, repo_id: str, branch: str) -> None:
        self._write()
        repo = self._repo(repo_id)
        files = dict(self._files(repo_id, branch)[1])
        for line in filter(None, body.split(b"\n")):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.state.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        commit = repo.commit(files, branch)
        url = f"{self.state.endpoint}/{repo_id}/commit/{commit}"
        raise Answer(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def _branch(self, body: bytes, query: Any, repo_id: str, branch: str) -> None:
        self._write()
        repo = self._repo(repo_id)
        if branch in repo.branches:
            raise Answer(409, {"error": "Reference already exists"})
        start = repo.resolve(json.loads(body or b"{}").get("startingPoint") or "main")
        if start is None:
            raise Answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        repo.branches[branch] = start
        raise Answer(201, {})

    def _tree(self, body: bytes, query: Any, repo_id: str, revision: str) -> None:
        raise Answer(200, [self._entry(*item) for item in self._files(repo_id, revision)[1].items()])

    @staticmethod
    def _entry(path: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
        if lfs(path):
            entry["lfs"] = {"oid": file_id(path, content), "size": len(content), "pointerSize": 134}
        return entry

    def _info(self, body: bytes, query: dict[str, Any], repo_id: str, revision: str | None) -> None:
        commit, files = self._files(repo_id, revision or "main")
        repo = self.state.repos[repo_id]
        siblings = []
        for path, content in files.items():
            one: dict[str, Any] = {"rfilename": path}
            if query.get("blobs"):
                one |= {"size": len(content), "blobId": blob_id(content)}
                if lfs(path):
                    one["lfs"] = {"sha256": file_id(path, content), "size": len(content), "pointerSize": 134}
            siblings.append(one)
        facts = {"id": repo_id, "modelId": repo_id, "sha": commit, "private": repo.private, "siblings": siblings}
        raise Answer(200, {**facts, "gated": "manual" if repo.gated else False, "tags": [], "downloads": 0})

    def _resolve(self, body: bytes, query: Any, repo_id: str, revision: str, path: str) -> None:
        commit, files = self._files(repo_id, revision)
        if self.state.repos[repo_id].gated and self._token() != OWNER:
            raise Answer(403, {"error": "Access is restricted"}, X_Error_Code="GatedRepo", X_Repo_Commit=commit)
        if path not in files:
            raise Answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        content = files[path]
        headers = {"ETag": f'"{file_id(path, content)}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            # HEAD has no body, but says how long it would be.
            raise Answer(200, content, **headers, Content_Length=str(len(content)))
        first, last = int(span[1]), min(int(span[2] or len(content) - 1), len(content) - 1)
        if first >= len(content):
            raise Answer(416, b"", Content_Range=f"bytes */{len(content)}")
        raise Answer(206, content[first : last + 1], **headers, Content_Range=f"bytes {first}-{last}/{len(content)}")
