"""The service on a system without what only Linux has."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import httpx
import pytest
from test_process import Process

from elsewhere import elsewhere
from serving import SOON


@pytest.mark.skipif(sys.platform == "win32", reason="the absence of what Linux has is simulated on Linux")
def test_it_answers_and_ends_on_a_signal(tmp_path: Path) -> None:
    server = Process(**elsewhere(tmp_path / "x"))
    try:
        asked = {"query": "what is panda?", "texts": ["hi", "a bear"]}
        answer = httpx.post(f"{server.url}/rerank", json=asked, timeout=SOON)
        assert answer.status_code == 200, answer.text
        assert {entry["index"] for entry in answer.json()} == {0, 1}
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SOON) == 0
    finally:
        server.process.kill()
    assert not any("Traceback" in line for line in server.errors)
