"""Bodies in and out: read within limits of size and time, written as JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from zoo.serve.refusal import Refusal

encoder = msgspec.json.Encoder()


async def read_body(request: Request, *, most: int, seconds: float) -> bytes:
    """The whole body. Raises Refusal if it has more than ``most`` bytes or takes longer than ``seconds``, or if the client goes away."""
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > most:
        raise _too_large(most)
    if request.headers.get("content-encoding", "identity").casefold() != "identity":
        raise Refusal("invalid", "a body with a content-encoding is not supported; send it as it is")
    try:
        return await asyncio.wait_for(_collected(request, most), seconds)
    except asyncio.TimeoutError as error:
        raise Refusal("slow", f"the body did not arrive within {seconds:g} s") from error
    except ClientDisconnect as error:
        raise Refusal("gone", "the client has gone") from error


async def _collected(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
    return b"".join(parts)


def _too_large(most: int) -> Refusal:
    return Refusal("too_large", f"the body is larger than {most} bytes")


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """``content``, msgspec structs included, as JSON."""
    return Response(encoder.encode(content), status, headers, "application/json")


async def wait_until_gone(request: Request) -> None:
    """Returns when the client has closed the connection. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
