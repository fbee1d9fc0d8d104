"""The tutorials and the gallery are followed to the letter: files are written, commands run in a fresh folder, their output compared.

On a page, a block of code after a line that ends with a file's name in backquotes and a colon is that file. A block ``console`` is a
session: what follows ``$ `` is typed into one shell, the lines below it are what it prints; ``...`` stands for anything. A page ends for
those who lack a package at the comment that says that what follows needs it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, Zoo

PAGES = [*sorted((ROOT / "docs" / "tutorials").glob("*.md")), ROOT / "docs" / "gallery.md"]
NEEDS = {"device": ("onnx",), "serve": ("starlette", "uvicorn", "prometheus_client")}
"""Packages that a page needs beside those of the fast tests; the page says how to install them."""
SECONDS = 120
"""A command that takes longer hangs."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"`([^`\s]+)`:$")
PORT = "8080"
"""The port on the pages; a free one takes its place."""


class Shell:
    """One shell for a page, so that a folder that is entered and a server that is started stay."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=folder, env=environment, text=True, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, command: str) -> tuple[str, int]:
        """What a command prints, and its exit code."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{command}\nprintf '\\nended %s\\n' $?\n")
        self.process.stdin.flush()
        timer = threading.Timer(SECONDS, self.close)
        timer.start()
        try:
            lines = []
            for line in self.process.stdout:
                if ended := re.fullmatch(r"ended (\d+)\n", line):
                    return "".join(lines).rstrip("\n"), int(ended[1])
                lines.append(line)
        finally:
            timer.cancel()
        pytest.fail(f"'{command}' has not ended after {SECONDS} s: {''.join(lines)}")

    def close(self) -> None:
        """End the shell with whatever it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            with contextlib.suppress(OSError):
                stream.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell with an environment of its own, in which packages can be installed; it sees those of this one."""
    own = tmp_path / "environment"
    venv.create(own)
    [site] = own.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if path.endswith("-packages") and Path(path).is_dir()]
    lines = [f"import site; site.addsitedir({path!r})" for path in seen]
    (site / "parent.pth").write_text("\n".join([*lines, str(ROOT), str(ROOT / "plugins")]) + "\n")
    for name in ("pip", "zoo", "pytest"):
        (own / "bin" / name).write_text(f'#!/bin/sh\nexec "{own}/bin/python" -m {name} "$@"\n')
        (own / "bin" / name).chmod(0o755)
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_QUIET": "1"}
    path = f"{own / 'bin'}{os.pathsep}{os.environ['PATH']}"
    folder = tmp_path / "tutorial"
    folder.mkdir()
    made = Shell(folder, os.environ | offline | {"PATH": path, "PYTEST_ADDOPTS": "-p no:cacheprovider"})
    yield made
    made.close()


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def pattern(shown: str) -> str:
    """A regular expression for the output that a page shows."""
    lines = [
        ".*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", r"[^\n]*") for line in shown.splitlines()
    ]
    return r"\s*".join(lines)


def commands(session: str) -> Iterator[tuple[str, str]]:
    """Each command of a block with what is shown below it. A command that goes on in the next line ends with a backslash."""
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command = re.match(r"(?:.*\\\n)*.*", part)
        assert command
        yield command[0], part[command.end() :].strip("\n")


MARKS = {"device": pytest.mark.openvino}
"""Where a page is followed if the packages that it needs are not everywhere; the tutorials run beside the service's tests, too."""
LATER = re.compile(r"^<!-- what follows needs the package (\w+) -->$", re.MULTILINE)


def parts() -> Iterator[object]:
    """Each page up to where another package is needed; and the whole page, for where that is installed."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        yield pytest.param(page, LATER.split(text)[0], id=page.stem, marks=MARKS.get(page.stem, ()))
        if package := LATER.search(text):
            yield pytest.param(page, text, id=f"{page.stem}-with-{package[1]}", marks=getattr(pytest.mark, package[1]))


@pytest.mark.parametrize(("page", "text"), list(parts()))
def test_a_tutorial_can_be_followed_to_the_letter(page: Path, text: str, shell: Shell, tmp_path: Path) -> None:
    if shutil.which("bash") is None or shutil.which("curl") is None:
        pytest.skip("the pages are typed into bash, and ask a server with curl")
    for name in ("hatchling", "pip", *NEEDS.get(page.stem, ()), *(package[1] for package in LATER.finditer(text))):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the page needs {name}")
    text = text.replace(PORT, free_port())
    typed = 0
    for block in BLOCK.finditer(text):
        language, content = block.groups()
        if language == "console":
            for command, shown in commands(content):
                printed, code = shell.run(command)
                typed += 1
                assert code == 0, f"$ {command}\n{printed}"
                assert re.fullmatch(pattern(shown), printed, re.DOTALL), f"$ {command}\n{printed}\n\nthe page:\n{shown}"
            continue
        before = FILE.search(text[: block.start()].rstrip().splitlines()[-1])
        assert before, f"a block is neither a session nor a file: {content[:80]}"
        target = tmp_path / "tutorial" / before[1]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
    assert typed


def outline(report: str) -> list[str]:
    """Headings, names of columns and rows, and what plots say of themselves: equal on every machine."""
    return re.findall(r'<h\d>.*?</h\d>|<th[ >].*?</th>|aria-label="[^"]*"', report, re.DOTALL)


def test_the_report_of_the_gallery_is_what_a_run_writes(zoo: Zoo, tmp_path: Path) -> None:
    done = zoo(
        "run", "zoo-reranker-tiny", "--mode", "valid", "--dataset", "mldr-mini", "--output", tmp_path / "results", "-q"
    )
    assert done.exit_code == 0, done.stderr
    made = (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    kept = (ROOT / "docs" / "gallery" / "report.html").read_text(encoding="utf-8")
    assert outline(made) == outline(kept), "docs/gallery/report.html is stale: put a new one in its place"


def test_there_is_a_page_for_each_kind_of_task() -> None:
    assert {page.stem for page in PAGES} >= {"reranker", "device", "serve", "cluster"}
