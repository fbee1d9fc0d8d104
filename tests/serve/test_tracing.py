"""Spans, as a collector on loopback gets them by OTLP over HTTP."""

from __future__ import annotations

import http.server
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from serving import FakeReranker, serving
from zoo.serve.tracing import Tracing

pytestmark = pytest.mark.clients

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(http.server.ThreadingHTTPServer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Keep)
        self.bodies: list[bytes] = []
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}/v1/traces"


class _Keep(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.server.bodies.append(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def spans_of(collector: Collector) -> list[Any]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    found = []
    for body in collector.bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert named["service.name"] == "zoo"
            found += [span for scope in resource.scope_spans for span in scope.spans]
    return found


def values(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_a_request_becomes_a_span_of_its_callers_trace_with_its_stages_in_it(collector: Collector) -> None:
    with serving(FakeReranker, otlp_endpoint=collector.endpoint) as server:
        body = {"query": "a secret question", "documents": ["3 secret answer", "word " * 40]}
        answer = server.post("/v1/rerank", body, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        assert answer.status_code == 200
        assert server.post("/v1/rerank", {**body, "model": "absent"}).status_code == 404
    spans = spans_of(collector)
    requests = [span for span in spans if span.name == "POST /v1/rerank"]
    scored, refused = sorted(requests, key=lambda span: values(span)["http.response.status_code"])
    assert (scored.trace_id.hex(), scored.parent_span_id.hex()) == (TRACE, PARENT)
    assert values(scored) == {
        "http.request.method": "POST",
        "url.path": "/v1/rerank",
        "http.response.status_code": 200,
        "zoo.model": "fake",
        "zoo.dialect": "documents",
        "zoo.pairs": 2,
        "zoo.tokens": answer.json()["usage"]["total_tokens"],
        "zoo.truncated_pairs": 1,
    }
    stages = [span for span in spans if span.parent_span_id == scored.span_id]
    assert [span.name for span in stages] == ["tokenize", "queue", "infer"]
    for before, after in itertools.pairwise(stages):
        assert before.end_time_unix_nano == after.start_time_unix_nano
    assert scored.start_time_unix_nano <= stages[0].start_time_unix_nano
    assert stages[-1].end_time_unix_nano <= scored.end_time_unix_nano
    assert values(refused)["http.response.status_code"] == 404
    assert refused.trace_id.hex() != TRACE
    assert not any(b"secret" in body for body in collector.bodies), "texts are in no span"


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from zoo.errors import NotInstalledError

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(NotInstalledError, match=r"pip install 'zoo-runner\[otel\]'"):
        Tracing("http://127.0.0.1:1/v1/traces")
