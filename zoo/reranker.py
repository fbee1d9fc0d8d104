"""``zoo.Reranker``: a model opened on a device. The way in for programs, and what the commands use."""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from zoo.errors import ClosedError, ZooError
from zoo.files import system_faults
from zoo.settings import DEFAULT_LENGTH, PrecisionChoice, RunSettings
from zoo.statistics import sigmoid
from zoo.types import Artifact, Device, Pair, Session, SessionOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zoo.export.prepare import Prepared
    from zoo.registry.catalogue import Catalogue
    from zoo.registry.stages import Pipeline
    from zoo.scoring.handle import Handle
    from zoo.scoring.queue import BatchReport
    from zoo.scoring.scorer import Recall, Scorer

logger = logging.getLogger(__name__)

Scale: TypeAlias = Literal["logit", "probability"]
"""A float32 logit, on which to rank, or its sigmoid between 0 and 1, which saturates and makes ties, for display."""

FIRST_PART, LARGEST_PART, PARTS_AHEAD = 64, 1024, 3
"""Pairs that ``stream`` submits at once: the first few quickly, then as many as sort well; and how many parts wait at a time."""


@dataclass(frozen=True)
class Ranked:
    """One passage in its place: ``index`` is its place in the list it came from, ``score`` a logit or, if asked for, a probability."""

    index: int
    score: float
    passage: str


class Reranker:
    """A model opened on a device. Any number of threads may call one object at once: their pairs share batches.

        with Reranker.open("zoo-reranker-tiny") as reranker:
            scores = reranker.score([("what is panda?", "The giant panda is a bear species endemic to China.")])

    A context manager; ``close`` releases the device, the threads and the files. After it every call raises ClosedError.
    """

    def __init__(self, prepared: Prepared, artifact: Artifact | None, session: Session, settings: RunSettings) -> None:
        from zoo.scoring.batch_runner import BatchRunner
        from zoo.scoring.batching import Features
        from zoo.scoring.queue import ScoringQueue

        self.card, self.device = prepared.card, prepared.device
        self.precision, self.precision_reason = prepared.precision, prepared.precision_reason
        self.max_length, self.checkpoint = prepared.max_length, prepared.checkpoint
        self.device_options, self.model_options = prepared.device_options, prepared.model_options
        self.pipeline, self.artifact, self.session, self.settings = prepared.pipeline, artifact, session, settings
        self._model = prepared.model
        self._features = Features(optional=self._model.optional_features, supplies=self._model.supplies)
        runner = BatchRunner(self.pipeline, session, settings.batch_size, self._features, settings.batch_tokens)
        self.batch_tokens = runner.batch_tokens(self.max_length)
        self._queue = ScoringQueue(runner, self.max_length)
        self._closed = False

    @classmethod
    def open(
        cls,
        model: str,
        *,
        device: str | None = None,
        precision: PrecisionChoice | None = None,
        max_length: int | None = None,
        query_max_length: int = DEFAULT_LENGTH,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        threads: int | None = None,
        workers: int = 1,
        offline: bool = False,
        checkpoint: str | Path | None = None,
        ckpt: str | Path | None = None,
        exporter: str = "",
        allow_pickle: bool = False,
        device_options: Mapping[str, str] | None = None,
        model_options: Mapping[str, str] | None = None,
        catalogue: Catalogue | None = None,
    ) -> Reranker:
        """Open the model called ``model`` on ``device`` (``cpu``, ``sdaa:1``; None: the best one available).

        ``precision`` None is the device's default and ``auto`` the fastest that kept measurements allow. ``max_length`` and
        ``query_max_length`` are tokens; ``batch_size`` is rows, None leaves them to the device, which keeps a batch within
        ``batch_tokens`` (rows times padded length; None: its own choice). ``checkpoint`` is a folder with the model's files, ``ckpt`` a
        model file; without them the card's sources are asked, the network only if ``offline`` is False.
        Raises ZooError.
        """
        settings = RunSettings(
            model=model,
            target=device,
            precision=precision,
            max_length=max_length,
            query_max_length=query_max_length,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            threads=threads,
            workers=workers,
            offline=offline,
            config_path=Path(checkpoint) if checkpoint is not None else None,
            ckpt=Path(ckpt) if ckpt is not None else None,
            exporter=exporter,
            allow_pickle=allow_pickle,
            device_options=dict(device_options or {}),
            model_options=dict(model_options or {}),
        )
        return cls.from_settings(settings, catalogue)

    @classmethod
    def from_settings(
        cls,
        settings: RunSettings,
        catalogue: Catalogue | None = None,
        *,
        remote: Callable[[Prepared, Artifact | None], Session] | None = None,
    ) -> Reranker:
        """The same from the commands' settings; ``catalogue`` None is what is installed. Raises ZooError.

        ``remote`` opens the session on other machines; the device need not be available on this one then.
        """
        from zoo.export.prepare import prepare
        from zoo.registry.catalogue import Catalogue

        with system_faults(), ExitStack() as stack:
            prepared = prepare(catalogue or Catalogue.installed(), settings, device_here=remote is None)
            stack.callback(prepared.model.close)
            artifact = None
            if prepared.device is not None:
                artifact = prepared.artifact(settings.ckpt)
                where = f"{prepared.device.name} in {prepared.precision}"
                logger.info("model: %s (%s) on %s", artifact.model, artifact.origin, where)
            session = remote(prepared, artifact) if remote else _session(prepared, artifact, settings)
            stack.callback(session.close)
            made = cls(prepared, artifact, session, settings)
            stack.pop_all()
        return made

    def score(self, pairs: Iterable[Pair | tuple[str, str]], *, scores: Scale = "logit") -> NDArray[np.float32]:
        """float32 scores of shape (n,), in the order of ``pairs``. Raises ZooError if one of them cannot be scored."""
        import numpy as np

        _check_scale(scores)
        return np.fromiter(self.stream(pairs, scores=scores), dtype=np.float32)

    def stream(self, pairs: Iterable[Pair | tuple[str, str]], *, scores: Scale = "logit") -> Iterator[float]:
        """A score for each pair, in order, as they come in. ``pairs`` may be endless: few of them are held at a time."""
        _check_scale(scores)
        self._refuse_closed()
        return self._streamed(iter(pairs), scores)

    def rank(
        self,
        query: str,
        passages: Iterable[str],
        top_k: int | None = None,
        *,
        instruction: str = "",
        scores: Scale = "logit",
    ) -> list[Ranked]:
        """The passages, the most relevant first; of equal ones the one that comes first in ``passages``. ``top_k`` None keeps all.

        ``instruction`` is for models that read one; empty means the model's own.
        """
        return self.rank_many([query], [passages], top_k, instruction=instruction, scores=scores)[0]

    def rank_many(
        self,
        queries: Iterable[str],
        passages_of_each: Iterable[Iterable[str]],
        top_k: int | None = None,
        *,
        instruction: str = "",
        scores: Scale = "logit",
    ) -> list[list[Ranked]]:
        """``rank`` for many queries, whose pairs share batches: one list a query. Raises ValueError if the lengths differ."""
        _check_scale(scores)
        if top_k is not None and top_k < 1:
            raise ZooError(f"top_k is {top_k}; it must be 1 or more")
        lists = [(query, _texts(passages)) for query, passages in zip(queries, passages_of_each, strict=True)]
        pairs = (Pair(query, passage, instruction) for query, passages in lists for passage in passages)
        logits = iter(self.score(pairs).tolist())
        return [_ranked(passages, list(islice(logits, len(passages))), top_k, scores) for _, passages in lists]

    def submit(
        self, pairs: Sequence[Pair | tuple[str, str]], *, deadline: float | None = None, truncate: bool = True
    ) -> Handle:
        """Have ``pairs`` scored without waiting; see ``zoo.scoring.handle.Handle``.

        ``deadline`` is a time of ``time.monotonic``; without a result by then the handle ends with DeadlineError. ``truncate`` False ends
        it with TooLongError if a pair is longer than the model reads.
        """
        self._refuse_closed()
        return self._queue.submit([_pair(pair) for pair in pairs], deadline=deadline, truncate=truncate)

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for the device; of pairs that are not tokenised yet, as many as their characters let expect."""
        return self._queue.queued_tokens

    @property
    def queued_pairs(self) -> int:
        """Pairs that wait for the device."""
        return self._queue.queued_pairs

    @property
    def silent_seconds(self) -> float:
        """How long the device has had a batch without giving a result; 0 if it has none."""
        return self._queue.silent_seconds

    def expected_tokens(self, pairs: Sequence[Pair | tuple[str, str]]) -> int:
        """What ``pairs`` would count in ``queued_tokens``, by their characters."""
        return self._queue.expected_tokens([_pair(pair) for pair in pairs])

    def on_batch(self, listener: Callable[[BatchReport], None] | None) -> None:
        """Have ``listener`` told of every batch that is computed, from another thread; None ends that."""
        self._queue.on_batch = listener

    @contextmanager
    def exclusive(
        self,
        *,
        pipeline: Pipeline | None = None,
        batch_size: int | None = None,
        repeatable: bool = False,
        recall: Recall | None = None,
        sizes: Sequence[int] = (),
    ) -> Iterator[Scorer]:
        """A scorer that has the device to itself inside the block; other callers wait.

        ``pipeline`` None is the reranker's own; ``batch_size`` None is that of the settings, 0 leaves rows to the device.
        ``repeatable``, ``recall`` and ``sizes`` are those of ``Scorer``.
        """
        from contextlib import closing

        from zoo.scoring.scorer import Scorer

        self._refuse_closed()
        rows = self.settings.batch_size if batch_size is None else batch_size or None
        scorer = Scorer(
            pipeline or self.pipeline,
            self.session,
            rows,
            self._features,
            repeatable=repeatable,
            recall=recall,
            sizes=sizes,
            batch_tokens=self.settings.batch_tokens,
        )
        with self._queue.exclusive(), closing(scorer):
            yield scorer

    @property
    def device_name(self) -> str:
        """The device's name, or ``none`` for an architecture that computes by itself."""
        return self.device.name if self.device else "none"

    def device_details(self) -> dict[str, str]:
        """What the device says of itself."""
        return dict(self.device.probe().details) if self.device else {}

    def close(self) -> None:
        """Release the device, the threads and the model. May be called again."""
        if not self._closed:
            self._closed = True
            with ExitStack() as stack:
                stack.callback(self._model.close)
                stack.callback(self.session.close)
                self._queue.close()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _streamed(self, pairs: Iterator[Any], scores: Scale) -> Iterator[float]:
        size, waiting, ended = FIRST_PART, deque[Any](), False
        try:
            while True:
                while not ended and len(waiting) < PARTS_AHEAD:
                    part = list(islice(pairs, size))
                    size = min(2 * size, LARGEST_PART)
                    ended = not part
                    if part:
                        waiting.append(self.submit(part))
                if not waiting:
                    return
                logits = waiting[0].result().tolist()
                waiting.popleft()
                yield from map(sigmoid, logits) if scores == "probability" else logits
        finally:
            for handle in waiting:  # after a failure, or when the caller goes away
                handle.cancel()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedError("this reranker is closed")


def _session(prepared: Prepared, artifact: Artifact | None, settings: RunSettings) -> Session:
    """The session of the settings; an architecture that computes by itself gets one that passes on what it is given."""
    if prepared.device is None or artifact is None:
        from zoo.scoring.batch_runner import NoSession

        return NoSession()
    options = SessionOptions(
        precision=prepared.precision,
        batch_size=settings.batch_size,
        max_length=prepared.max_length,
        threads=settings.threads,
        selector=prepared.selector,
        extra=prepared.device_options,
    )
    return _open_session(prepared.device, artifact, options, settings.workers)


def _open_session(device: Device, artifact: Artifact, options: SessionOptions, workers: int) -> Session:
    """A session of ``device`` in this process, or in several of its own."""
    if workers == 1:
        return device.open(artifact, options)
    if options.selector == "all" or "," in options.selector:
        raise ZooError(
            f"{workers} workers would each open '{device.name}:{options.selector}', whose parts have a process each already: "
            "leave out `workers`"
        )
    from zoo.scoring.processes import Processes, open_on

    return Processes.workers(functools.partial(open_on, device.name), artifact, options, workers)


def _pair(pair: object) -> Pair:
    if isinstance(pair, (tuple, list)) and len(pair) in (2, 3) and all(isinstance(text, str) for text in pair):
        return Pair(*pair)
    raise ZooError(f"a pair must be two texts, a query and a passage, or three with an instruction, not {pair!r:.200}")


def _texts(passages: Iterable[str]) -> list[str]:
    if isinstance(passages, str):
        raise ZooError("passages must be a list of texts, not a single text")
    return list(passages)


def _check_scale(scores: object) -> None:
    if scores not in ("logit", "probability"):
        raise ZooError(f"scores is {scores!r}; it must be 'logit' or 'probability'")


def _ranked(passages: Sequence[str], logits: Sequence[float], top_k: int | None, scores: Scale) -> list[Ranked]:
    order = sorted(range(len(passages)), key=lambda index: -logits[index])[:top_k]
    return [
        Ranked(index, sigmoid(logits[index]) if scores == "probability" else logits[index], passages[index])
        for index in order
    ]
