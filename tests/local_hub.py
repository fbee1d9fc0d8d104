"""A stand-in for the hub on loopback: repositories that are folders, each at one commit with a branch."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """Its files, the commit they are of, and the branches that stand for it."""

    folder: Path
    commit: str = COMMIT
    branches: set[str] = field(default_factory=lambda: {"main"})


class Hub(http.server.ThreadingHTTPServer):
    """What snapshots need of the hub. ``requests`` are verbs and paths in their order."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self) -> set[str]:
        """Files that were fetched, by their path in the repository."""
        return {
            path.partition("/resolve/")[2].partition("/")[2]
            for verb, path in self.requests
            if verb == "GET" and "/resolve/" in path
        }


class Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path))
        for name, repository in self.server.repositories.items():
            about, files = f"/api/models/{name}", f"/{name}/resolve/"
            if path.startswith(about):
                parts = path.removeprefix(about).strip("/").split("/")
                revision = parts[1] if len(parts) > 1 else "main"
                if revision == repository.commit or revision in repository.branches:
                    return self._send(200, _about(name, repository, tree=parts[0] == "tree"), {}, body=body)
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body=body)
            if path.startswith(files):
                revision, _, place = path.removeprefix(files).partition("/")
                file = repository.folder / place
                if revision == repository.commit and file.is_file():
                    content = file.read_bytes()
                    headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": repository.commit}
                    return self._send(200, content, headers, body=body)
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body=body)
        return self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"}, body=body)

    def _send(self, code: int, content: bytes, headers: Mapping[str, str], *, body: bool) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _about(name: str, repository: Repository, *, tree: bool) -> bytes:
    paths = sorted(path for path in repository.folder.rglob("*") if path.is_file())
    names = [(path, path.relative_to(repository.folder).as_posix()) for path in paths]
    if tree:
        entries = [
            {"type": "file", "path": place, "size": path.stat().st_size, "oid": "0" * 40} for path, place in names
        ]
        return json.dumps(entries).encode()
    facts = {"private": False, "downloads": 0, "likes": 0, "tags": []}  # old clients insist on them
    siblings = [{"rfilename": place} for _, place in names]
    return json.dumps({"id": name, "sha": repository.commit, "siblings": siblings, **facts}).encode()


@contextmanager
def local_hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def zoo_with(hub: Hub, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A zoo command in a process of its own: the hub's client reads its settings when it is imported."""
    settings = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "RUST_BACKTRACE": "0",
    }
    return subprocess.run(
        [sys.executable, "-m", "zoo", *map(str, words)], env={**os.environ, **settings, **environment},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
