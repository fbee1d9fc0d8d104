"""One open reranker for all adapters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapted import MODEL
from zoo import Reranker


@pytest.fixture(scope="session")
def reranker() -> Iterator[Reranker]:
    with Reranker.open(MODEL, device="cpu", batch_size=None, offline=True) as made:
        yield made
