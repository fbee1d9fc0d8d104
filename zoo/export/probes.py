"""The pairs a model file is proven on: batches of several lengths, padded inside, in several scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.checkpoints.model_config import ModelConfig, read_config

Arrays = dict[str, NDArray[Any]]

QUERIES = ("what is panda?", "大熊猫吃什么?", "Wie wird aus Trauben Wein?", "كم عدد سكان القاهرة؟")
PASSAGES = (
    "The giant panda is a bear species endemic to China; bamboo makes up nearly all of what it eats. ",
    "大熊猫主要以竹子为食, 每天要吃掉十几公斤。它们生活在四川、陕西和甘肃的山区。",
    "Hefe verwandelt den Zucker des Mostes in Alkohol, danach reift der Wein im Fass. ",
    "hi ",
)
FEATURES = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs that text is given to."""
SHORT = ((9,), (30, 16))
"""Tokens of each row, a tuple a batch: one without padding, one padded inside."""
LONG = 50
"""Tokens of one more row, alone in its batch."""
PAST = 22
"""Tokens by which a row is longer than the distance past which layers see tokens otherwise, so that it has several such pairs."""
LONGEST = 2048
"""No row is longer, whatever a config.json says: numpy's attention takes memory with the square of it."""


def lengths_of(config: ModelConfig) -> tuple[tuple[int, ...], ...]:
    """Tokens of each row, a tuple a batch, as far as the model's positions allow.

    Few on purpose: of a large model, a proof costs two or three seconds of CPU for every hundred tokens. A model in which distance counts
    also gets a row that goes past it, padded beside a shorter one.
    """
    far = config.furthest
    last = (LONG,) if far is None else (min(max(LONG, far + PAST), LONGEST), 40)
    return tuple(tuple(min(length, config.position_limit) for length in rows) for rows in (*SHORT, last))


def of_checkpoint(folder: Path, names: Sequence[str]) -> list[Arrays]:
    """Real text through the checkpoint's own tokenizer, for the inputs ``names``, which are of ``FEATURES``."""
    from tokenizers import Tokenizer

    config = read_config(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    batches, number = [], 0
    for lengths in lengths_of(config):
        rows = []
        for length in lengths:
            rows.append(_row(tokenizer, number, length))
            number += 1
        batches.append(_padded(rows, config.pad_token_id or 0, names))
    return batches


def _row(tokenizer: Any, number: int, length: int) -> tuple[list[int], list[int]]:
    tokenizer.enable_truncation(length, strategy="only_second")
    query = QUERIES[number % len(QUERIES)]
    text = "".join(PASSAGES[(number + n) % len(PASSAGES)] for n in range(max(1, length // 8)))
    # A query that leaves no room for the passage cannot be truncated 'only_second'.
    encoding = tokenizer.encode(query[: max(1, length // 4)], text)
    return encoding.ids, encoding.type_ids


def _padded(rows: Sequence[tuple[list[int], list[int]]], pad: int, names: Sequence[str]) -> Arrays:
    width = max(len(ids) for ids, _ in rows)
    arrays = {
        "input_ids": np.full((len(rows), width), pad, dtype=np.int64),
        "attention_mask": np.zeros((len(rows), width), dtype=np.int64),
        "token_type_ids": np.zeros((len(rows), width), dtype=np.int64),
    }
    for row, (ids, types) in enumerate(rows):
        arrays["input_ids"][row, : len(ids)] = ids
        arrays["attention_mask"][row, : len(ids)] = 1
        arrays["token_type_ids"][row, : len(ids)] = types
    return {name: arrays[name] for name in names}


def random_inputs(session: Any, vocabulary: int, seed: int = 0) -> list[Arrays]:
    """Inputs for any graph by type and name: ids below ``vocabulary``, masks of ones, zeros for types, normal numbers for floats.

    Symbolic axes take several sizes; the first axis is the batch.
    """
    random = np.random.default_rng(seed)
    batches = []
    for rows, length in ((1, 7), (2, 32), (3, 130)):
        batch: Arrays = {}
        for node in session.get_inputs():
            shape = [
                size if isinstance(size, int) else rows if axis == 0 else length for axis, size in enumerate(node.shape)
            ]
            kind = node.type.removeprefix("tensor(").removesuffix(")")
            dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
            if dtype.kind == "f":
                batch[node.name] = random.standard_normal(shape).astype(dtype)
            elif "mask" in node.name:
                batch[node.name] = np.ones(shape, dtype)
            elif "type" in node.name or dtype.kind == "b":
                batch[node.name] = np.zeros(shape, dtype)
            else:
                batch[node.name] = random.integers(0, vocabulary, shape).astype(dtype)
        batches.append(batch)
    return batches


def save(
    path: Path, batches: Sequence[Mapping[str, NDArray[Any]]], outputs: Sequence[Mapping[str, NDArray[Any]]]
) -> None:
    """Inputs and outputs of each batch, in one file."""
    arrays: dict[str, Any] = {
        f"{n}/in/{name}": array for n, batch in enumerate(batches) for name, array in batch.items()
    }
    arrays |= {f"{n}/out/{name}": array for n, batch in enumerate(outputs) for name, array in batch.items()}
    np.savez(path, **arrays)


def load(path: Path) -> tuple[list[Arrays], list[Arrays]]:
    """What ``save`` wrote: inputs and outputs, batch by batch."""
    inputs: list[Arrays] = []
    outputs: list[Arrays] = []
    with np.load(path, allow_pickle=False) as stored:
        count = 1 + max(int(key.partition("/")[0]) for key in stored)
        inputs, outputs = [{} for _ in range(count)], [{} for _ in range(count)]
        for key in stored:
            number, side, name = key.split("/", 2)
            (inputs if side == "in" else outputs)[int(number)][name] = stored[key]
    return inputs, outputs
