"""An observer: says on stderr how many pairs were tokenised."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence

from zoo.api import Encodings, Pair, hookimpl

logger = logging.getLogger("zoo.watch")


@hookimpl(wrapper=True)
def preprocess(pairs: Sequence[Pair]) -> Generator[None, Encodings, Encodings]:
    encodings = yield
    logger.info("watch: %d pairs, %d tokens", len(pairs), sum(row.length for row in encodings.rows))
    return encodings
