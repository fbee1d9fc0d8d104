"""``zoo run --mode multi --cluster``: the result files of one machine, scored by many.

Nodes read the files and score them block by block. The driver gets 21 bytes a pair, which it keeps in each file's journal; it writes a
file when all its blocks are there. So a run goes on after an interruption without computing a block again.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.errors import ZooError
from zoo.evaluation.journal import Journal
from zoo.multi.inputs import InputFile
from zoo.multi.one_file import FileScores
from zoo.multi.run import Begun, FileResult, MultiRequest, MultiResult, MultiRun, failed
from zoo.ray.cluster import Cluster
from zoo.ray.dataset import actor_pool
from zoo.ray.imports import import_ray
from zoo.ray.worker import END, Description, Opening, ScoreBlocks, describe, item_of, read_blocks

logger = logging.getLogger(__name__)

MOST_READERS = 32
"""Files that are read at the same time, and about as many whose scores wait on the driver."""

MOST_TASKS = 1000
"""Tasks that read; each takes its share of the files."""

Shown = Callable[[Iterator[Mapping[str, Any]]], Iterator[Mapping[str, Any]]]
"""Passes the rows of scored blocks on, and may show how many there were."""


def described(cluster: Cluster, rows: int | None) -> tuple[Opening, Description]:
    """Open the model once on a node, so that what is wrong with it is known before data are read. Raises ZooError.

    The opening that is returned makes every actor check that it has opened the same.
    """
    ray = import_ray()
    opening = replace(cluster.opening, rows=rows)
    found: Description = with_zoo_errors(
        lambda: ray.get(ray.remote(describe).options(**cluster.placement.ray_options).remote(opening))
    )
    return replace(opening, identity=found.identity), found


def score_files(
    cluster: Cluster, inputs: Sequence[InputFile], request: MultiRequest, *, shown: Shown = lambda rows: rows
) -> MultiResult:
    """``zoo.multi.score_files`` on a cluster: the same results, report and faults. Every node must see ``inputs``. Raises ZooError."""
    opening, found = described(cluster, request.batch_size)
    run = MultiRun(request, found.identity)
    inputs = [replace(file, path=file.path.resolve()) for file in inputs]
    with run.locked():
        state = _Files(run, inputs)
        with contextlib.closing(state):
            items = state.begin()
            if items:
                rows = _scored(cluster, opening, found, request, items)
                with_zoo_errors(lambda: state.take_all(shown(rows)))
        return run.reported([state.results[number] for number in range(len(inputs))])


def _scored(
    cluster: Cluster, opening: Opening, found: Description, request: MultiRequest, items: Sequence[Mapping[str, bytes]]
) -> Iterator[Mapping[str, Any]]:
    data = import_ray("ray.data")
    readers = min(MOST_READERS, max(2, cluster.placement.actors), len(items))
    with _context(data):
        dataset = (
            data.from_items(list(items), override_num_blocks=min(len(items), MOST_TASKS))
            .map_batches(
                functools.partial(read_blocks, columns=request.columns, rule=found.rule, rows=request.batch_size),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=0,  # actors may hold every CPU there is
                compute=data.TaskPoolStrategy(size=readers),
            )
            .map_batches(
                ScoreBlocks,
                fn_constructor_kwargs={"opening": opening},
                batch_size=1,
                batch_format="pyarrow",
                compute=actor_pool(cluster.placement),
                **cluster.placement.ray_options,
            )
        )
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.to_pylist()


CONTEXT = {
    "enable_progress_bars": False,
    "print_on_execution_start": False,
    "target_max_block_size": 1,  # a row a block, so that each goes to whoever is free
}
"""Settings of Ray Data, which a dataset keeps from when it was made."""


@contextlib.contextmanager
def _context(data: Any) -> Iterator[None]:
    current = data.DataContext.get_current()
    before = {name: getattr(current, name) for name in CONTEXT}
    try:
        for name, value in CONTEXT.items():
            setattr(current, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(current, name, value)


@dataclass
class _Waiting:
    """A file whose blocks come in, in any order: ``keys`` by their numbers, and how many there are once that is known."""

    begun: Begun
    journal: Journal
    keys: dict[int, str] = field(default_factory=dict)
    count: int | None = None

    def scores(self) -> FileScores:
        whole = FileScores()
        for number in range(len(self.keys)):
            whole.add(self.journal.content(self.keys[number]))
        return whole


class _Files:
    """The files of a run, on the driver. ``results`` are those that are done, kept or failed, by the place of the input."""

    def __init__(self, run: MultiRun, inputs: Sequence[InputFile]) -> None:
        self.results: dict[int, FileResult] = {}
        self._run, self._inputs = run, inputs
        self._begun: dict[int, Begun] = {}
        self._waiting: dict[int, _Waiting] = {}

    def begin(self) -> list[dict[str, bytes]]:
        """What the nodes are to read: every file that is not kept, with the blocks of it that are known."""
        items = []
        for number, (file, name) in enumerate(self._run.named(self._inputs)):
            try:
                begun = self._run.begin(file, name)
                if isinstance(begun, FileResult):
                    self.results[number] = begun
                    continue
                known = frozenset[str]()
                if begun.journal.exists():
                    with self._journal(begun) as journal:
                        known = frozenset(journal.keys())
                    logger.info("%s: continuing, %d blocks are there", file.name, len(known))
            except ZooError as error:
                self.results[number] = failed(file, error)
                continue
            self._begun[number] = begun
            items.append(item_of(number, file, known))
        return items

    def take_all(self, rows: Iterator[Mapping[str, Any]]) -> None:
        """Keep the scores of blocks as they come in, and write every file that is complete."""
        for row in rows:
            number = row["file"]
            if number in self.results:
                continue
            try:
                self._take(number, row)
            except ZooError as error:
                self._fail(number, error)
        for number in [*self._begun]:
            if number not in self.results:
                self._fail(number, ZooError(f"{self._inputs[number].name}: not all of it was scored. Run it again"))

    def _take(self, number: int, row: Mapping[str, Any]) -> None:
        if row["error"]:
            raise ZooError(row["error"])
        waiting = self._waiting.get(number)
        if waiting is None:
            begun = self._begun[number]
            waiting = self._waiting[number] = _Waiting(begun, self._journal(begun))
        if row["block"] == END:
            waiting.count = int(row["key"])
        else:
            if row["scores"]:
                waiting.journal.keep(row["key"], row["scores"])
            waiting.keys[row["block"]] = row["key"]
        if waiting.count == len(waiting.keys):
            scores = waiting.scores()
            self._close(number)
            self.results[number] = self._run.finish(waiting.begun, scores)

    def _fail(self, number: int, error: ZooError) -> None:
        self._close(number)
        self.results[number] = failed(self._inputs[number], error)

    def _journal(self, begun: Begun) -> Journal:
        return Journal.open(begun.journal, self._run.header)

    def _close(self, number: int) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting.journal.close()

    def close(self) -> None:
        """Close the journals of files that are not complete."""
        for number in [*self._waiting]:
            self._close(number)


def with_zoo_errors(call: Callable[[], Any]) -> Any:
    """The result of ``call``. A ZooError of a node is raised as it was; any other fault of the cluster becomes a ZooError."""
    ray = import_ray()
    try:
        return call()
    except ZooError as error:
        # Ray's class is made of both; only zoo's own half is shown.
        raise (getattr(error, "cause", None) or error) from None
    except (ray.exceptions.RayError, import_ray("ray.data.exceptions").RayDataUserCodeException) as error:
        raise _in_words(error) from error


def _in_words(error: BaseException) -> ZooError:
    seen: BaseException | None = error
    while seen is not None:
        for each in (seen, getattr(seen, "cause", None)):
            if isinstance(each, ZooError):
                return ZooError(str(getattr(each, "cause", None) or each))
        seen = seen.__cause__ or seen.__context__
    lines = str(error).strip().splitlines()
    return ZooError(f"the cluster has failed: {lines[-1] if lines else type(error).__name__}")
