"""One line of JSON on stdout for each request. Texts are never in it."""

from __future__ import annotations

import queue
import sys
import threading
from datetime import datetime, timezone
from typing import Any, TextIO

import msgspec

from zoo.serve.record import Record

WAITING_LINES = 10_000
"""Lines that wait for a reader of stdout that does not read; more are dropped, and counted in the next line."""


class AccessLog:
    """Writes in a thread of its own: a full pipe holds up no request."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="zoo-serve-access-log", daemon=True)
        self._thread.start()

    def write(self, record: Record) -> None:
        """Note a request that has been answered."""
        line = line_of(record)
        if self._dropped:
            line["dropped_lines"] = self._dropped
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1
        else:
            self._dropped = 0

    def close(self) -> None:
        """Write what is left, for a second at most."""
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(1.0)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(msgspec.json.encode(line).decode() + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):  # nobody reads it any more
                return


def line_of(record: Record) -> dict[str, Any]:
    """What is written of a request; what does not apply to it is left out."""
    line = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "method": record.method,
        "path": record.path[:200],
        "status": record.status,
        "seconds": round(record.seconds, 6),
        "client": record.client,
        "request_id": record.request_id,
        "trace_id": record.trace_id,
        "dialect": record.dialect,
        "model": record.model,
        "refused": record.refused,
        "pairs": record.pairs,
        "computed": record.computed,
        "tokens": record.tokens,
        "truncated": record.truncated,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "tokenising_seconds": round(record.tokenising, 6),
        "queue_seconds": round(record.queueing, 6),
        "inference_seconds": round(record.computing, 6),
    }
    return {name: value for name, value in line.items() if value or name in ("time", "status", "seconds")}
