"""What is recorded of one request, for metrics, the access log and traces. Never a text of it."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field

TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(eq=False)
class Record:
    """One request. Times are those of ``time.monotonic``, durations are in seconds."""

    method: str = ""
    path: str = ""
    client: str = ""
    request_id: str = ""
    trace_id: str = ""
    traceparent: str = ""
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dialect: str = ""
    model: str = ""
    """The served model's name; empty if the request did not get so far."""
    device: str = ""
    refused: str = ""
    """The kind of the refusal, if there were no scores."""
    pairs: int = 0
    """Pairs that were to be scored, chunks counted."""
    computed: int = 0
    """Pairs that the device was given."""
    before: float = 0.0
    """Seconds from the request's head until its pairs were in the queue."""
    tokens: int = 0
    truncated: int = 0
    tokenising: float = 0.0
    queueing: float = 0.0
    computing: float = 0.0
    scored: bool = False


def trace_id(traceparent: str) -> str:
    """The trace id of a W3C ``traceparent`` header, or an empty string."""
    found = TRACEPARENT.fullmatch(traceparent)
    return found[1] if found else ""


def request_id(given: str) -> str:
    """The client's own id if it is fit to be logged, else a new one."""
    return given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
