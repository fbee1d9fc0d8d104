"""``--offline`` means it: the system calls of every command are watched, with those of its children and workers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = "zoo-reranker-tiny"
SPEAKS = re.compile(r"\b(connect|sendto|sendmsg|sendmmsg)\(.*\bAF_INET6?\b")
"""urllib3 binds a socket to ::1 when it is imported, to learn whether the system has IPv6: that reaches nobody."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "models": ("models",),
    "devices": ("devices",),
    "plugins": ("plugins",),
    "doctor": ("doctor", "--offline"),
    "cache": ("cache", "list"),
    "run": ("run", MODEL, "--offline"),
    "workers": ("run", MODEL, "--offline", "--workers", "2", "--threads", "2"),
    "missing": ("run", "bge-reranker-v2-m3", "--offline"),
    "valid": ("run", MODEL, "--offline", "--mode", "valid", "--limit", "1"),
    "verify": ("verify", MODEL, "--offline", "--pairs-only", "--no-torch", "--target", "cpu"),
    "export": ("export", MODEL, "--offline", "--precision", "int8", "--target", "cpu"),
    "openvino": ("run", MODEL, "--offline", "--target", "openvino"),
    "simplify": ("simplify", "model.onnx", "--save-name", "out.onnx"),
}
NEEDS = {"openvino": "openvino", "simplify": "onnxsim"}


def can_watch() -> bool:
    """Whether strace is here and may watch a process."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_watch(), reason="strace is not installed or may not be used here")


def watched(words: tuple[str, ...], home: Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A run, and its calls that speak of the internet."""
    environment = {**os.environ, "HOME": str(home), "CI": "", "HF_HUB_OFFLINE": ""}
    log = Path("calls.txt")
    command = ["strace", "-f", "-e", "trace=network", "-o", str(log), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    return done, [line for line in log.read_text(errors="replace").splitlines() if SPEAKS.search(line)]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_speaks_to_nobody_and_leaves_the_home_alone(name: str, exported: Path, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    home = tmp_path / "home"
    home.mkdir()
    for part in ("model.onnx", "model.safetensors"):
        shutil.copyfile(exported / part, part)
    done, calls = watched((sys.executable, "-m", "zoo", *COMMANDS[name]), home)
    assert done.returncode == (1 if name == "missing" else 0), done.stderr
    assert calls == []
    assert not list(home.rglob("*"))


def test_a_call_to_the_internet_would_be_seen(tmp_path: Path) -> None:
    program = (
        "import socket\ns = socket.socket(); s.settimeout(0.1)\ntry: s.connect(('192.0.2.1', 9))\nexcept OSError: pass"
    )
    _, calls = watched((sys.executable, "-c", program), tmp_path)
    assert any("192.0.2.1" in call for call in calls)
