"""OpenTelemetry spans of requests, made when a request has been answered. No text is in them."""

from __future__ import annotations

import time
from typing import Any

import zoo
from zoo.errors import NotInstalledError
from zoo.serve.record import Record

NANO = 1_000_000_000


class Tracing:
    """Sends a span for each request for scores to ``endpoint`` by OTLP over HTTP, with its stages as children.

    ``processor`` replaces the sender, for tests and for programs that have their own. Raises NotInstalledError without the packages.
    """

    def __init__(self, endpoint: str | None = None, processor: Any = None) -> None:
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            if processor is None:
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

                processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))
        except ImportError as error:
            raise NotInstalledError(
                f"spans need OpenTelemetry, of which '{error.name}' is missing: pip install 'zoo-runner[otel]'"
            ) from error
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "zoo", "service.version": zoo.__version__})
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("zoo.serve", zoo.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def finished(self, record: Record) -> None:
        """Make the spans of a request."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        ended = time.time_ns()
        begun = ended - round(record.seconds * NANO)
        parent = self._propagator.extract({"traceparent": record.traceparent})
        attributes: dict[str, str | int] = {
            "http.request.method": record.method,
            "url.path": record.path,
            "http.response.status_code": record.status,
            "zoo.model": record.model,
            "zoo.dialect": record.dialect,
            "zoo.pairs": record.pairs,
            "zoo.tokens": record.tokens,
            "zoo.truncated_pairs": record.truncated,
        }
        span = self._tracer.start_span(
            f"{record.method} {record.path}", parent, SpanKind.SERVER, attributes=attributes, start_time=begun
        )
        if record.status >= 500:
            span.set_status(Status(StatusCode.ERROR, record.refused))
        if record.scored:
            start = begun + round(record.before * NANO)
            for name, seconds in (
                ("tokenize", record.tokenising),
                ("queue", record.queueing),
                ("infer", record.computing),
            ):
                child = self._tracer.start_span(name, set_span_in_context(span), start_time=start)
                start += round(seconds * NANO)
                child.end(start)
        span.end(ended)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
