"""Each client's form: what it sends is read, what it expects is answered, field for field and status for status."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving import FakeReranker, Running, serving

QUERY = "how long to boil an egg"
TEXTS = ["2 minutes is too short", "-1 Paris lies on the Seine", "3 7 minutes gives a firm yolk"]
LOGITS = [2.0, -1.0, 3.0]
ORDER = [2, 0, 1]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


SCORES = [sigmoid(logit) for logit in LOGITS]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(FakeReranker, FakeReranker, max_documents=50, max_characters=2000) as running:
        yield running


def keys(content: dict[str, Any]) -> set[str]:
    return set(content)


# -- Text Embeddings Inference -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/rerank", "/", "/invocations", "/rerank/", "/v1/rerank"])
def test_tei_gets_a_bare_array_sorted_by_score(server: Running, path: str) -> None:
    answer = server.post(path, {"query": QUERY, "texts": TEXTS})
    assert answer.status_code == 200
    assert answer.json() == [{"index": n, "score": pytest.approx(SCORES[n])} for n in ORDER]


def test_tei_returns_texts_and_logits_on_request(server: Running) -> None:
    body = {
        "query": QUERY,
        "texts": TEXTS,
        "raw_scores": True,
        "return_text": True,
        "truncate": True,
        "truncation_direction": "Right",
    }
    answer = server.post("/rerank", body)
    assert answer.json() == [{"index": n, "text": TEXTS[n], "score": LOGITS[n]} for n in ORDER]


def test_tei_says_what_it_took_in_headers(server: Running) -> None:
    headers = server.post("/rerank", {"query": QUERY, "texts": TEXTS}).headers
    assert headers["x-compute-type"] == "fake"
    assert headers["x-compute-characters"] == str(sum(len(QUERY) + len(text) for text in TEXTS))
    assert int(headers["x-compute-tokens"]) == sum(len((QUERY + " " + text).split()) + 3 for text in TEXTS)
    for name in ("x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"):
        assert headers[name].isdecimal()


LONG = " ".join(["4"] * 40)


def test_tei_truncates_unless_it_is_told_not_to(server: Running) -> None:
    cut = server.post("/rerank", {"query": "q", "texts": [LONG, "1"]})
    assert cut.status_code == 200
    assert cut.headers["x-zoo-truncated"] == "1"
    refused = server.post("/rerank", {"query": "q", "texts": ["1", LONG], "truncate": False})
    assert refused.status_code == 422
    assert refused.json()["error_type"] == "Validation"
    assert "pair 1 is longer than the 16 tokens" in refused.json()["error"]
    assert server.post("/rerank", {"query": "q", "texts": ["1"], "truncate": False}).status_code == 200


@pytest.mark.parametrize("left", ["Left", "left"])
def test_cutting_at_the_beginning_is_refused_rather_than_done_at_the_end(server: Running, left: str) -> None:
    assert server.post("/rerank", {"query": "q", "texts": ["5"], "truncation_direction": left}).status_code == 200
    refused = server.post("/rerank", {"query": "q", "texts": [LONG], "truncation_direction": left})
    assert refused.status_code == 422
    assert "only cut at their end" in refused.json()["error"]


@pytest.mark.parametrize(
    ("limit", "tokens"), [("truncate_prompt_tokens", 10), ("max_tokens_per_doc", 4), ("max_tokens_per_query", 1)]
)
def test_a_limit_of_the_request_is_not_cut_to_at_the_wrong_end_either(server: Running, limit: str, tokens: int) -> None:
    body = {
        "query": "two words",
        "documents": ["5 and some nine other words more than that"],
        "truncation_side": "left",
    }
    assert server.post("/v1/rerank", {**body, limit: 15}).status_code == 200
    assert server.post("/v1/rerank", {**body, "truncation_side": "right", limit: tokens}).status_code == 200
    refused = server.post("/v1/rerank", {**body, limit: tokens})
    assert refused.status_code == 400
    assert "pair 0 is longer than the request allows; texts are only cut at their end" in refused.json()["message"]


def test_a_pair_counts_as_cut_once_whichever_of_its_texts_was(server: Running) -> None:
    both = {"text_1": [LONG, "q", LONG, "q"], "text_2": ["1", LONG, LONG, "1"]}
    answer = server.post("/score", both)
    assert answer.status_code == 200
    assert answer.headers["x-zoo-truncated"] == "3"


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"query": "q", "texts": []}, 400, "Empty"),
        ({"query": "q", "texts": ["1"] * 51}, 422, "Validation"),
        ({"query": "q", "texts": ["x" * 2001]}, 422, "Validation"),
        ({"query": 5, "texts": ["1"]}, 422, "Validation"),
        ({"query": "q", "texts": [None]}, 422, "Validation"),
        ({"texts": ["1"]}, 422, "Validation"),
        ({"query": "q", "texts": ["1"], "truncation_direction": "up"}, 422, "Validation"),
        ({"query": "q", "texts": ["1"], "raw_scores": "perhaps"}, 422, "Validation"),
        (["no", "object"], 422, "Validation"),
    ],
)
def test_tei_errors_are_a_string_and_a_type(server: Running, body: Any, status: int, kind: str) -> None:
    answer = server.post("/rerank", body)
    assert answer.status_code == status
    assert keys(answer.json()) == {"error", "error_type"}
    assert answer.json()["error_type"] == kind
    assert isinstance(answer.json()["error"], str)


def test_what_is_not_json_is_said_in_the_routes_words(server: Running) -> None:
    for path, key in (
        ("/rerank", "error_type"),
        ("/v1/rerank", "detail"),
        ("/v2/rerank", "message"),
        ("/score", "detail"),
    ):
        for body in (b"", b"{", b'{"query": "\xff"}', b'{"query": NaN}', b"[" * 5000, b'{"query": "\\ud800"}'):
            answer = server.client.post(path, content=body)
            assert answer.status_code == 400, (path, body)
            assert key in answer.json()


def test_info_has_what_clients_read_before_they_ask(server: Running) -> None:
    info = server.client.get("/info").json()
    assert "reranker" in info["model_type"]
    assert info["max_input_length"] == 16
    assert info["max_client_batch_size"] == 50
    assert keys(info) >= {
        "model_id", "model_sha", "model_dtype", "max_concurrent_requests", "max_batch_tokens", "max_batch_requests",
        "auto_truncate", "tokenization_workers", "version", "sha", "docker_label",
    }  # fmt: skip
    assert info["model_dtype"] == "float32"


# -- Cohere, Jina, vLLM, infinity and their like -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v1/rerank/"])
def test_jina_and_vllm_get_results_with_documents_and_usage(server: Running, path: str) -> None:
    answer = server.post(path, {"model": "fake", "query": QUERY, "documents": TEXTS}).json()
    assert answer["model"] == "fake"
    assert answer["results"] == [
        {"index": n, "relevance_score": pytest.approx(SCORES[n]), "document": {"text": TEXTS[n]}} for n in ORDER
    ]
    tokens = sum(len((QUERY + " " + text).split()) + 3 for text in TEXTS)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    assert answer["meta"]["tokens"] == {"input_tokens": tokens, "output_tokens": 0}


def test_cohere_v2_gets_indices_and_scores(server: Running) -> None:
    answer = server.post("/v2/rerank", {"model": "fake", "query": QUERY, "documents": TEXTS, "top_n": 1}).json()
    assert answer["results"] == [{"index": 2, "relevance_score": pytest.approx(SCORES[2])}]
    assert answer["meta"]["api_version"] == {"version": "2", "is_experimental": False}
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    assert isinstance(answer["id"], str)


def test_cohere_v1_objects_are_scored_by_their_fields_and_given_back_whole(server: Running) -> None:
    documents = [{"text": "1", "title": "6"}, {"text": "5", "title": "2", "id": 7}]
    body = {"query": "q", "documents": documents, "return_documents": True}
    plain = server.post("/v1/rerank", body).json()["results"]
    assert [each["index"] for each in plain] == [1, 0]
    assert plain[0]["document"] == {"text": "5", "title": "2", "id": 7}
    by_title = server.post("/v1/rerank", {**body, "rank_fields": ["title"]}).json()["results"]
    assert [each["index"] for each in by_title] == [0, 1]
    without = server.post("/v1/rerank", {**body, "rank_fields": ["body"]}).json()["results"]
    assert [each["index"] for each in without] == [1, 0], "the text counts if a document has none of the fields"
    two = server.post("/v1/rerank", {"query": "q", "documents": [{"a": "2", "b": {"c": 1}}], "rank_fields": ["a", "b"]})
    assert two.json()["usage"]["total_tokens"] == 1 + len(["a:", "2", "b:", '{"c":1}']) + 3


@pytest.mark.parametrize("top", [None, 0, 3, 99, "2", "null", 2.0])
def test_top_n_as_clients_send_it(server: Running, top: Any) -> None:
    results = server.post("/v1/rerank", {"query": QUERY, "documents": TEXTS, "top_n": top}).json()["results"]
    assert len(results) == (2 if top in ("2", 2.0) else 3)


def test_infinity_gets_documents_as_texts_if_it_asks_for_them(server: Running) -> None:
    body = {"query": "q", "documents": ["1 a", {"text": "2 b"}]}
    silent = server.post("/infinity/rerank", body).json()
    assert [each.keys() for each in silent["results"]] == [{"index", "relevance_score"}] * 2
    asked = server.post("/infinity/rerank", {**body, "return_documents": True, "top_n": 1}).json()
    assert [(each["index"], each["document"]) for each in asked["results"]] == [(1, "2 b")]
    assert asked["usage"]["total_tokens"] == silent["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("flag", ["true", "True", True, "false", False, None])
def test_return_documents_as_clients_send_it(server: Running, flag: Any) -> None:
    body = {"query": QUERY, "documents": TEXTS, "return_documents": flag, "return_len": "true", "unknown": [1]}
    results = server.post("/v1/rerank", body).json()["results"]
    assert all(("document" in each) == (flag not in ("false", False)) for each in results)


@pytest.mark.parametrize("more", [{"raw_scores": True}, {"use_activation": False}])
def test_logits_are_given_on_request(server: Running, more: dict[str, bool]) -> None:
    results = server.post("/v1/rerank", {"query": QUERY, "documents": TEXTS, **more}).json()["results"]
    assert [each["relevance_score"] for each in results] == [3.0, 2.0, -1.0]


def test_a_single_document_may_be_a_string_and_a_query_an_object(server: Running) -> None:
    answer = server.post("/v1/rerank", {"query": {"text": QUERY}, "documents": "3 minutes"}).json()
    assert [each["index"] for each in answer["results"]] == [0]


@pytest.mark.parametrize("path", ["/reranking", "/v1/reranking"])
def test_llama_cpp_gets_logits(server: Running, path: str) -> None:
    answer = server.post(path, {"query": QUERY, "documents": TEXTS}).json()
    assert answer["results"] == [{"index": n, "relevance_score": LOGITS[n]} for n in ORDER]
    assert server.post(path, {"query": QUERY, "texts": TEXTS}).json()[0]["index"] == 2


@pytest.mark.parametrize("path", ["/v3/rerank", "/v3/v1/rerank", "/v3/v2/rerank"])
def test_openvino_model_server_clients_get_results_alone_and_the_best_chunk_counts(server: Running, path: str) -> None:
    documents = ["0 " * 30 + "9 " * 30, "1"]  # the first word of a later chunk is a 9
    answer = server.post(path, {"query": "q", "documents": documents}).json()
    assert keys(answer) == {"results"}
    assert answer["results"] == [
        {"index": 0, "relevance_score": pytest.approx(sigmoid(9))},
        {"index": 1, "relevance_score": pytest.approx(sigmoid(1))},
    ]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"query": "q", "documents": []}, 400, None),
        ({"query": "q", "documents": ["1"] * 51}, 400, None),
        ({"query": "q", "documents": ["1"], "top_n": -1}, 400, "top_n"),
        ({"query": "q", "documents": ["1"], "top_n": "many"}, 400, "top_n"),
        ({"query": "q", "documents": [{"title": "1"}]}, 400, "documents[0]"),
        ({"query": "q", "documents": [["1"]]}, 400, "documents[0]"),
        ({"documents": ["1"]}, 400, None),
        ({"query": "q", "documents": ["1"], "model": "gpt-9"}, 404, "model"),
        ({"query": "q", "documents": ["1"], "instruction": "be brief"}, 400, "instruction"),
        ({"query": "q", "documents": ["1"], "long_doc": "median"}, 400, "long_doc"),
        ({"query": "q", "documents": ["1"], "max_tokens_per_doc": -5}, 400, "max_tokens_per_doc"),
    ],
)
def test_errors_can_be_read_by_every_client_of_the_family(
    server: Running, body: dict[str, Any], status: int, param: str | None
) -> None:
    for path in ("/v1/rerank", "/v2/rerank", "/v3/rerank", "/rerank"):
        answer = server.post(path, body)
        assert answer.status_code == status
        content = answer.json()
        assert content["error"]["code"] == status
        assert content["error"]["param"] == param
        assert content["message"] == content["detail"] == content["error"]["message"]
        assert isinstance(content["id"], str)
        assert content["error"]["type"] == ("NotFoundError" if status == 404 else "BadRequestError")


def test_models_are_chosen_by_name(server: Running) -> None:
    for name in ("fake-2", "FAKE-2", "org/fake-2", " fake-2 "):
        assert server.post("/v1/rerank", {"model": name, "query": "q", "documents": ["1"]}).json()["model"] == "fake-2"
    for unnamed in (None, "", "default", "default/not-specified"):
        body = {"model": unnamed, "query": "q", "documents": ["1"]}
        assert server.post("/v1/rerank", body).json()["model"] == "fake"
    assert server.post("/rerank?model=fake-2", {"query": "q", "texts": ["1"]}).status_code == 200
    listed = server.client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [each["id"] for each in listed["data"]] == ["fake", "fake-2"]
    assert all(keys(each) >= {"id", "object", "created", "owned_by"} for each in listed["data"])
    assert server.metric("zoo_requests_total", model="fake-2", dialect="tei", status="200") == 1


# -- vLLM /score, NIM, Weaviate, Elasticsearch -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sides", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_scores_of_pairs_come_in_the_order_of_the_pairs(server: Running, path: str, sides: tuple[str, str]) -> None:
    left, right = sides
    for queries in (QUERY, [QUERY], [QUERY] * 3):
        answer = server.post(path, {left: queries, right: TEXTS}).json()
        assert answer["object"] == "list"
        assert answer["data"] == [
            {"index": n, "object": "score", "score": pytest.approx(score)} for n, score in enumerate(SCORES)
        ]
        assert answer["usage"]["total_tokens"] > 0
    assert server.post(path, {left: "q", right: "2", "use_activation": False}).json()["data"][0]["score"] == 2.0


def test_scores_of_lists_that_do_not_fit_are_refused(server: Running) -> None:
    for body in ({"text_1": ["a", "b"], "text_2": ["1"]}, {"text_1": "a"}, {"text_1": [], "text_2": ["1"]}):
        assert server.post("/score", body).status_code == 400


def test_nim_gets_rankings_with_logits(server: Running) -> None:
    body = {
        "model": "fake",
        "query": {"text": QUERY},
        "passages": [{"text": text} for text in TEXTS],
        "truncate": "END",
    }
    assert server.post("/v1/ranking", body).json()["rankings"] == [{"index": n, "logit": LOGITS[n]} for n in ORDER]
    refused = server.post("/v1/ranking", {**body, "passages": [{"text": LONG}], "truncate": "NONE"})
    assert refused.status_code == 400
    assert server.post("/v1/ranking", {**body, "passages": []}).status_code == 422


def test_weaviate_gets_documents_and_scores_in_its_own_order_and_errors_as_a_string(server: Running) -> None:
    answer = server.client.post("/rerank", content=b'{"query":"q","documents":["1","3"],"property":""}').json()
    assert answer == {
        "query": "q",
        "scores": [
            {"document": "1", "score": pytest.approx(sigmoid(1))},
            {"document": "3", "score": pytest.approx(sigmoid(3))},
        ],
    }
    refused = server.post("/rerank", {"query": "q", "documents": [], "property": ""})
    assert refused.status_code != 200
    assert isinstance(refused.json()["error"], str)


def test_elasticsearch_gets_an_array_without_unknown_keys(server: Running) -> None:
    body = {"query": "q", "documents": ["1", "3"], "top_n": 1, "return_documents": True}
    assert server.post("/elastic/rerank", body).json() == [
        {"index": 1, "relevance_score": pytest.approx(sigmoid(3)), "text": "3"}
    ]
    bare = server.post("/elastic/rerank", {"query": "q", "documents": ["1", "3"]}).json()
    assert all(keys(each) == {"index", "relevance_score"} for each in bare)


# -- long documents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "expected"), [("truncate", 0.0), ("max", 8.0), ("mean", 2.0)])
def test_long_documents_are_cut_or_scored_in_chunks_by_request(server: Running, how: str, expected: float) -> None:
    document = " ".join(["0"] * 8 + ["8"] * 8 + ["0"] * 16)  # chunks of eight words, the pieces that are cut at
    body = {"query": "q q q", "documents": [document], "raw_scores": True, "long_doc": how}
    answer = server.post("/v1/rerank", body)
    assert answer.json()["results"][0]["relevance_score"] == expected
    assert answer.headers["x-zoo-truncated"] == ("1" if how == "truncate" else "0")
    for wrong in ("long_doc=cut", "long_doc=max&long_doc=max"):
        refused = server.post(f"/rerank?{wrong}", {"query": "q", "texts": ["1"], "long_doc": how})
        assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
    by_address = server.post(f"/rerank?long_doc={how}", {"query": "q q q", "texts": [document], "raw_scores": True})
    assert by_address.json()[0]["score"] == expected


def test_limits_of_a_request_below_the_models_own_are_kept(server: Running) -> None:
    document = "3 " + "x " * 9

    def tokens(**limits: int) -> int:
        body = {"query": "q q q", "documents": [document], **limits}
        answer = server.post("/v1/rerank", body)
        assert answer.status_code == 200
        total: int = answer.json()["usage"]["total_tokens"]
        return total

    assert tokens() == 16
    assert tokens(max_tokens_per_doc=4) == 3 + 4 + 3
    assert tokens(max_tokens_per_query=1, max_tokens_per_doc=4) == 1 + 4 + 3
    assert tokens(truncate_prompt_tokens=14) <= 14
    assert tokens(truncate_prompt_tokens=12) == 12, "within a piece of text, too"
    assert tokens(truncate_prompt_tokens=-1, max_tokens_per_doc=0) == 16
    assert tokens(max_tokens_per_doc=4096) == 16


# -- everything else ---------------------------------------------------------------------------------------------------


def test_scores_are_finite_numbers_and_ranks_do_not_come_from_saturated_scores(server: Running) -> None:
    documents = ["90", "900", "-900", "60"]  # all but one have a sigmoid of exactly 1 or 0
    results = server.post("/v1/rerank", {"query": "q", "documents": documents}).json()["results"]
    assert [each["index"] for each in results] == [1, 0, 3, 2]
    assert all(0 <= each["relevance_score"] <= 1 for each in results)


def test_equal_scores_keep_the_order_of_the_request(server: Running) -> None:
    assert [r["index"] for r in server.post("/rerank", {"query": "q", "texts": ["1"] * 5}).json()] == [0, 1, 2, 3, 4]


def test_paths_and_methods_that_do_not_exist_are_said_to(server: Running) -> None:
    assert server.client.get("/nothing").status_code == 404
    assert server.client.get("/rerank").status_code == 405
    assert "POST" in server.client.get("/v1/rerank").headers["allow"]
    assert server.client.post("/info").status_code == 405
    for answer in (server.client.get("/nothing"), server.client.get("/rerank")):
        assert isinstance(answer.json()["error"], str)


def test_texts_of_every_script_come_back_as_they_were(server: Running) -> None:
    texts = ["1 熊猫吃竹子", "2 \u0000\t", "3 😀 é", '4 "quoted" \\', "5 \u2028"]
    answer = server.post("/rerank", {"query": "问题", "texts": texts, "return_text": True})
    assert answer.headers["content-type"] == "application/json"
    assert [each["text"] for each in answer.json()] == texts[::-1]


def test_a_client_may_ask_for_an_id_and_gets_one_if_it_does_not(server: Running) -> None:
    body = {"query": "q", "texts": ["1"]}
    own = server.post("/rerank", body, headers={"x-request-id": "job-7.a"})
    assert own.headers["x-request-id"] == "job-7.a"
    for bad in ({}, {"x-request-id": "a b\u00e9"}, {"x-request-id": "x" * 500}):
        made = server.post("/rerank", body, headers=httpx.Headers(bad, encoding="utf-8")).headers["x-request-id"]
        assert len(made) == 32
