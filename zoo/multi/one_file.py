"""One input file into one result file.

The file is read twice: once to score it, when some 21 bytes a pair are kept, and once to write the result, when every rank is known.
So memory grows little with the number of pairs, and not at all with their texts.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import InputError
from zoo.files import atomic_path
from zoo.multi.inputs import InputFile
from zoo.multi.readers import read_rows
from zoo.multi.rows import Columns
from zoo.multi.writers import OutputForm, open_writer
from zoo.scoring.scorer import ScoredPair, Scorer
from zoo.statistics import sigmoid
from zoo.types import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUERY_KEY = 16
"""Bytes that stand for a query: as many as make two different queries of one key as unlikely as a fault of the memory."""

PACKED = 4 + 1 + QUERY_KEY
"""Bytes of a pair in ``FileScores``: its logit, whether it was cut, and its query's key."""

Shown = Callable[[Iterator[ScoredPair], InputFile], Iterator[ScoredPair]]
"""Passes the scored pairs of a file on, and may show how far they are."""


@dataclass
class FileScores:
    """Scores of a file's pairs in the order of the file, without their texts."""

    logits: array[float] = field(default_factory=lambda: array("f"))
    truncated: bytearray = field(default_factory=bytearray)
    query_keys: bytearray = field(default_factory=bytearray)

    @classmethod
    def of(cls, scored: Iterable[ScoredPair]) -> FileScores:
        scores, asked, key = cls(), ("", ""), b""
        for pair, logit, truncated in scored:
            if (pair.query, pair.instruction) != asked or not key:
                asked = (pair.query, pair.instruction)
                text = "\0".join(asked).encode("utf-8", "surrogatepass")
                key = hashlib.blake2b(text, digest_size=QUERY_KEY).digest()
            scores.logits.append(logit)
            scores.truncated.append(truncated)
            scores.query_keys += key
        return scores

    def __len__(self) -> int:
        return len(self.logits)

    def packed(self) -> bytes:
        """All of it in ``PACKED`` bytes a pair; ``add`` takes it."""
        return self.logits.tobytes() + self.truncated + self.query_keys

    def add(self, packed: bytes) -> None:
        """Put the pairs that somebody else has ``packed`` behind these."""
        count, rest = divmod(len(packed), PACKED)
        assert not rest
        size = self.logits.itemsize * count
        self.logits.frombytes(packed[:size])
        self.truncated += packed[size : size + count]
        self.query_keys += packed[size + count :]

    def ranks(self) -> NDArray[np.int64]:
        """The place of each pair among those of its query, from 1; of equal logits the earlier pair comes first. Shape (n,)."""
        import numpy as np

        if not len(self):
            return np.empty(0, dtype=np.int64)
        logits = np.frombuffer(self.logits, dtype=np.float32)
        keys = np.frombuffer(self.query_keys, dtype=np.uint64).reshape(-1, 2)
        order = np.lexsort((-logits, keys[:, 0], keys[:, 1]))  # stable
        begins = np.ones(len(order), dtype=bool)
        begins[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
        places = np.arange(len(order))
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = places - np.maximum.accumulate(np.where(begins, places, 0)) + 1
        return ranks


def score_file(scorer: Scorer, file: InputFile, columns: Columns, shown: Shown) -> FileScores:
    """The scores of a file's pairs. Raises ZooError."""
    with closing(read_rows(file, columns)) as rows:

        def pairs() -> Iterator[Pair]:
            for row in rows:
                yield from row.pairs

        return FileScores.of(shown(scorer.score_marked(pairs()), file))


def write_file(
    file: InputFile, columns: Columns, scores: FileScores, output: Path, form: OutputForm, top_k: int | None
) -> int:
    """Write the rows of ``file`` with their scores to ``output``, those ranked past ``top_k`` left out; how many rows it has.

    Raises ZooError if the file does not hold what was scored, or if ``output`` cannot be written.
    """
    ranks = scores.ranks().tolist()
    place = written = 0
    with (
        atomic_path(output) as path,
        closing(open_writer(form, path)) as writer,
        closing(read_rows(file, columns)) as rows,
    ):
        for row in rows:
            for pair in row.pairs:
                if place == len(scores):
                    raise _changed(file)
                if top_k is None or ranks[place] <= top_k:
                    logit = scores.logits[place]
                    values = {**row.columns, row.query: pair.query, row.passage: pair.passage}
                    writer.write(values, [logit, sigmoid(logit), ranks[place], bool(scores.truncated[place])])
                    written += 1
                place += 1
        if place < len(scores):
            raise _changed(file)
    return written


def _changed(file: InputFile) -> InputError:
    return InputError(file.path, None, "has changed while it was scored")
