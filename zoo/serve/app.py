"""One server's models, and the ASGI application that answers requests with them."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from zoo.errors import ZooError
from zoo.numerals import decimal_number
from zoo.serve.access_log import AccessLog
from zoo.serve.body import json_response, read_body, wait_until_gone
from zoo.serve.dialects.base import Dialect, converted, decoded
from zoo.serve.dialects.base import Request as BaseRequest
from zoo.serve.dialects.routes import ROUTES, DialectRoute
from zoo.serve.information import Information
from zoo.serve.keys import KeyCheck
from zoo.serve.metrics import Metrics
from zoo.serve.models import Models, ServedModel
from zoo.serve.observe import RECORD, Observe
from zoo.serve.record import Record
from zoo.serve.refusal import Refusal
from zoo.serve.scoring import Scoring
from zoo.serve.settings import ServeSettings
from zoo.serve.tracing import Tracing

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger(__name__)

QUERY_PARAMETERS = ("model", "long_doc")
"""What may stand in the address for clients whose body cannot be changed."""


class Service:
    """One server. ``on_ready`` is called once every model can score, ``on_fatal`` if one cannot be served (any more)."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        settings: ServeSettings | None = None,
        *,
        on_ready: Callable[[], None] = lambda: None,
        on_fatal: Callable[[ZooError], None] = lambda error: None,
    ) -> None:
        self.settings = settings or ServeSettings()
        self.models = Models(models)
        self.metrics = Metrics(self.models)
        self.draining = False
        self.in_progress = 0
        """Requests for scores that are not answered."""
        self._waiting: set[asyncio.Future[None]] = set()
        self._bytes = 0
        """Of the bodies of those requests."""
        self._scoring = Scoring(self.models, self.settings)
        self._keys = KeyCheck(self.settings.keys)
        self._on_ready, self._on_fatal = on_ready, on_fatal
        self._log = AccessLog() if self.settings.access_log else None
        self._tracing = Tracing(self.settings.otlp_endpoint) if self.settings.otlp_endpoint else None

    @property
    def ready(self) -> bool:
        """Whether requests are let in and every model can score."""
        return not self.draining and self.models.ready

    def app(self) -> ASGIApp:
        """The application, for any ASGI server. It opens the models when the server starts it, and closes them at the end."""
        origins = list(self.settings.cors_origins)
        cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"])
        paths = [*ROUTES.items(), *((f"{path}/", route) for path, route in ROUTES.items() if path != "/")]
        app = Starlette(
            routes=[
                *Information(self).routes(),
                *(Route(path, self._endpoint(route), methods=["POST"]) for path, route in paths),
            ],
            middleware=[cors] if origins else [],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _http_error, Refusal: _refusal},
        )
        app.router.redirect_slashes = False  # a redirect loses the body of a POST
        return Observe(app, self._finished)

    def authorize(self, request: Request) -> None:
        """Raises Refusal if the request has no valid key."""
        if not self._keys.passes(request.headers.get("authorization", "")):
            raise Refusal("unauthorized", "a valid API key is needed, as 'Authorization: Bearer KEY'")

    def give_up(self) -> None:
        """Answer the requests that wait for scores with an error, because the server cannot wait any longer."""
        for gone in self._waiting:
            gone.cancel()

    def _endpoint(self, route: DialectRoute) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            record: Record = request.scope[RECORD]
            dialect = route.unread or route.usual
            record.dialect = dialect.name
            self.in_progress += 1
            self.metrics.begin()
            try:
                content = await self._content(request, record)
                dialect = route.dialect_of(content)
                record.dialect = dialect.name
                return await self._scored(request, dialect, content, record)
            except Refusal as refusal:
                return self._refused(dialect, refusal, record)
            except (
                Exception
            ) as error:  # a fault of this program: the client gets an answer, the log what and where, and no text
                logger.error("internal fault: %s at %s", type(error).__name__, _place(error))
                return self._refused(dialect, Refusal("failed", f"internal fault: {type(error).__name__}"), record)
            finally:
                self.in_progress -= 1
                self._bytes -= record.bytes_in

        return answer

    async def _content(self, request: Request, record: Record) -> Any:
        """The decoded body. Raises Refusal."""
        self.authorize(request)
        if self.draining:
            raise Refusal("not_ready", "the server is shutting down", retry_after=2)
        if self.in_progress > self.settings.max_requests:
            raise Refusal("busy", f"{self.settings.max_requests} requests are being answered", retry_after=1)
        body = await read_body(
            request, self.settings.max_body, functools.partial(self._take_bytes, record), self.settings.body_timeout
        )
        content = decoded(body)
        if isinstance(content, dict):
            given = _of_address(request)
            content |= {name: value for name, value in given.items() if content.get(name) is None}
        return content

    def _take_bytes(self, record: Record, size: int) -> None:
        """Let ``size`` more bytes of a body in. Raises Refusal."""
        record.bytes_in += size
        self._bytes += size
        if record.bytes_in > self.settings.max_body:
            raise Refusal("too_large", f"the body is larger than {self.settings.max_body} bytes")
        if self._bytes > self.settings.max_bytes:
            raise Refusal("busy", "too many large requests are being answered", retry_after=1)

    async def _scored(self, request: Request, dialect: Dialect, content: Any, record: Record) -> Response:
        deadline = record.started + self._seconds(request)
        parsed = dialect.read(content)
        gone = asyncio.ensure_future(wait_until_gone(request))
        self._waiting.add(gone)
        try:
            scored = await self._scoring.score(parsed.job, deadline, gone, record)
        finally:
            self._waiting.discard(gone)
            gone.cancel()
        return json_response(parsed.answer(scored), headers=_headers(record, parsed.job.characters, dialect))

    def _seconds(self, request: Request) -> float:
        """How long the request may take: what it asks for, as far as the server allows it."""
        asked = request.headers.get("x-request-timeout")
        if asked is None:
            return self.settings.timeout
        seconds = decimal_number(asked) or 0.0
        if not seconds > 0:
            raise Refusal("invalid", "X-Request-Timeout must be a number of seconds above 0")
        return min(seconds, self.settings.timeout)

    def _refused(self, dialect: Dialect, refusal: Refusal, record: Record) -> Response:
        record.refused = refusal.kind
        headers = {}
        if refusal.retry_after is not None:
            headers["retry-after"] = str(refusal.retry_after)
        if refusal.kind == "unauthorized":
            headers["www-authenticate"] = "Bearer"
        if self.draining or refusal.kind in ("too_large", "slow", "busy", "unauthorized"):
            headers["connection"] = "close"  # what is left of the body is not read
        return json_response(dialect.refuse(refusal), dialect.status(refusal), headers)

    def _finished(self, record: Record) -> None:
        if record.dialect:
            self.metrics.end(record)
            if self._tracing is not None:
                self._tracing.finished(record)
        if self._log is not None:
            self._log.write(record)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(self._supervise(model)) for model in self.models.all]
        tasks.append(asyncio.ensure_future(self._tell_when_ready()))
        try:
            yield
        finally:
            self.draining = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(model.close() for model in self.models.all))
            self._scoring.close()
            if self._tracing is not None:
                self._tracing.close()
            if self._log is not None:
                self._log.close()

    async def _supervise(self, model: ServedModel) -> None:
        try:
            await model.supervise()
        except ZooError as error:
            self._on_fatal(error)
        except Exception as error:
            logger.error("internal fault: %s at %s", error, _place(error))
            self._on_fatal(ZooError(f"the model '{model.name}' cannot be served: {type(error).__name__}: {error}"))

    async def _tell_when_ready(self) -> None:
        while not self.models.ready:
            await asyncio.sleep(0.02)
        self._on_ready()


def _headers(record: Record, characters: int, dialect: Dialect) -> dict[str, str]:
    """Headers of an answer with scores. TEI's times are in milliseconds."""
    headers = {"x-zoo-truncated": str(record.truncated)}
    if dialect.timings:
        total = time.monotonic() - record.started
        headers |= {
            "x-compute-type": record.device,
            "x-compute-time": _milliseconds(total),
            "x-compute-characters": str(characters),
            "x-compute-tokens": str(record.tokens),
            "x-total-time": _milliseconds(total),
            "x-tokenization-time": _milliseconds(record.tokenising),
            "x-queue-time": _milliseconds(record.queueing),
            "x-inference-time": _milliseconds(record.computing),
        }
    return headers


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"


def _of_address(request: Request) -> dict[str, str]:
    """The fields of a body that stand in the address. Raises Refusal for a field that is given twice or has no valid value."""
    found = {}
    for name in QUERY_PARAMETERS:
        values = request.query_params.getlist(name)
        if len(values) > 1:
            raise Refusal("invalid", f"'{name}' stands in the address more than once", param=name)
        if values:
            found[name] = values[0]
    converted(found, BaseRequest)
    return found


def _http_error(request: Request, error: Exception) -> Response:
    """A path or a method that does not exist."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    headers = dict(error.headers or {})
    if error.status_code == 405:  # of a path with several routes, starlette names the methods of the first
        found = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
        headers["Allow"] = ", ".join(sorted({method for route in found for method in route.methods}))
    return json_response({"error": message, "message": message, "detail": message}, error.status_code, headers)


def _refusal(request: Request, error: Exception) -> Response:
    """A refusal on a path without a dialect."""
    assert isinstance(error, Refusal)
    headers = {"www-authenticate": "Bearer"} if error.kind == "unauthorized" else {}
    return json_response(
        {"error": error.message, "message": error.message, "detail": error.message}, error.status, headers
    )
