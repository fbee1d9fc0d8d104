"""Packing is the same as padding with the padding left out; how many tokens a batch gets follows the card and the model. Without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import ZooError
from zoo_torch.budget import LEAST_TOKENS, MOST_TOKENS, for_card, for_cpu
from zoo_torch.model import Cost
from zoo_torch.packing import check_below, pack, padded_slots, roberta_positions

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=7)


def padded(lengths: list[int], seed: int = 0, highest: int = 9) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    mask = (np.arange(max(lengths) + seed % 3) < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": random.integers(0, highest, mask.shape), "attention_mask": mask}


@given(LENGTHS, st.integers(0, 99))
def test_packed_rows_are_the_real_tokens_of_each_row(lengths: list[int], seed: int) -> None:
    inputs = padded(lengths, seed)
    batch = pack(inputs)
    assert (batch.rows, batch.tokens, batch.longest) == (len(lengths), sum(lengths), max(lengths))
    borders = batch.arrays["borders"]
    for row, length in enumerate(lengths):
        own = slice(borders[row], borders[row + 1])
        np.testing.assert_array_equal(batch.arrays["input_ids"][own], inputs["input_ids"][row, :length])
        np.testing.assert_array_equal(batch.arrays["places"][own], np.arange(length))
    assert all(array.dtype == np.int32 for array in batch.arrays.values())


@given(LENGTHS, st.integers(0, 99), st.integers(0, 3))
def test_positions_are_counted_as_transformers_counts_them(lengths: list[int], seed: int, padding: int) -> None:
    inputs = padded(lengths, seed, highest=4)  # so that the padding token is among a row's own
    ids = np.where(inputs["attention_mask"], inputs["input_ids"], padding)
    counted = ids != padding
    expected = np.cumsum(counted, axis=1) * counted + padding  # create_position_ids_from_input_ids
    np.testing.assert_array_equal(
        roberta_positions(pack(inputs), padding), expected[inputs["attention_mask"].astype(bool)]
    )


@given(LENGTHS, st.integers(0, 99))
def test_slots_put_tokens_back_where_they_were(lengths: list[int], seed: int) -> None:
    inputs = padded(lengths, seed)
    batch = pack(inputs)
    rectangle = np.zeros(batch.rows * batch.longest, dtype=np.int64)
    rectangle[padded_slots(batch)] = batch.arrays["input_ids"]
    expected = (inputs["input_ids"] * inputs["attention_mask"])[:, : batch.longest]
    np.testing.assert_array_equal(rectangle.reshape(batch.rows, -1), expected)


def test_a_row_without_tokens_is_an_error() -> None:
    inputs = padded([3, 2])
    inputs["attention_mask"][1] = 0
    with pytest.raises(ZooError, match="row 1 of a batch has no tokens"):
        pack(inputs)


@pytest.mark.parametrize(("values", "worst"), [([0, 7, 2], 7), ([0, -1, 6], -1)])
def test_a_value_that_a_table_does_not_have_is_named(values: list[int], worst: int) -> None:
    with pytest.raises(ZooError, match=f"the token id {worst}; the model knows 0 to 6"):
        check_below("the token id", np.array(values), 7)
    check_below("the token id", np.array([0, 6]), 7)
    check_below("the token id", np.array([], dtype=np.int32), 7)


LARGE = Cost(operations=2.0 * 24 * (4 * 1024**2 + 2 * 1024 * 4096), bytes=2 * (8 * 1024 + 2 * 4096), longest=8192)
"""bge-reranker-v2-m3 in float16."""
SMALL = Cost(operations=2.0 * 2 * (4 * 128**2 + 2 * 128 * 512), bytes=2 * (8 * 128 + 2 * 512), longest=512)
GIB = 2**30


def test_a_large_card_gets_the_batch_that_was_measured_to_be_fast() -> None:
    assert for_card(LARGE, 70 * GIB, multiprocessors=132, asked=None).wanted == 32_768


def test_little_memory_makes_batches_small() -> None:
    budget = for_card(LARGE, GIB // 4, multiprocessors=132, asked=None)
    assert budget.wanted == budget.limit
    assert budget.limit * LARGE.bytes < GIB // 4


def test_a_small_card_gets_less_work_and_a_small_model_more_tokens() -> None:
    assert LEAST_TOKENS <= for_card(LARGE, 14 * GIB, multiprocessors=40, asked=None).wanted < 32_768
    assert for_card(SMALL, 70 * GIB, multiprocessors=132, asked=None).wanted == MOST_TOKENS


def test_a_number_of_tokens_that_the_user_gives_is_kept_as_far_as_the_memory_goes() -> None:
    assert for_card(LARGE, 70 * GIB, multiprocessors=132, asked=5000).wanted == 5000
    assert for_card(LARGE, GIB // 4, multiprocessors=132, asked=10**9).wanted < 10_000
    assert for_cpu(5000).wanted == 5000
