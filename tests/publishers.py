"""The recipes by which publishers of decoder-only rerankers score pairs, in transformers with padding on the left.

Written from their own descriptions, with texts of their own: what cards and templates say is compared with these, token by token.
``total`` is the length of a whole prompt in tokens, as zoo counts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Pairs = Sequence[tuple[str, str]]

QWEN_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. Note that "
    'the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
QWEN_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
QWEN_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

MXBAI_PREFIX = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document pair, carefully "
    "analyze the semantic relationship between them, then provide your binary relevance judgment (0 for not relevant, 1 for relevant)."
    "\nRelevance:"
)
MXBAI_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"

GEMMA_PROMPT = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a prediction of either "
    "'Yes' or 'No'."
)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def qwen3(tokenizer: Any, pairs: Pairs, total: int, *, instruction: str = QWEN_INSTRUCTION) -> list[list[int]]:
    """Qwen3-Reranker's README: three parts, of which the middle one is cut."""
    prefix, suffix = ids_of(tokenizer, QWEN_PREFIX), ids_of(tokenizer, QWEN_SUFFIX)
    texts = [f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}" for query, document in pairs]
    room = total - len(prefix) - len(suffix)
    middle = tokenizer(texts, padding=False, truncation="longest_first", return_attention_mask=False, max_length=room)
    return [prefix + list(ids) + suffix for ids in middle["input_ids"]]


def mxbai(tokenizer: Any, pairs: Pairs, total: int, *, query_limit: int, instruction: str = "") -> list[list[int]]:
    """mxbai-rerank's class: the query and the document have a limit each, and the rest is put around them."""
    prefix, task = ids_of(tokenizer, MXBAI_PREFIX), ids_of(tokenizer, MXBAI_TASK)
    suffix, line = ids_of(tokenizer, MXBAI_SUFFIX), ids_of(tokenizer, "\n")
    room = total - len(prefix) - len(task) - len(suffix) - len(line)  # its max_length, of query, line and document
    found = []
    for query, document in pairs:
        asked = f"query: {query}" if not instruction else f"instruction: {instruction}\nquery: {query}"
        first = ids_of(tokenizer, asked)[:query_limit]
        second = line + ids_of(tokenizer, f"document: {document}")
        found.append(prefix + first + second[: room - len(first)] + line + task + suffix)
    return found


def gemma(tokenizer: Any, pairs: Pairs, total: int, *, query_limit: int) -> list[list[int]]:
    """FlagEmbedding's BaseLLMReranker: a beginning token, then the pieces."""
    line, prompt = ids_of(tokenizer, "\n"), ids_of(tokenizer, GEMMA_PROMPT)
    room = total - len(line) - len(prompt)
    found = []
    for query, document in pairs:
        first = [tokenizer.bos_token_id, *ids_of(tokenizer, f"A: {query}")[:query_limit]]
        second = line + ids_of(tokenizer, f"B: {document}")
        found.append(first + second[: room - len(first)] + line + prompt)
    return found


def last_logits(model: Any, rows: Sequence[Sequence[int]], pad: int) -> Any:
    """The logits at each row's last token, (rows, vocabulary) or (rows, labels): one batch, padded on the left."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask).logits.float()
    return logits[:, -1] if logits.dim() == 3 else logits
