"""What the page /openapi.json promises, held against a running server by schemathesis."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from conftest import ROOT
from serving import Running, serving
from zoo.cli.serve import command


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


PAIRS = r"/score$"


@pytest.mark.clients
@pytest.mark.parametrize(
    "options",
    [
        ["--exclude-path-regex", PAIRS],
        # That two lists must have equal lengths is more than a schema can say.
        ["--include-path-regex", PAIRS, "--exclude-checks", "positive_data_acceptance"],
    ],
    ids=["rerank", "score"],
)
def test_answers_are_what_the_page_says_for_any_request(server: Running, tmp_path: Path, options: list[str]) -> None:
    pytest.importorskip("schemathesis")
    content = server.client.get("/openapi.json").json()
    for path in content["paths"].values():
        for operation in path.values():
            # The shortest times are answered 504, as they should be, which schemathesis takes for a fault.
            shown = operation.get("parameters", [])
            operation["parameters"] = [each for each in shown if each["name"] != "X-Request-Timeout"]
    page = tmp_path / "openapi.json"
    page.write_text(json.dumps(content))
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", page, "--url", server.url, "--phases", "examples,coverage,fuzzing",
        "--max-examples", "25", "--seed", "7", "--no-color", "--request-timeout", "30",
        *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout


@pytest.mark.parametrize(("path", "allowed"), [("/", "GET, HEAD, POST"), ("/rerank", "POST"), ("/health", "GET, HEAD")])
def test_a_method_that_a_path_does_not_have_is_told_those_that_it_has(server: Running, path: str, allowed: str) -> None:
    answer = server.client.delete(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_every_path_of_the_page_answers(server: Running) -> None:
    page = server.client.get("/openapi.json").json()
    for path, operations in page["paths"].items():
        assert {method.upper() for method in operations} <= set(server.client.delete(path).headers["allow"].split(", "))


def test_the_documentation_names_every_path_option_and_metric(server: Running) -> None:
    page = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    code = set(re.findall(r"`([^`\n]+)`", page))
    names = {part for each in code for part in re.split(r"[/ ](?=-)|\s", each)}
    paths = set(server.client.get("/openapi.json").json()["paths"])
    options = {option.opts[0] for option in command.params if isinstance(option, click.Option)}
    shared = {"--quiet", "-q", "-v", "--verbose", "--debug"}
    metrics = re.findall(r"^# TYPE (zoo_\w+) (?!gauge)", server.client.get("/metrics").text, re.MULTILINE)
    metrics = [name for name in metrics if not name.endswith("_created")]
    assert len(metrics) > 10
    assert not {*paths, *(options - shared), *metrics} - names
