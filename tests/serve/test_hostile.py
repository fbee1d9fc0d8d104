"""Clients that are slow, large, broken or curious, on real sockets."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import zoo.serve.app
import zoo.serve.protocol
from serving import SOON, FakeReranker, Running, serving, until
from zoo.errors import InputError
from zoo.serve.access_log import AccessLog
from zoo.serve.dialects.routes import ROUTES
from zoo.serve.keys import read_keys

SECRET = "sesame-4711"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(FakeReranker, header_timeout=0.3, body_timeout=0.5, max_body=100_000, max_bytes=500_000) as running:
        yield running


def raw(server: Running, data: bytes, seconds: float = SOON) -> bytes:
    """All that comes back for ``data`` until the server closes the connection, or for ``seconds``."""
    with socket.create_connection(server.address, timeout=seconds) as connection:
        connection.sendall(data)
        answer = b""
        while True:
            try:
                part = connection.recv(65536)
            except (TimeoutError, ConnectionResetError):
                return answer
            if not part:
                return answer
            answer += part


def test_a_head_that_does_not_arrive_closes_the_connection(server: Running) -> None:
    for beginning in (b"", b"POST /rerank HTTP/1.1\r\nhost: x\r\nx-slow: "):
        began = time.monotonic()
        assert raw(server, beginning) == b""
        assert 0.2 < time.monotonic() - began < 5


def test_a_head_that_arrives_byte_by_byte_is_not_waited_for(server: Running) -> None:
    with socket.create_connection(server.address, timeout=SOON) as connection:
        began = time.monotonic()
        try:
            for byte in b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"x-a: b\r\n" * 1000:
                connection.sendall(bytes([byte]))
                time.sleep(0.01)
        except OSError:  # reset, or a broken pipe
            pass
        assert time.monotonic() - began < 5


def test_connections_that_say_nothing_do_not_keep_others_out(server: Running) -> None:
    silent = [socket.create_connection(server.address) for _ in range(100)]
    assert server.client.get("/health").status_code == 200
    for connection in silent:
        connection.close()


def test_a_body_that_does_not_arrive_is_answered_408(server: Running) -> None:
    head = b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
    answer = raw(server, head + b'{"query"')
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not arrive within 0.5 s" in answer


def test_a_client_that_closes_half_of_the_connection_ends_its_request(server: Running) -> None:
    content = b'{"query":"q","texts":["1"]}'
    with socket.create_connection(server.address, timeout=SOON) as connection:
        connection.sendall(
            b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(content) + content[:5]
        )
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1000)
    until(lambda: server.service.in_progress == 0)


def test_a_client_that_does_not_read_its_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.serve.protocol, "UNREAD_SECONDS", 0.3)
    with serving(FakeReranker) as server:
        content = json.dumps({"query": "q", "texts": ["1 " + "x" * 9000] * 1000, "return_text": True}).encode()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(server.address)
            connection.sendall(
                b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(content) + content
            )
            until(lambda: server.metric("zoo_requests_total", dialect="tei", status="200") == 1)
            until(
                lambda: (
                    not server.server.server_state.connections - {None} or len(server.server.server_state.tasks) == 0
                )
            )


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_megabytes_is_refused_without_being_read(server: Running, chunked: bool) -> None:
    read = 0

    def content() -> Iterator[bytes]:
        nonlocal read
        for _ in range(1600):
            read += 65536
            yield b" " * 65536

    headers = {} if chunked else {"content-length": str(100 << 20)}
    try:
        answer = httpx.post(f"{server.url}/rerank", content=content(), headers=headers, timeout=SOON)
    except httpx.TransportError:
        pass  # it was still sending when the connection was closed
    else:
        assert answer.status_code == 413
        assert answer.headers["connection"] == "close"
        assert answer.json()["error_type"] == "Validation"
    assert read < 50 << 20
    assert server.client.get("/health").status_code == 200


def test_a_body_that_is_too_large_is_answered_413(server: Running) -> None:
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        answer = server.client.post(path, content=b'"' + b"x" * 100_001 + b'"')
        assert answer.status_code == 413
    assert server.service._bytes == 0


def test_bodies_together_do_not_fill_the_memory(server: Running) -> None:
    head = b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-length: 99000\r\n\r\n" + b" " * 98000
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: raw(server, head), range(10)))
    assert {answer.split(b" ", 2)[1] for answer in answers} <= {b"429", b"408"}
    assert any(answer.startswith(b"HTTP/1.1 429") for answer in answers)
    assert server.service._bytes == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/x\r\n\r\n",
        b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
        b"\x00" * 1000,
    ],
    ids=["tls", "version", "length", "smuggling", "path", "head", "zeros"],
)
def test_what_is_not_http_is_refused_and_nobody_else_notices(server: Running, data: bytes) -> None:
    answer = raw(server, data, 3)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert server.client.get("/health").status_code == 200


def test_compressed_bodies_are_refused_in_words(server: Running) -> None:
    answer = server.client.post("/v1/rerank", content=b"x", headers={"content-encoding": "gzip"})
    assert answer.status_code == 400
    assert "content-encoding" in answer.json()["detail"]


def fuzzed(draw: random.Random) -> Any:
    """A body that is nearly right, or not at all."""
    junk = [
        None,
        True,
        0,
        -1,
        1e300,
        10**30,
        "",
        "x",
        "9" * 40,
        [],
        {},
        [[]],
        {"text": []},
        [None],
        ["1", 2],
        "\u0000",
        "\ud83d\ude00",
    ]
    names = [
        "query", "texts", "documents", "top_n", "model", "return_documents", "truncate", "property", "passages", "text_1", "text_2",
        "rank_fields", "raw_scores", "long_doc", "max_tokens_per_doc", "truncation_direction", "queries", "items",
    ]  # fmt: skip
    body: dict[str, Any] = {"query": "q", draw.choice(["texts", "documents", "passages"]): ["1", "2 3"]}
    for name in draw.sample(names, draw.randint(0, 5)):
        body[name] = draw.choice(junk)
    return draw.choice([body, body, body, draw.choice(junk), [body]])


def test_no_body_makes_a_server_error(server: Running) -> None:
    draw = random.Random(11)
    for _ in range(600):
        path = draw.choice(list(ROUTES))
        text = json.dumps(fuzzed(draw))
        if draw.random() < 0.2:
            place = draw.randrange(len(text))
            text = text[:place] + draw.choice(["", "\u00e9", "}", '"', "\\"]) + text[place + draw.randint(0, 3) :]
        answer = server.client.post(path, content=text.encode())
        assert answer.status_code < 500, (path, text, answer.text)
        assert isinstance(answer.json(), (dict, list))


# -- keys --------------------------------------------------------------------------------------------------------------

BODY = {"query": "q", "texts": ["1"]}


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with serving(FakeReranker, keys=(SECRET, "other-key"), cors_origins=("https://good.example",)) as running:
        yield running


@pytest.mark.parametrize("header", [f"Bearer {SECRET}", f"bearer  {SECRET}", SECRET, "Bearer other-key"])
def test_a_key_opens_the_server_in_each_form_that_clients_send(locked: Running, header: str) -> None:
    assert locked.post("/rerank", BODY, headers={"authorization": header}).status_code == 200
    assert locked.client.get("/info", headers={"authorization": header}).status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", "Basic abc", SECRET.upper()]
)
def test_a_wrong_key_opens_nothing(locked: Running, header: str) -> None:
    for path in ROUTES:
        answer = locked.post(path, BODY, headers={"authorization": header})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert SECRET not in answer.text
    for path in ("/info", "/v1/models", "/models"):
        assert locked.client.get(path, headers={"authorization": header}).status_code == 401


def test_health_metrics_and_the_page_need_no_key(locked: Running) -> None:
    for path in ("/health", "/ready", "/metrics", "/v2/health/live", "/", "/openapi.json"):
        assert locked.client.get(path).status_code == 200


def test_keys_come_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{SECRET}\n\n other-key \n")
    assert read_keys(file, {}) == (SECRET, "other-key")
    assert read_keys(file, {"ZOO_API_KEY": "third"}) == ("third", SECRET, "other-key")
    assert read_keys(None, {}) == ()
    file.write_text("# nothing\n")
    with pytest.raises(InputError, match="holds no key"):
        read_keys(file, {"ZOO_API_KEY": "third"})
    with pytest.raises(InputError, match="cannot be read"):
        read_keys(tmp_path / "absent", {})


def test_other_origins_get_nothing_unless_they_are_given(server: Running, locked: Running) -> None:
    ask = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in server.client.options("/rerank", headers=ask).headers
    assert "access-control-allow-origin" not in locked.client.options("/rerank", headers=ask).headers
    good = locked.client.options("/rerank", headers={**ask, "origin": "https://good.example"}).headers
    assert good["access-control-allow-origin"] == "https://good.example"


# -- logs --------------------------------------------------------------------------------------------------------------


def test_no_text_and_no_key_is_ever_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(zoo.serve.app, "AccessLog", lambda: AccessLog(written))
    caplog.set_level("DEBUG")
    words = ["confidential-query", "confidential-passage"]
    with serving(FakeReranker, keys=(SECRET,), access_log=True, max_documents=3) as server:
        headers = {"authorization": f"Bearer {SECRET}", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        for path in ROUTES:
            bodies: list[dict[str, Any]] = [
                {"query": words[0], "texts": [words[1]]},
                {"query": words[0], "documents": [words[1]]},
                {"query": words[0], "documents": [words[1]] * 9},
                {"query": [words[0]], "documents": {words[1]: words[1]}},
                {"query": {"text": words[0]}, "passages": [{"text": words[1]}]},
                {"text_1": words[0], "text_2": words[1]},
            ]
            for body in bodies:
                server.post(f"{path}?query={words[0]}", body, headers=headers)
            server.client.post(path, content=words[0].encode(), headers=headers)
            server.post(path, bodies[0], headers={"authorization": f"Bearer {SECRET}1"})
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("zoo", "uvicorn", "asyncio"))]
    logged = written.getvalue() + "".join(ours) + "".join(capfd.readouterr())
    assert len(written.getvalue().splitlines()) == 8 * len(ROUTES)
    for word in (*words, SECRET):
        assert word not in logged
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert {line["status"] for line in lines} >= {200, 400, 401, 422}
    scored = next(line for line in lines if line.get("computed"))
    assert scored["trace_id"] == "a" * 32
    assert scored["model"] == "fake"
    assert scored["pairs"] == 1
    assert scored["tokens"] > 0
    assert scored.keys() >= {
        "time",
        "method",
        "path",
        "seconds",
        "client",
        "request_id",
        "dialect",
        "bytes_in",
        "bytes_out",
    }


def test_an_internal_fault_is_answered_and_logged_without_texts(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("the text was confidential-passage")

    monkeypatch.setattr(server.service._scoring, "score", broken)
    answer = server.post("/v1/rerank", {"query": "q", "documents": ["1"]})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "InternalServerError"
    assert "confidential" not in answer.text + caplog.text
    assert "internal fault: RuntimeError at" in caplog.text


def test_a_reader_of_the_access_log_that_does_not_read_holds_up_nobody() -> None:
    from zoo.serve.record import Record

    read, write = os.pipe()
    stream = os.fdopen(write, "w")
    log = AccessLog(stream)
    began = time.monotonic()
    for _ in range(20_000):
        log.write(Record(path="/rerank" * 20))
    assert time.monotonic() - began < 10
    assert log._dropped > 0
    os.close(read)
    log._thread.join(SOON)
    assert not log._thread.is_alive()
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def test_a_request_names_no_file(server: Running) -> None:
    for name in ("/etc/passwd", "../models", "file:///etc/passwd", "zoo-reranker-tiny"):
        answer = server.post("/v1/rerank", {"model": name, "query": "q", "documents": ["1"]})
        assert answer.status_code == 404
        assert server.client.get(f"/v2/models/{name}/ready").status_code == 404
