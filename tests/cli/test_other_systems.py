"""What only Linux has is not needed: file locks, hard links, affinity, /proc, SIGKILL, os.pread and the like are taken away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from elsewhere import elsewhere
from random_checkpoints import weights_only
from zoo.errors import ZooError
from zoo.scoring import session_process
from zoo.wording import ending

pytestmark = [
    pytest.mark.lowest,
    pytest.mark.skipif(sys.platform == "win32", reason="the absence of what Linux has is simulated on Linux"),
]


def run(*words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "zoo", *map(str, words)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_these_processes_lack_what_they_should(tmp_path: Path) -> None:
    code = (
        "import os, signal, importlib.util\n"
        "assert os.environ['ZOO_TEST_ELSEWHERE'] == '1'\n"
        "assert not hasattr(os, 'pread') and not hasattr(os, 'link') and not hasattr(signal, 'SIGKILL')\n"
        "for name in ('fcntl', 'resource'):\n"
        "    try: __import__(name)\n"
        "    except ImportError: continue\n"
        "    raise AssertionError(name)\n"
        "try: open('/proc/self/status')\n"
        "except FileNotFoundError: print('none')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=elsewhere(tmp_path / "x"), capture_output=True, text=True, check=False
    )
    assert done.stdout == "none\n", done.stderr


def test_single_gives_the_same_scores(tmp_path: Path) -> None:
    words = ("run", "zoo-reranker-tiny", "--mode", "single", "--json", "-q", "--target", "cpu")
    there = run(*words, env=elsewhere(tmp_path / "x"))
    assert there.stdout == run(*words).stdout


def test_valid_gives_the_same_files_and_goes_on_from_its_journal(tmp_path: Path) -> None:
    words = (
        "run",
        "zoo-reranker-tiny",
        "--mode",
        "valid",
        "--limit",
        3,
        "--top-k",
        5,
        "-q",
        "--target",
        "cpu",
        "--output",
    )
    env = elsewhere(tmp_path / "x")
    for name, place in (("here", None), ("there", env), ("there", env)):
        run(*words, tmp_path / name, env=place)
    for name in ("en-test.reranked.trec", "zh-test.reranked.trec"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    timing = json.loads((tmp_path / "there" / "report.json").read_text(encoding="utf-8"))["timing"]
    assert timing["batches"] == 0 < timing["recalled_batches"]


def test_an_export_without_torch_makes_the_same_file(tmp_path: Path, tiny: Path) -> None:
    source = weights_only(tiny, tmp_path / "checkpoint")
    env = elsewhere(tmp_path / "x")
    made = []
    for place in (None, {**env, "ZOO_HOME": str(tmp_path / "other-home")}):
        output = tmp_path / ("there" if place else "here")
        done = run("export", source, "--json", "--output", output, env=place)
        assert json.loads(done.stdout)
        made.append({path.name: path.read_bytes() for path in output.rglob("*.onnx")})
    assert made[0]
    assert made[0] == made[1]


def test_workers_are_refused_where_a_process_cannot_be_given_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_process, "HANDS_ON_DESCRIPTORS", False)
    with pytest.raises(ZooError, match="Leave out `workers`"):
        session_process._start({})


def test_how_a_process_ended_is_told_in_words() -> None:
    assert ending(3) == "ended with exit code 3"
    assert ending(-9) == "was ended by SIGKILL, as the system does to processes that take too much memory"
    assert ending(-15) == "was ended by SIGTERM"
    assert ending(-40) == "was ended by signal 40", "a real-time signal, which has no name of its own"
