"""Measure rerankers side by side: each round gives every one of them a turn at every shape, so that a drift of the machine hits all.

Two figures, as Tecorigin's performance mode has them: the latency of batches computed one by one, and the throughput with as many
batches in flight as keep the device busy.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import zoo
from zoo.bench.contention import processor_seconds, waiting_share
from zoo.bench.inputs import random_batch, runner_of
from zoo.bench.product import gflops, matrix_products
from zoo.cpus import usable_threads
from zoo.errors import ZooError
from zoo.reranker import Reranker
from zoo.scoring.batch_runner import BatchRunner
from zoo.scoring.batching import Batch
from zoo.statistics import percentile
from zoo.types import Tensors

VERSION = 1
AHEAD = 2
"""Batches handed to the device beyond those that it computes at once, as in a run."""

ROWS, LENGTH = (1, 4, 8, 16), 512
"""Shapes that are measured if none are asked for."""


@dataclass(frozen=True, order=True)
class Shape:
    """A batch: ``rows``, and ``length`` tokens in each."""

    rows: int
    length: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.length}"


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """``shapes`` None are those of ``default_shapes``.

    ``seconds`` is the time of one pass of one shape in one round; ``iterations``, if given, counts its batches in place of that.
    """

    shapes: Sequence[Shape] | None = None
    seconds: float = 1.0
    iterations: int | None = None
    rounds: int = 5
    warm_up: int = 3
    """Batches of each shape that are computed and not counted, and one in each round after it."""


@dataclass
class Entry:
    """What one reranker did with one shape, round by round."""

    target: str
    shape: Shape
    latencies: list[list[float]] = field(default_factory=list)
    pairs_per_second: list[float] = field(default_factory=list)
    cpu_seconds_per_pair: list[float] = field(default_factory=list)
    waiting: list[float | None] = field(default_factory=list)
    """Shares of the time in which threads waited for a processor."""


def bench(
    rerankers: Mapping[str, Reranker], request: BenchRequest, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """The report, ready for JSON. ``rerankers`` are open, by the names that the report gives them. Raises ZooError.

    Nothing else may use them meanwhile.
    """
    shapes = default_shapes(rerankers.values()) if request.shapes is None else request.shapes
    if request.rounds < 1 or not shapes:
        raise ZooError("a measurement needs one round and one shape at least")
    for name, reranker in rerankers.items():
        for shape in shapes:
            _check_fits(shape, name, reranker)
    runners = {name: runner_of(reranker) for name, reranker in rerankers.items()}
    work = {
        (name, shape): random_batch(runner, shape.rows, shape.length)
        for name, runner in runners.items()
        for shape in shapes
    }
    entries = {key: Entry(*key) for key in work}
    for key, batch in work.items():
        for _ in range(request.warm_up):
            _once(runners[key[0]], batch)
    products, product = matrix_products(), list[float]()
    for number in range(request.rounds):
        product.append(gflops(products))
        # Every other round goes backwards, so that nobody always follows the same neighbour.
        for key in list(work)[:: -1 if number % 2 else 1]:
            _round(runners[key[0]], work[key], entries[key], request, clock)
    return {
        "zoo_bench": VERSION,
        "zoo": zoo.__version__,
        "machine": {"processor": platform.machine(), "threads": usable_threads(), "system": platform.platform()},
        "matrix_product_gflops": round(max(product), 2),
        "peak_memory_bytes": _peak_memory(),
        "targets": {name: _description(reranker) for name, reranker in rerankers.items()},
        "results": [_result(entry, request, rerankers[entry.target], max(product)) for entry in entries.values()],
    }


def default_shapes(rerankers: Iterable[Reranker]) -> list[Shape]:
    """``ROWS`` rows of ``LENGTH`` tokens, as far as every one of ``rerankers`` takes them.

    A session that is fixed to a number of rows, as a compiled engine is, has that number measured as its largest.
    """
    opened = list(rerankers)
    length = min([LENGTH, *(reranker.max_length for reranker in opened)])
    fixed = [rows for reranker in opened if (rows := reranker.session.shape_rule.rows) is not None]
    most = min(fixed, default=max(ROWS))
    return [Shape(rows, length) for rows in sorted({min(rows, most) for rows in ROWS})]


def _check_fits(shape: Shape, name: str, reranker: Reranker) -> None:
    if shape.length > reranker.max_length:
        raise ZooError(
            f"`shapes`: {shape} is longer than the {reranker.max_length} tokens that {name} takes (`max_length`)"
        )
    rows = reranker.session.shape_rule.rows
    if rows is not None and shape.rows > rows:
        raise ZooError(f"`shapes`: {shape} has more rows than the {rows} that {name} is opened for (`batch_size`)")


def _round(runner: BatchRunner, batch: Batch, entry: Entry, request: BenchRequest, clock: Callable[[], float]) -> None:
    _once(runner, batch)
    started = clock()
    latencies: list[float] = []
    while _goes_on(len(latencies), clock() - started, request):
        before = clock()
        _once(runner, batch)
        latencies.append(clock() - before)
    entry.latencies.append(latencies)

    most = runner.session.shape_rule.parallel_batches + AHEAD
    waiting: deque[Future[Tensors]] = deque()
    contention = processor_seconds()
    started, cpu, begun, done = clock(), time.process_time(), 0, 0
    try:
        while waiting or begun == 0:
            while len(waiting) < most and _goes_on(begun, clock() - started, request):
                waiting.append(runner.start(batch))
                begun += 1
            runner.scores(batch, waiting.popleft())
            done += 1
    finally:
        for future in waiting:
            future.cancel()
    seconds, pairs = clock() - started, done * batch.info.rows
    entry.pairs_per_second.append(pairs / seconds)
    entry.cpu_seconds_per_pair.append((time.process_time() - cpu) / pairs)
    entry.waiting.append(waiting_share(contention, processor_seconds()))


def _goes_on(batches: int, seconds: float, request: BenchRequest) -> bool:
    if batches == 0:
        return True
    return batches < request.iterations if request.iterations else seconds < request.seconds


def _once(runner: BatchRunner, batch: Batch) -> None:
    runner.scores(batch, runner.start(batch))


def _result(entry: Entry, request: BenchRequest, reranker: Reranker, product: float) -> dict[str, Any]:
    latencies = [1000 * each for rounds in entry.latencies for each in rounds]
    pairs = median(entry.pairs_per_second)
    waiting = [share for share in entry.waiting if share is not None]
    flops = encoder_flops(reranker, entry.shape.length)
    done = {
        "gflops": round(pairs * flops / 1e9, 2),
        "share_of_matrix_product": round(pairs * flops / 1e9 / product, 3),
    }
    return {
        "target": entry.target,
        "shape": str(entry.shape),
        "batches": len(latencies),
        "latency_ms": {f"p{share}": round(percentile(latencies, share / 100), 4) for share in (50, 90, 95, 99)},
        "pairs_per_second": round(pairs, 3),
        "tokens_per_second": round(pairs * entry.shape.length, 1),
        **(done if flops else {}),
        "cpu_seconds_per_pair": round(median(entry.cpu_seconds_per_pair), 6),
        "rounds": {
            "pairs_per_second": [round(each, 3) for each in entry.pairs_per_second],
            "latency_ms": [round(1000 * median(each), 4) for each in entry.latencies],
            **({"waiting": [round(share, 4) for share in waiting]} if waiting else {}),
        },
    }


def encoder_flops(reranker: Reranker, length: int) -> float:
    """Floating-point operations for one pair of ``length`` tokens by the sizes in config.json, 0 if they do not say.

    Two for each weight of the layers' matrices and token, and 4 x hidden x length a token for both products of attention.
    """
    import json

    try:
        config = json.loads((reranker.checkpoint.folder / "config.json").read_text(encoding="utf-8"))
        hidden, layers, inner = (int(config[key]) for key in ("hidden_size", "num_hidden_layers", "intermediate_size"))
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
    if "num_key_value_heads" in config:  # another shape of attention and of the inner layer
        return 0.0
    return float(layers * length * (2 * (4 * hidden**2 + 2 * hidden * inner) + 4 * hidden * length))


def _peak_memory() -> int | None:
    """Bytes that this process has held at most; workers' memory is their own."""
    with contextlib.suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak if platform.system() == "Darwin" else peak * 1024)
    return None


def _description(reranker: Reranker) -> dict[str, Any]:
    return {
        "model": reranker.card.name,
        "device": reranker.device_name,
        "precision": reranker.precision,
        "plugins": dict(reranker.pipeline.owners),
        **reranker.device_details(),
    }
