"""The description of the interface, made from the types that bodies are read and written with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

import zoo
from zoo.serve.dialects.others import SIDES, ScoreRequest
from zoo.serve.dialects.routes import ROUTES, DialectRoute
from zoo.serve.settings import ServeSettings

REF = "#/components/schemas/{name}"
SUMMARIES = {
    "/": "Text Embeddings Inference: rerank (also at /rerank)",
    "/elastic/rerank": "Elasticsearch, inference service hugging_face",
    "/infinity/rerank": "infinity: rerank, documents given back as texts",
    "/invocations": "Rerank, at the path that SageMaker calls",
    "/rerank": "Rerank in the form of TEI (texts), Jina, vLLM and infinity (documents) or Weaviate (property)",
    "/reranking": "llama.cpp: rerank with logits",
    "/score": "vLLM: score pairs",
    "/v1/ranking": "NVIDIA NeMo Retriever: rank passages with logits",
    "/v1/rerank": "Rerank in the form of Cohere v1, Jina, vLLM, Xinference",
    "/v1/reranking": "llama.cpp: rerank with logits",
    "/v1/score": "vLLM: score pairs",
    "/v2/rerank": "Cohere v2: rerank",
    "/v3/rerank": "OpenVINO Model Server: rerank",
    "/v3/v1/rerank": "OpenVINO Model Server, for Cohere's client",
    "/v3/v2/rerank": "OpenVINO Model Server, for Cohere's client",
}
STATUSES = {
    400: "not what the route takes",
    401: "no valid key",
    404: "the model is not served here",
    408: "the body did not arrive in time",
    413: "the body is too large",
    422: "not what the route takes, or a text that is too long",
    424: "the model gave no score",
    429: "busy; Retry-After says when to come back",
    500: "the model gave no score",
    503: "loading, shutting down, or the device failed; Retry-After says when to come back",
    504: "not answered in time",
}
LAX_BOOLEAN = [
    {"type": "integer", "enum": [0, 1]},
    {"type": "string", "pattern": "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|0|1)$"},
]
LAX_INTEGER = [{"type": "string", "pattern": "^(0|[1-9][0-9]{0,8})$"}]
TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "Seconds after which the request is to be given up with 504.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
LONG_DOC = {
    "name": "long_doc",
    "in": "query",
    "description": "The field long_doc, for clients whose body cannot be changed.",
    "schema": {"enum": ["truncate", "max", "mean", "null"]},
}


LISTS = {"texts", "documents", "passages", *(name for sides in SIDES for name in sides)}
"""Keys of lists that must have an element, and may have as many as the server lets in."""


def description(settings: ServeSettings) -> dict[str, Any]:
    """An OpenAPI 3.1 document of the paths that give scores, and of those that say how the server is."""
    dialects = {each.name: each for route in ROUTES.values() for each in route.dialects}.values()
    kinds = [kind for each in dialects for kind in (each.request, each.response, each.error)]
    kinds = list({str(kind): kind for kind in kinds}.values())
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REF)
    by_kind = {str(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    for component in components.values():
        _as_read(component, settings)
    components[ScoreRequest.__name__]["anyOf"] = [_both_of(*sides) for sides in SIDES]
    paths: dict[str, Any] = {path: {"post": _operation(path, route, by_kind)} for path, route in ROUTES.items()}
    for path, summary in INFORMATION.items():
        paths.setdefault(path, {})["get"] = _information(path, summary)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "zoo serve",
            "version": zoo.__version__,
            "summary": "A rerank service that every client speaks.",
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}] if settings.keys else [],
    }


def _operation(path: str, route: DialectRoute, schemas: dict[str, Any]) -> dict[str, Any]:
    def either(kinds: Iterable[Any]) -> dict[str, Any]:
        found = [schemas[name] for name in dict.fromkeys(map(str, kinds))]
        return found[0] if len(found) == 1 else {"anyOf": found}

    dialects = [*route.dialects, *([route.unread] if route.unread else [])]
    error = {"application/json": {"schema": either(each.error for each in dialects)}}
    return {
        "summary": SUMMARIES[path],
        "operationId": "post" + (path.replace("/", "_").rstrip("_") or "_root"),
        "parameters": [TIMEOUT, LONG_DOC],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": either(each.request for each in dialects)}},
        },
        "responses": {
            "200": {
                "description": "scores",
                "headers": {
                    "X-Zoo-Truncated": {
                        "description": "Pairs that were cut to the model's length.",
                        "schema": {"type": "integer"},
                    }
                },
                "content": {"application/json": {"schema": either(each.response for each in dialects)}},
            },
            **{str(status): {"description": text, "content": error} for status, text in STATUSES.items()},
        },
    }


INFORMATION = {
    "/": "A page for trying it out",
    "/health": "200 if it is ready, else 503",
    "/info": "The model, in the form of TEI",
    "/metrics": "Metrics for Prometheus",
    "/openapi.json": "This document",
    "/ready": "200 if it is ready, else 503, with the progress of each model",
    "/v1/models": "The models that are served",
    "/v2/health/live": "200 as long as the process answers",
}
PLAIN = {"/": "text/html", "/metrics": "text/plain"}


def _information(path: str, summary: str) -> dict[str, Any]:
    answer = {
        PLAIN.get(path, "application/json"): {"schema": {"type": "string"} if path in PLAIN else {"type": "object"}}
    }
    responses: dict[str, Any] = {"200": {"description": summary, "content": answer}}
    if path in ("/health", "/ready"):
        responses["503"] = {"description": "not ready", "content": answer}
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    operation["operationId"] = "get" + (path.replace("/", "_").replace(".", "_").rstrip("_") or "_root")
    if path in ("/info", "/v1/models"):
        responses["401"] = {"description": STATUSES[401]}
        responses["404"] = {"description": STATUSES[404]}
    else:
        operation["security"] = []
    return operation


def _as_read(schema: Any, settings: ServeSettings) -> None:
    """Say in ``schema`` what is taken beside what the types say, and the limits that are not in them."""
    if isinstance(schema, list):
        for each in schema:
            _as_read(each, settings)
        return
    if not isinstance(schema, dict):
        return
    for name, field in schema.get("properties", {}).items():
        _limit(name, field, settings)
    for each in list(schema.values()):
        _as_read(each, settings)
    choices = schema.get("anyOf", [])
    types = [each.get("type") for each in choices]
    if "boolean" in types:
        schema["anyOf"] = [*choices, *LAX_BOOLEAN]
    elif "integer" in types:
        schema["anyOf"] = [*choices, *LAX_INTEGER]
    elif "string" in types and "object" in types:
        objects = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
        schema["anyOf"] = [objects if each.get("type") == "object" else each for each in choices]


def _both_of(*sides: str) -> dict[str, Any]:
    """The schema of an object that has all of these keys, none of them null."""
    return {"required": list(sides), "properties": {name: {"not": {"type": "null"}} for name in sides}}


def _limit(name: str, field: dict[str, Any], settings: ServeSettings) -> None:
    for each in (field, *field.get("anyOf", ())):
        if each.get("type") == "array" and name in LISTS:
            each |= {"minItems": 1, "maxItems": settings.max_documents}
        if name in ("truncation_direction", "truncation_side") and each.get("type") == "string":
            each["enum"] = ["Left", "Right", "left", "right"]
        if name == "truncate" and each.get("type") == "string":
            each["enum"] = ["END", "NONE"]
        if name == "instruction" and each.get("type") == "string":
            each["maxLength"] = 0  # one for a single request is not supported
