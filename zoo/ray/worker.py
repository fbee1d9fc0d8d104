"""What runs on the nodes: a model opened once in each actor, blocks of pairs read from files, and their scores."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.evaluation.rerank import scores_identity
from zoo.multi.inputs import InputFile
from zoo.multi.one_file import FileScores
from zoo.multi.readers import read_rows
from zoo.multi.rows import ADDED, Columns, kept_names
from zoo.ray.weights import SentModel
from zoo.reranker import Reranker
from zoo.scoring.window_size import WINDOW_CHARACTERS, WindowSize, take
from zoo.settings import RunSettings
from zoo.statistics import sigmoid
from zoo.types import Pair, ShapeRule, Tensors

if TYPE_CHECKING:
    import pyarrow

BLOCK = 1024
"""Pairs of a block, if their windows end there: what an actor takes at once, and what is computed again if its node is lost."""

END = -1
"""The block number of the row that ends a file."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How an actor opens the model. ``identity`` is what it must find there; None means that nobody has looked yet."""

    settings: RunSettings
    sent: SentModel = field(default_factory=SentModel)
    rows: int | None = None
    identity: Mapping[str, Any] | None = None

    def reranker(self) -> Reranker:
        """The model, opened in this process, which is zoo's own. Raises ZooError if it is another one than ``identity`` says."""
        os.environ.setdefault("RAYON_NUM_THREADS", str(self.settings.threads or 1))
        made = Reranker.from_settings(self.sent.settings(self.settings))
        if self.identity is not None:
            check_same(self.identity, scores_identity(made, self.rows))
        return made


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the first node that opened the model said of it."""

    identity: Mapping[str, Any]
    rule: ShapeRule
    input_names: tuple[str, ...]


def describe(opening: Opening) -> Description:
    """Open the model and say what it is."""
    with opening.reranker() as reranker:
        return Description(
            identity=scores_identity(reranker, opening.rows),
            rule=reranker.session.shape_rule,
            input_names=tuple(reranker.session.input_names),
        )


def check_same(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises ZooError with the differences of what decides the scores on two nodes."""
    differences = [
        f"{name}: {expected.get(name)} and {found.get(name)}"
        for name in dict.fromkeys([*expected, *found])
        if expected.get(name) != found.get(name)
    ]
    if differences:
        raise ZooError(f"two nodes have not opened the same model: {'; '.join(differences)}")


@dataclass(frozen=True)
class Block:
    """Consecutive pairs of a file with the windows that one machine would sort and batch them in."""

    pairs: list[Pair]
    sizes: list[int]

    @property
    def key(self) -> str:
        """Stands for the block in a journal."""
        digest = hashlib.blake2b(repr(self.sizes).encode(), digest_size=20)
        for pair in self.pairs:
            for text in pair:
                coded = text.encode("utf-8", "surrogatepass")
                digest.update(len(coded).to_bytes(8, "little") + coded)
        return digest.hexdigest()


def blocks(pairs: Iterable[Pair], rule: ShapeRule, rows: int | None) -> Iterator[Block]:
    """Cut pairs into blocks, each of whole windows, so that batches are those of a run on one machine."""
    source, size = iter(pairs), WindowSize(rule, rows, repeatable=True)
    block, characters = Block([], []), 0
    while True:
        window, added = take(source, size)
        if not window:
            break
        block.pairs.extend(window)
        block.sizes.append(len(window))
        characters += added
        if len(block.pairs) >= BLOCK or characters >= WINDOW_CHARACTERS:
            yield block
            block, characters = Block([], []), 0
    if block.pairs:
        yield block


def read_blocks(batch: pyarrow.Table, columns: Columns, rule: ShapeRule, rows: int | None) -> Iterator[pyarrow.Table]:
    """The blocks of a batch of files, one a row; those whose scores are known without their pairs; at last how many there were."""
    for item in batch.column("item").to_pylist():
        number, file, known = pickle.loads(item)  # noqa: S301  # made by the driver
        count = 0
        try:
            with closing(read_rows(file, columns)) as found:
                for block in blocks((pair for row in found for pair in row.pairs), rule, rows):
                    key = block.key
                    yield _row(number, count, key, pairs=b"" if key in known else pickle.dumps(block, protocol=5))
                    count += 1
        except ZooError as error:
            yield _row(number, END, error=str(error))
        else:
            yield _row(number, END, str(count))


def item_of(number: int, file: InputFile, known: frozenset[str]) -> dict[str, bytes]:
    """A file as ``read_blocks`` takes it; ``known`` are the keys of blocks that are scored."""
    return {"item": pickle.dumps((number, file, known), protocol=5)}


def _row(
    file: int, block: int, key: str = "", *, pairs: bytes = b"", scores: bytes = b"", error: str = ""
) -> pyarrow.Table:
    import pyarrow

    # Not a dict of lists: numpy cuts zeros off the end of bytes.
    row = {"file": file, "block": block, "key": key, "pairs": pairs, "scores": scores, "error": error}
    schema = pyarrow.schema([
        ("file", pyarrow.int64()), ("block", pyarrow.int64()), ("key", pyarrow.string()),
        ("pairs", pyarrow.large_binary()), ("scores", pyarrow.large_binary()), ("error", pyarrow.string()),
    ])  # fmt: skip
    return pyarrow.Table.from_pylist([row], schema=schema)


class ScoreBlocks:
    """An actor that scores the blocks of ``read_blocks``."""

    def __init__(self, opening: Opening) -> None:
        self._reranker, self._rows = opening.reranker(), opening.rows

    def __call__(self, batch: pyarrow.Table) -> Iterator[pyarrow.Table]:
        for row in batch.to_pylist():
            if not row["pairs"]:
                yield _row(row["file"], row["block"], row["key"], error=row["error"])
                continue
            block: Block = pickle.loads(row["pairs"])  # noqa: S301  # made by read_blocks
            try:
                yield _row(row["file"], row["block"], row["key"], scores=self._scores(block).packed())
            except ZooError as error:
                yield _row(row["file"], row["block"], row["key"], error=str(error))

    def _scores(self, block: Block) -> FileScores:
        with self._reranker.exclusive(batch_size=self._rows or 0, repeatable=True, sizes=block.sizes) as scorer:
            return FileScores.of(scorer.score_marked(block.pairs))


class ScoreTable:
    """An actor that adds scores to the rows of tables."""

    def __init__(self, opening: Opening, columns: Columns) -> None:
        self._reranker, self._columns, self._rows = opening.reranker(), columns, opening.rows

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        import pyarrow

        pairs = list(self._pairs(batch))
        with self._reranker.exclusive(batch_size=self._rows or 0, sizes=[len(pairs)]) as scorer:
            scored = list(scorer.score_marked(pairs))
        kept = kept_names(batch.column_names)
        table = batch.rename_columns([kept[name] for name in batch.column_names])
        logit, score, _, truncated = ADDED
        table = table.append_column(logit, pyarrow.array([each.logit for each in scored], pyarrow.float32()))
        table = table.append_column(score, pyarrow.array([sigmoid(each.logit) for each in scored], pyarrow.float64()))
        return table.append_column(truncated, pyarrow.array([each.truncated for each in scored], pyarrow.bool_()))

    def _pairs(self, batch: pyarrow.Table) -> Iterator[Pair]:
        names = self._columns.read(batch.column_names)
        for number, row in enumerate(batch.select(names).to_pylist(), start=1):
            try:
                found = self._columns.row(number, row).pairs
            except ValueError as error:
                raise ZooError(f"a row of the dataset {error}") from error
            if len(found) != 1:
                raise ZooError("a row of the dataset has a list of passages: give it a row for each (Dataset.flat_map)")
            yield found[0]


class Inference:
    """An actor that computes batches which somebody else has made."""

    def __init__(self, opening: Opening) -> None:
        self._reranker, self._lock = opening.reranker(), Lock()

    def ready(self) -> bool:
        """Answers when the model is open."""
        return True

    def infer(self, inputs: Tensors, outputs: list[str] | None) -> dict[str, Any]:
        """The outputs of one batch."""
        with self._lock:
            future = self._reranker.session.submit(inputs, outputs)
        return dict(future.result())
