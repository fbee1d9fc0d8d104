"""What the tests share: a command line that runs in process, and folders nobody else uses."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from zoo.cli import main
from zoo.resources import bundled

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
"""Large assets that lie beside a checkout on some machines; tests that use them skip where they are absent."""

PANDA = [
    ("what is panda?", "hi"),
    (
        "what is panda?",
        "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, "
        "is a bear species endemic to China.",
    ),
]

Zoo = Callable[..., Result]


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's caches, the working folder, or the network."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "zoo-home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture
def zoo() -> Zoo:
    """``zoo("run", "model", ..., input=...)`` gives a result with ``stdout``, ``stderr`` and ``exit_code``."""

    # Before 8.2, click mixes stderr into stdout unless it is told not to.
    separate = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}

    def call(*args: object, input: str | bytes | None = None) -> Result:
        return CliRunner(**separate).invoke(main, [str(arg) for arg in args], input=input, prog_name="zoo")

    return call


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The embedded model's folder: an XLM-RoBERTa checkpoint with its ONNX file."""
    return bundled("models") / "zoo-reranker-tiny"


@pytest.fixture
def python() -> str:
    return sys.executable
