"""What the tests share: a command line that runs in process, and folders nobody else uses."""

from __future__ import annotations

import importlib.util
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import fakes
from random_checkpoints import weights_only
from zoo import Reranker
from zoo.cli import main
from zoo.paths import bundled
from zoo.registry.catalogue import Catalogue

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job started in the background may inherit that; the tests of Ctrl-C need what a terminal gives.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup's

pytest_plugins = ("sdaa_fixtures",)

_SERVE = ("httpx", "prometheus_client", "starlette", "uvicorn")
"""What the tests of the service need: the extra ``serve``, and a client. ``tox -e serve`` installs them."""
collect_ignore_glob = [] if all(importlib.util.find_spec(name) for name in _SERVE) else ["serve/*"]

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

TARGET = os.environ.get("ZOO_TEST_TARGET", "")
"""Where it is set, commands that name no device run on this one: ``sdaa`` is a card, ``fake-sdaa`` the fake runtime."""

Zoo = Callable[..., Result]

FAST = ("checkpoints", "registry", "tokens", "test_contributing.py", "test_translations.py", "test_troubleshooting.py")
"""Folders and files whose tests are marked ``fast``, but for those that are marked ``slow``: 50 s of CPU time together."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(ROOT / "tests").parts[0] if item.path.is_relative_to(ROOT / "tests") else ""
        if place in FAST and not item.get_closest_marker("slow"):
            item.add_marker("fast")


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's caches, the working folder, or the network, or depends on the user's language."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "zoo-home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("ZOO_LANG", "en")  # help is compared in English, whatever the locale
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture(autouse=True)
def _threads_of_others() -> None:
    """A test that looks for threads it has left does not count those that ran before it: of shared fixtures, or of hung cards."""
    fakes.threads_before = frozenset(threading.enumerate())


@pytest.fixture
def zoo() -> Zoo:
    """``zoo("run", "model", ..., input=...)`` gives a result with ``stdout``, ``stderr`` and ``exit_code``."""

    # Before 8.2, click mixes stderr into stdout unless it is told not to.
    separate = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}

    def call(*args: object, input: str | bytes | None = None) -> Result:
        words = _on_target([str(arg) for arg in args])
        return CliRunner(**separate).invoke(main, words, input=input, prog_name="zoo")

    return call


def _on_target(words: list[str]) -> list[str]:
    """``words`` with the device that ZOO_TEST_TARGET names, where the command takes one and the test names none."""
    if not TARGET or words[:1] not in (["run"], ["verify"]) or "--help" in words or "--target" in words:
        return words
    return [
        words[0],
        "--target",
        TARGET.removeprefix("fake-"),
        *words[1:],
    ]  # not last: a test may leave out a value there


@pytest.fixture(scope="session")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines, and the files they are compiled from, are made once for all tests that run on another device."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(autouse=True)
def _device_under_test(_own_places: None, _kept: Path, tmp_path: Path) -> Iterator[None]:
    """The device that ZOO_TEST_TARGET names; tests skip where it is a card and there is none."""
    if not TARGET:
        yield
        return
    home = tmp_path / "zoo-home"
    home.mkdir()
    for name in ("artifacts", "engines"):
        (_kept / name).mkdir(exist_ok=True)
        (home / name).symlink_to(_kept / name)
    if TARGET == "fake-sdaa":
        from zoo_sdaa.testing import fake_sdaa

        with fake_sdaa(tmp_path / "fake-sdaa", leaks=True):
            yield
        return
    available = Catalogue.installed().device(TARGET).probe()
    if not available.ok:
        pytest.skip(f"{TARGET} is not available here: {available.reason}")
    yield


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The embedded model's folder: an XLM-RoBERTa checkpoint."""
    return bundled("models") / "zoo-reranker-tiny"


@pytest.fixture(scope="session")
def exported(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with ``model.onnx`` beside its weights, in standard operators: a folder that nothing needs to be made for."""
    from zoo_direct.build import write_graph

    folder = weights_only(tiny, tmp_path_factory.mktemp("exported") / "tiny")
    graph = write_graph(folder, form="standard", head={"kind": "label"})
    (folder / "model.onnx").write_bytes(graph.model)
    return folder


@pytest.fixture(scope="session")
def reranker() -> Iterator[Reranker]:
    """The embedded model, open on the CPU for all tests that only ask it for scores."""
    with Reranker.open("zoo-reranker-tiny", device="cpu", batch_size=None, offline=True) as made:
        yield made


@pytest.fixture
def python() -> str:
    return sys.executable
