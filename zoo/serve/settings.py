"""How a server is to behave, free of anything that serves."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.evaluation.longdoc import LongDoc

LEAST_QUEUED_TOKENS = 1 << 18
"""Tokens that may wait by default; more if the device does more in half of ``timeout``."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Limits and addresses. Times are in seconds, sizes in bytes.

    ``host`` and ``port`` are what the server listens on. ``max_body`` is the size of a request's body. A client has ``header_timeout`` to
    send the head of a request and ``body_timeout`` for its body. ``long_doc`` is that of ``zoo.evaluation.EvaluationRequest``.
    ``cors_origins`` are the origins whose pages may ask, ``*`` all; ``access_log`` writes a line of JSON for each request to stdout;
    ``otlp_endpoint`` is where spans are sent, None to nowhere.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    """Any of them opens the server; without one it is open to whoever reaches it."""
    max_documents: int = 2048
    """Pairs of a request."""
    max_characters: int = 1_000_000
    """Of a text."""
    max_body: int = 16 << 20
    max_queued_tokens: int | None = None
    """Tokens that may wait for a model; None: as many as it does in half of ``timeout``, LEAST_QUEUED_TOKENS at least."""
    timeout: float = 60.0
    """Longest time a request may take; the header X-Request-Timeout asks for less."""
    device_timeout: float = 300.0
    """A device that gives no result for so long is opened again."""
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    drain_timeout: float = 30.0
    """How long requests that are being answered may take after SIGTERM."""
    max_requests: int = 1024
    """Requests that are read or wait at a time, and half the connections."""
    max_bytes: int = 512 << 20
    """Of all their bodies."""
    long_doc: LongDoc = "truncate"
    cors_origins: tuple[str, ...] = ()
    access_log: bool = True
    otlp_endpoint: str | None = None
