"""Calls that fail, hang or crash because a test asked for it."""

from __future__ import annotations

import os
import signal
import threading

from zoo_sdaa.testing.machine import card, machine

_calls = 0


def perhaps_fail() -> None:
    """The faults a test asked for."""
    global _calls
    _calls += 1
    here = machine()
    if here.fail_at == _calls:
        raise RuntimeError(f"sdaa: error 700 in call {_calls}")
    if here.lose == card() and _calls >= here.lose_at:
        if here.lose_how in ("exit", "segfault"):
            os.kill(os.getpid(), signal.SIGKILL if here.lose_how == "exit" else signal.SIGSEGV)
        if here.lose_how != "error":
            threading.Event().wait()  # a signal may reach another thread a moment later
        raise RuntimeError("sdaa: error 719, the device is lost")


def reset() -> None:
    """Count calls from 1 again: a test in this process begins."""
    global _calls
    _calls = 0
