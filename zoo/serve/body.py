"""Bodies in and out: read within limits of size and time, written as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from zoo.serve.refusal import Refusal

encoder = msgspec.json.Encoder()


async def read_body(request: Request, stated_most: int, take: Callable[[int], None], seconds: float) -> bytes:
    """The whole body, of which ``take`` is told part by part and may refuse. Raises Refusal for one that is not whole in ``seconds``."""
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > stated_most:
        raise Refusal("too_large", f"the body is larger than {stated_most} bytes")
    if request.headers.get("content-encoding", "identity").casefold() != "identity":
        raise Refusal("invalid", "a body with a content-encoding is not supported; send it as it is")
    try:
        return await asyncio.wait_for(_collected(request, take), seconds)
    except asyncio.TimeoutError as error:
        raise Refusal("slow", f"the body did not arrive within {seconds:g} s") from error
    except ClientDisconnect as error:
        raise Refusal("gone", "the client has gone") from error


async def _collected(request: Request, take: Callable[[int], None]) -> bytes:
    parts = []
    async for part in request.stream():
        take(len(part))
        parts.append(part)
    return b"".join(parts)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """``content``, msgspec structs included, as JSON."""
    return Response(encoder.encode(content), status, headers, "application/json")


async def wait_until_gone(request: Request) -> None:
    """Returns when the client has closed the connection. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
