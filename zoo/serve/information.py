"""Paths that give no scores: what is served, whether it is ready, metrics, the description of the interface, and the page."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import zoo
from zoo.serve import metrics, openapi, page
from zoo.serve.body import json_response
from zoo.serve.models import Models, ServedModel
from zoo.serve.settings import ServeSettings

Answer = Callable[[Request], Awaitable[Response]]

ALIVE = ("/v1/health/live", "/v2/health/live")
READY = ("/health", "/ping", "/ready", "/v1/health/ready", "/v2/health/ready")


class State(Protocol):
    """What a service says of itself; see ``zoo.serve.app.Service``."""

    settings: ServeSettings
    models: Models
    metrics: metrics.Metrics
    draining: bool

    @property
    def ready(self) -> bool:
        """Whether requests are let in and every model can score."""
        ...

    def authorize(self, request: Request) -> None:
        """Raises Refusal if the request has no valid key."""
        ...


class Information:
    """Answers from the state of a service."""

    def __init__(self, service: State) -> None:
        self._service = service

    def routes(self) -> Sequence[Route]:
        """Every path. Health, metrics, the page and the description are open; the others need a key if there is one."""
        return [
            Route("/", self._page, methods=["GET"]),
            Route("/openapi.json", self._openapi, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            *(Route(path, self._alive, methods=["GET"]) for path in ALIVE),
            *(Route(path, self._ready, methods=["GET"]) for path in READY),
            Route("/v2/models/{name:path}/ready", self._model_ready, methods=["GET"]),
            Route("/info", self._guarded(self._info), methods=["GET"]),
            Route("/models", self._guarded(self._models), methods=["GET"]),
            Route("/v1/models", self._guarded(self._models), methods=["GET"]),
        ]

    def _guarded(self, answer: Answer) -> Answer:
        async def guarded(request: Request) -> Response:
            self._service.authorize(request)
            return await answer(request)

        return guarded

    async def _page(self, request: Request) -> Response:
        return page.response()

    async def _openapi(self, request: Request) -> Response:
        return json_response(openapi.description(self._service.settings))

    async def _metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.page(), headers={"content-type": metrics.CONTENT_TYPE})

    async def _alive(self, request: Request) -> Response:
        return json_response({"status": "live", "live": True})

    async def _ready(self, request: Request) -> Response:
        service = self._service
        status = "ok" if service.ready else "draining" if service.draining else "not ready"
        content = {
            "status": status,
            "ready": service.ready,
            "unix": time.time(),
            "models": [_state(model) for model in service.models.all],
        }
        return json_response(content, 200 if service.ready else 503, {} if service.ready else {"retry-after": "2"})

    async def _model_ready(self, request: Request) -> Response:
        model = self._service.models.named(request.path_params["name"])
        ready = model.state == "ready" and not self._service.draining
        return json_response({"name": model.name, "ready": ready}, 200 if ready else 503)

    async def _info(self, request: Request) -> Response:
        model = self._service.models.named(request.query_params.get("model"))
        return json_response(_tei_info(self._service, model))

    async def _models(self, request: Request) -> Response:
        return json_response({"object": "list", "data": [_model(each) for each in self._service.models.all]})


def _state(model: ServedModel) -> dict[str, Any]:
    state: dict[str, Any] = {
        "id": model.name,
        "state": model.state,
        "seconds": round(time.monotonic() - model.since, 1),
    }
    if model.progress and model.state != "ready":
        state["progress"] = model.progress
    return state


def _model(model: ServedModel) -> dict[str, Any]:
    """One entry of OpenAI's list of models, with what infinity's and vLLM's say beside it."""
    entry: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "zoo",
        "capabilities": ["rerank"],
        "aliases": list(model.names),
        "state": model.state,
    }
    if model.reranker is not None:
        entry |= {
            "device": model.reranker.device_name,
            "dtype": model.reranker.precision,
            "max_model_len": model.reranker.max_length,
        }
    return entry


def _tei_info(service: State, model: ServedModel) -> dict[str, Any]:
    """TEI's fields; Dify reads ``model_type`` and ``max_input_length`` before it sends a request."""
    reranker, settings = model.reranker, service.settings
    return {
        "model_id": model.name,
        "model_sha": reranker.checkpoint.revision if reranker else None,
        "model_dtype": DTYPES.get(reranker.precision, reranker.precision) if reranker else None,
        "served_model_name": model.name,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": settings.max_requests,
        "max_input_length": reranker.max_length if reranker else None,
        "max_batch_tokens": reranker.batch_tokens if reranker else None,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_documents,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": zoo.__version__,
        "sha": None,
        "docker_label": None,
    }


DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
