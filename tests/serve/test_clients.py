"""The clients that people have, against a server on loopback that is locked by a key; and what others are known to send."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import ROOT
from serving import SOON, Running, serving
from zoo import Reranker
from zoo.statistics import sigmoid

pytestmark = [
    pytest.mark.clients,
    pytest.mark.filterwarnings("ignore"),  # what clients warn of is theirs
]

KEY = "a-key-of-the-tests"
NAME = "rerank-v3.5"
"""What a user calls the model; the server knows it by an alias."""
QUERY = "how long to boil an egg"
TEXTS = [
    "Paris lies on the Seine.",
    "Seven minutes gives a firm yolk.",
    "Boil the egg for seven minutes.",
    "熊猫吃竹子",
]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    def opened() -> Reranker:
        return Reranker.open("zoo-reranker-tiny", device="cpu", offline=True)

    with serving(opened, aliases=[NAME], keys=(KEY,)) as running:
        yield running


@pytest.fixture(scope="module")
def logits(reranker: Reranker) -> list[float]:
    """The reference: the same model, asked without a server."""
    return reranker.score([(QUERY, text) for text in TEXTS]).tolist()


@pytest.fixture(scope="module")
def expected(logits: list[float]) -> list[tuple[int, float]]:
    """Places and scores between 0 and 1, the best first."""
    return sorted(((n, sigmoid(logit)) for n, logit in enumerate(logits)), key=lambda each: -each[1])


@pytest.fixture(autouse=True)
def _nobody_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that report home, or fetch tables of prices, are told not to."""
    for name, value in (
        ("HAYSTACK_TELEMETRY_ENABLED", "False"),
        ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
        ("LITELLM_MODE", "PRODUCTION"),
        ("NVIDIA_API_KEY", KEY),
        ("VLLM_API_KEY", KEY),
    ):
        monkeypatch.setenv(name, value)


def near(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [place for place, _ in found] == [place for place, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)


# -- Cohere ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_cohere(server: Running, expected: list[tuple[int, float]], version: str) -> None:
    cohere = pytest.importorskip("cohere")
    kind = {"v1": cohere.Client, "v2": cohere.ClientV2}[version]
    client = kind(api_key=KEY, base_url=server.url, timeout=SOON)
    answer = client.rerank(model=NAME, query=QUERY, documents=TEXTS, top_n=3)
    near([(each.index, each.relevance_score) for each in answer.results], expected[:3])
    assert answer.meta.api_version.version == version.removeprefix("v")
    assert answer.meta.billed_units.search_units == 1
    assert answer.id


def test_cohere_v1_objects_and_their_fields(server: Running, expected: list[tuple[int, float]]) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.Client(api_key=KEY, base_url=server.url, timeout=SOON)
    documents = [{"title": "of no use", "body": text} for text in TEXTS]
    answer = client.rerank(query=QUERY, documents=documents, rank_fields=["body"], return_documents=True)
    near([(each.index, each.relevance_score) for each in answer.results], expected)
    assert [each.document.text for each in answer.results] == [TEXTS[n] for n, _ in expected]


def test_cohere_through_the_path_of_openvino_model_server(server: Running, expected: list[tuple[int, float]]) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key=KEY, base_url=f"{server.url}/v3", timeout=SOON)
    answer = client.rerank(model=NAME, query=QUERY, documents=TEXTS)
    near([(each.index, each.relevance_score) for each in answer.results], expected)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_cohere_reads_errors(server: Running, version: str) -> None:
    cohere = pytest.importorskip("cohere")
    kind = {"v1": cohere.Client, "v2": cohere.ClientV2}[version]
    with pytest.raises(cohere.UnauthorizedError) as wrong_key:
        kind(api_key="wrong", base_url=server.url, timeout=SOON).rerank(model=NAME, query=QUERY, documents=TEXTS)
    assert "API key" in wrong_key.value.body["message"]
    with pytest.raises(cohere.NotFoundError) as unknown:
        kind(api_key=KEY, base_url=server.url, timeout=SOON).rerank(model="absent", query=QUERY, documents=TEXTS)
    assert "'absent' is not served here" in unknown.value.body["message"]


# -- LangChain ---------------------------------------------------------------------------------------------------------


def test_langchain_cohere(server: Running, expected: list[tuple[int, float]]) -> None:
    cohere = pytest.importorskip("langchain_cohere")
    documents = pytest.importorskip("langchain_core.documents")
    compressor = cohere.CohereRerank(cohere_api_key=KEY, base_url=server.url, model=NAME, top_n=2)
    kept = compressor.compress_documents([documents.Document(text) for text in TEXTS], QUERY)
    assert [each.page_content for each in kept] == [TEXTS[n] for n, _ in expected[:2]]
    scores = [each.metadata["relevance_score"] for each in kept]
    assert scores == pytest.approx([score for _, score in expected[:2]], abs=1e-5)


def test_langchain_infinity(server: Running, expected: list[tuple[int, float]]) -> None:
    infinity = pytest.importorskip("infinity_client")
    compressors = pytest.importorskip("langchain_community.document_compressors.infinity_rerank")
    documents = pytest.importorskip("langchain_core.documents")
    client = infinity.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"})
    compressor = compressors.InfinityRerank(client=client, model=NAME, top_n=2)
    kept = compressor.compress_documents([documents.Document(text) for text in TEXTS], QUERY)
    assert [each.page_content for each in kept] == [TEXTS[n] for n, _ in expected[:2]]
    scores = [each.metadata["relevance_score"] for each in kept]
    assert scores == pytest.approx([score for _, score in expected[:2]], abs=1e-5)


# -- LlamaIndex --------------------------------------------------------------------------------------------------------


def test_llama_index_tei(server: Running, expected: list[tuple[int, float]]) -> None:
    tei = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    schema = pytest.importorskip("llama_index.core.schema")
    postprocessor = tei.TextEmbeddingInference(base_url=server.url, top_n=3, auth_token=KEY)
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text), score=0.5) for text in TEXTS]
    kept = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    places = [TEXTS.index(each.node.get_content()) for each in kept]
    near(list(zip(places, [each.score for each in kept], strict=True)), expected[:3])


# -- Haystack ----------------------------------------------------------------------------------------------------------


def haystack_documents() -> list[Any]:
    haystack = pytest.importorskip("haystack")
    return [haystack.Document(content=text) for text in TEXTS]


def found_by_haystack(answer: dict[str, Any]) -> list[tuple[int, float]]:
    return [(TEXTS.index(each.content), each.score) for each in answer["documents"]]


@pytest.mark.parametrize("truncation", [None, "Right"])
def test_haystack_tei(server: Running, expected: list[tuple[int, float]], truncation: str | None) -> None:
    rankers = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
    secrets = pytest.importorskip("haystack.utils")
    ranker = rankers.HuggingFaceTEIRanker(url=server.url, top_k=3, token=secrets.Secret.from_token(KEY))
    direction = rankers.TruncationDirection(truncation) if truncation else None
    answer = ranker.run(query=QUERY, documents=haystack_documents(), truncation_direction=direction)
    near(found_by_haystack(answer), expected[:3])


def test_haystack_tei_raw_scores(server: Running, logits: list[float]) -> None:
    rankers = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
    secrets = pytest.importorskip("haystack.utils")
    ranker = rankers.HuggingFaceTEIRanker(url=server.url, raw_scores=True, token=secrets.Secret.from_token(KEY))
    answer = ranker.run(query=QUERY, documents=haystack_documents())
    near(found_by_haystack(answer), sorted(enumerate(logits), key=lambda each: -each[1]))


def test_haystack_vllm(server: Running, expected: list[tuple[int, float]]) -> None:
    rankers = pytest.importorskip("haystack_integrations.components.rankers.vllm")
    ranker = rankers.VLLMRanker(model=NAME, api_base_url=f"{server.url}/v1", top_k=3)
    near(found_by_haystack(ranker.run(query=QUERY, documents=haystack_documents())), expected[:3])
    wrong = rankers.VLLMRanker(model="absent", api_base_url=f"{server.url}/v1")
    with pytest.raises(Exception, match="'absent' is not served here"):
        wrong.run(query=QUERY, documents=haystack_documents())


def test_haystack_nvidia(server: Running, logits: list[float]) -> None:
    rankers = pytest.importorskip("haystack_integrations.components.rankers.nvidia")
    ranker = rankers.NvidiaRanker(model=NAME, api_url=f"{server.url}/v1", truncate="END", top_k=3)
    answer = ranker.run(query=QUERY, documents=haystack_documents())
    near(found_by_haystack(answer), sorted(enumerate(logits), key=lambda each: -each[1])[:3])


# -- LiteLLM -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("hosted_vllm", ""),
        ("hosted_vllm", "/v1/rerank"),
        ("cohere", "/v1/rerank"),
        ("cohere", "/v2/rerank"),
        ("infinity", "/infinity"),
        ("jina_ai", "/v1/rerank"),
        ("huggingface", ""),
    ],
)
def test_litellm(server: Running, expected: list[tuple[int, float]], provider: str, path: str) -> None:
    litellm = pytest.importorskip("litellm")
    answer = litellm.rerank(
        model=f"{provider}/{NAME}",
        query=QUERY,
        documents=TEXTS,
        top_n=3,
        api_base=server.url + path,
        api_key=KEY,
        timeout=SOON,
    )
    near([(each["index"], each["relevance_score"]) for each in answer.results], expected[:3])


def test_litellm_passes_on_limits_of_vllm(server: Running) -> None:
    litellm = pytest.importorskip("litellm")
    answer = litellm.rerank(
        model=f"hosted_vllm/{NAME}",
        query=QUERY,
        documents=TEXTS,
        max_tokens_per_doc=4,
        api_base=server.url,
        api_key=KEY,
    )
    assert len(answer.results) == len(TEXTS)
    tokens = server.post(
        "/v1/rerank", {"query": QUERY, "documents": TEXTS}, headers={"Authorization": f"Bearer {KEY}"}
    ).json()["usage"]["total_tokens"]
    assert answer.meta["tokens"]["input_tokens"] < tokens


# -- The documentation -------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def on(server: Running, example: str) -> str:
    return example.replace("http://127.0.0.1:8000", server.url).replace("KEY", KEY).replace("zoo-reranker-tiny", NAME)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.split()[1])
def test_the_examples_of_the_page_run(server: Running, capsys: pytest.CaptureFixture[str], example: str) -> None:
    for module in re.findall(r"^(?:import|from) (\S+)", example, re.MULTILINE):
        pytest.importorskip(module)
    exec(on(server, example), {})
    assert capsys.readouterr().out.strip()


def test_the_curl_line_of_the_page_runs(server: Running) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    line = next(each for each in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if each.startswith("curl"))
    done = subprocess.run(["sh", "-c", on(server, line)], capture_output=True, text=True, check=True)
    assert sorted(each["index"] for each in json.loads(done.stdout)) == [0, 1]


# -- httpx, and what others send ---------------------------------------------------------------------------------------


def test_httpx_with_many_connections(server: Running, expected: list[tuple[int, float]]) -> None:
    import asyncio

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}) as client:
            body = {"query": QUERY, "documents": TEXTS}
            return await asyncio.gather(*(client.post("/v1/rerank", json=body, timeout=SOON) for _ in range(40)))

    for answer in asyncio.run(ask()):
        near([(each["index"], each["relevance_score"]) for each in answer.json()["results"]], expected)


def results(answer: Any) -> list[tuple[int, float]]:
    return [(each["index"], each["relevance_score"]) for each in answer["results"]]


def dify_compatible(answer: Any) -> list[tuple[int, float]]:
    """``openai_compatible/rerank.py`` of langgenius/dify-plugin-sdks: a document is an object or a string."""
    for each in answer["results"]:
        document = each["document"]
        text = document["text"] if isinstance(document, dict) else document
        assert text == TEXTS[each["index"]]
    return results(answer)


def ragflow(answer: Any) -> list[tuple[int, float]]:
    """``rag/llm/rerank_model.py`` of infiniflow/ragflow, class Jina."""
    assert answer["usage"]["total_tokens"] > 0
    return results(answer)


def ragflow_xinference(answer: Any) -> list[tuple[int, float]]:
    """The same file, class Xinference."""
    assert answer["meta"]["tokens"]["input_tokens"] + answer["meta"]["tokens"]["output_tokens"] > 0
    return results(answer)


def open_webui(answer: Any) -> list[tuple[int, float]]:
    """open-webui/open-webui, the external reranker: a result for every document, in any order."""
    ordered = sorted(answer["results"], key=lambda each: each["index"])
    assert [each["index"] for each in ordered] == list(range(len(TEXTS)))
    return results(answer)


def dify_tei(answer: Any) -> list[tuple[int, float]]:
    """langgenius/dify-official-plugins, TEI: ``text`` and ``score``."""
    assert [each["text"] for each in answer] == [TEXTS[each["index"]] for each in answer]
    return [(each["index"], each["score"]) for each in answer]


def elasticsearch(answer: Any) -> list[tuple[int, float]]:
    """elastic/elasticsearch, service hugging_face: an array, in which any other key is an error."""
    assert all(each.keys() <= {"index", "score", "relevance_score", "text"} for each in answer)
    return [(each["index"], each["relevance_score"]) for each in answer]


def weaviate(answer: Any) -> list[tuple[int, float]]:
    """weaviate/weaviate, ``modules/reranker-transformers/clients/ranker.go``: by the text, in any order."""
    assert answer["query"] == QUERY
    found = [(TEXTS.index(each["document"]), each["score"]) for each in answer["scores"]]
    return sorted(found, key=lambda each: -each[1])


ASKED = {"query": QUERY, "documents": TEXTS}
RECORDED = {
    "Dify, OpenAI-compatible": (
        "/v1/rerank",
        {"model": NAME, **ASKED, "top_n": None, "return_documents": True},
        dify_compatible,
    ),
    "Dify, TEI": ("/rerank", {"query": QUERY, "texts": TEXTS, "return_text": True}, dify_tei),
    "RAGFlow, Jina": ("/v1/rerank", {"model": NAME, **ASKED, "top_n": len(TEXTS)}, ragflow),
    "RAGFlow, Xinference": (
        "/v1/rerank",
        {"model": NAME, **ASKED, "return_documents": "true", "return_len": "true"},
        ragflow_xinference,
    ),
    "Open WebUI": ("/v1/rerank", {"model": NAME, **ASKED, "top_n": len(TEXTS)}, open_webui),
    "Continue.dev": (
        "/rerank",
        {"query": QUERY, "texts": TEXTS},
        lambda answer: [(each["index"], each["score"]) for each in answer],
    ),
    "Elasticsearch": ("/elastic/rerank", {**ASKED, "return_documents": True, "top_n": 4}, elasticsearch),
    "Weaviate": ("/rerank", {**ASKED, "property": ""}, weaviate),
}
"""Requests of clients that cannot be installed from the package index, as their sources write them."""


@pytest.mark.parametrize("client", RECORDED)
def test_recorded(server: Running, expected: list[tuple[int, float]], client: str) -> None:
    path, body, read = RECORDED[client]
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    answer = httpx.post(server.url + path, content=json.dumps(body), headers=headers, timeout=SOON)
    assert answer.status_code == 200, answer.text
    near(read(answer.json()), expected)


def test_dify_finds_a_reranker_before_it_sends_anything(server: Running) -> None:
    info = httpx.get(f"{server.url}/info", headers={"Authorization": f"Bearer {KEY}"}, timeout=SOON).json()
    assert "reranker" in info["model_type"]
    assert info["max_input_length"] == 512
