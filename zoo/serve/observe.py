"""The outermost layer: every request gets an id, headers and a record, whatever answers it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from zoo.serve.record import Record, request_id, trace_id

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

RECORD = "zoo.record"
"""Where the record of a request lies in its ASGI scope."""

SECURITY = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


class Observe:
    """Gives each request a Record and an id, and tells ``finished`` when it has been answered or its client has gone."""

    def __init__(self, app: ASGIApp, finished: Callable[[Record], None]) -> None:
        self._app, self._finished = app, finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = scope[RECORD] = _record(scope)

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                own = (b"x-request-id", record.request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), own, *SECURITY]}
            elif message["type"] == "http.response.body":
                record.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            record.seconds = time.monotonic() - record.started
            self._finished(record)


def _record(scope: Scope) -> Record:
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    client = scope.get("client")
    return Record(
        method=scope["method"],
        path=scope["path"],
        client=client[0] if client else "",
        request_id=request_id(headers.get(b"x-request-id", "")),
        trace_id=trace_id(headers.get(b"traceparent", "")),
        traceparent=headers.get(b"traceparent", ""),
    )
