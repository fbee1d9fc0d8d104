"""What really went wrong at the hub is told once, with what helps: its client wraps every answer in errors of its own."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from zoo.checkpoints.download import hub_reason


class Case(NamedTuple):
    """An answer to every request, and what a user must read."""

    code: int
    headers: dict[str, str]
    body: bytes
    said: str


PAGE = b"<html><body>Welcome to the airport. Please log in.</body></html>"
CASES = {
    "too many requests": Case(429, {}, b"slow down", "too many requests from here (429)"),
    "gated": Case(403, {"X-Error-Code": "GatedRepo"}, b"{}", "accept its terms"),
    "no token": Case(401, {}, b"{}", "HF_TOKEN"),
    "a login page": Case(200, {"Content-Type": "text/html"}, PAGE, "a web page and not the hub"),
}


class Answer(http.server.BaseHTTPRequestHandler):
    case: Case

    def do_GET(self) -> None:
        self.send_response(self.case.code)
        for name, value in {**self.case.headers, "Content-Length": str(len(self.case.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.case.body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    handler = type("Handler", (Answer,), {"case": CASES[request.param]})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(("endpoint", "name"), [(name, name) for name in CASES], indirect=["endpoint"], ids=list(CASES))
def test_the_reason_is_the_hubs_own_and_stands_there_once(endpoint: str, name: str) -> None:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "",
    }
    command = [sys.executable, "-m", "zoo", "run", "bge-reranker-v2-m3"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count(CASES[name].said) == 1


def test_an_answer_without_a_length_is_told_as_that() -> None:
    outer = RuntimeError("An error happened while trying to locate the file on the Hub")
    outer.__cause__ = ValueError("Distant resource does not have a Content-Length.")
    assert "does not say how long the file is" in hub_reason(outer)


def test_the_first_cause_is_told_where_nothing_better_is_known() -> None:
    outer = RuntimeError("An error happened while trying to locate the files on the Hub")
    outer.__cause__ = OSError("Name or service not known")
    assert hub_reason(outer) == "OSError: Name or service not known"
