"""One job through admission, chunking and the model's queue, until it is scored, late, or nobody waits for it any more."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice

from zoo.errors import ClosedError, DeadlineError, DeviceError, TooLongError, ZooError
from zoo.evaluation.longdoc import Chunker, LongDoc, aggregate
from zoo.reranker import Reranker
from zoo.scoring.handle import Handle
from zoo.serve.job import Job, Scored
from zoo.serve.models import Models, ServedModel
from zoo.serve.record import Record
from zoo.serve.refusal import Refusal
from zoo.serve.settings import LEAST_QUEUED_TOKENS, ServeSettings
from zoo.types import Pair

GRACE = 2.0
"""Seconds past a deadline after which the queue is not waited for: it keeps deadlines itself."""

SPECIAL_TOKENS = 8
"""At most so many are added to a pair; for the guess whether a pair may be too long."""

ONLY_AT_THE_END = "texts are only cut at their end"


class Scoring:
    """Scores the jobs of all requests."""

    def __init__(self, models: Models, settings: ServeSettings) -> None:
        self._models, self._settings = models, settings
        self._cutting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="zoo-serve-chunks")

    async def score(self, job: Job, deadline: float, gone: asyncio.Future[None], record: Record) -> Scored:
        """The scores of ``job`` by ``deadline``, a time of ``time.monotonic``. Raises Refusal.

        ``gone`` ends when the client has closed the connection; it is cancelled if the server cannot wait any longer.
        """
        model = self._models.named(job.model)
        record.model = model.name
        reranker = model.ready()
        record.device = reranker.device_name
        self._check(job)
        how = job.long_doc or self._settings.long_doc
        self._admit(model, reranker, job.pairs)
        pairs, counts = job.pairs, None
        if _may_need_cutting(job, how, reranker.max_length):
            pairs, counts = await self._cut(reranker, job, how, lambda: gone.done() or time.monotonic() > deadline)
            if job.cuts_left and counts is None and pairs != job.pairs:
                place = next(n for n, (cut, whole) in enumerate(zip(pairs, job.pairs, strict=True)) if cut != whole)
                raise Refusal("too_long", f"pair {place} is longer than the request allows; {ONLY_AT_THE_END}")
            self._admit(model, reranker, pairs)
        try:
            handle = reranker.submit(pairs, deadline=deadline, truncate=job.truncate and not job.cuts_left)
        except ClosedError as error:
            raise Refusal("not_ready", f"the model '{model.name}' is closing", retry_after=2) from error
        try:
            await _end_of(handle, deadline, gone)
        finally:
            handle.cancel()  # does nothing if it has ended
            record.pairs, record.computed, record.tokens = len(pairs), handle.started, handle.tokens
            record.truncated = handle.truncated
        try:
            logits = handle.result(0).tolist()
        except BaseException as error:
            raise _refusal(error, model, job, gone) from error
        record.before = handle.submitted - record.started
        record.tokenising, record.queueing, record.computing = _durations(handle)
        record.scored = True
        if counts is not None:
            given = iter(logits)
            logits = [aggregate(list(islice(given, count)), how) for count in counts]
        return Scored(logits=logits, model=model.name, tokens=handle.tokens)

    def _check(self, job: Job) -> None:
        if not job.pairs:
            raise Refusal("empty", "there are no texts to score")
        most = self._settings.max_documents
        if len(job.pairs) > most:
            raise Refusal("too_many", f"batch size {len(job.pairs)} > maximum allowed batch size {most}")
        characters = self._settings.max_characters
        for pair in job.pairs:
            if len(pair.query) > characters or len(pair.passage) > characters:
                raise Refusal("too_long", f"a text has more than {characters} characters")

    def _admit(self, model: ServedModel, reranker: Reranker, pairs: Sequence[Pair]) -> None:
        """Refuse what would have to wait too long. What finds nobody waiting is let in, whatever its size."""
        waiting, rate = reranker.queued_tokens, model.tokens_per_second
        limit = self._settings.max_queued_tokens or max(LEAST_QUEUED_TOKENS, rate * self._settings.timeout / 2)
        if waiting and waiting + reranker.expected_tokens(pairs) > limit:
            seconds = waiting / rate if rate else 1.0
            raise Refusal(
                "busy",
                f"{waiting} tokens wait for the model '{model.name}'; more than {limit:.0f} may not",
                retry_after=min(max(math.ceil(seconds), 1), 60),
            )

    async def _cut(
        self, reranker: Reranker, job: Job, how: LongDoc, stopped: Callable[[], bool]
    ) -> tuple[list[Pair], list[int] | None]:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._cutting, functools.partial(_cut, reranker, job, how, stopped))
        except TimeoutError as error:
            raise Refusal("late", "the request was not answered in time") from error
        except ZooError as error:
            raise Refusal("invalid", str(error)) from error

    def close(self) -> None:
        """Let go of the thread that cuts long passages."""
        self._cutting.shutdown(wait=False, cancel_futures=True)


def _may_need_cutting(job: Job, how: LongDoc, longest: int) -> bool:
    """Whether a pair may be past a limit. No tokenizer makes more tokens than there are bytes, but for a few special ones."""

    def over(texts: Sequence[str], tokens: int | None) -> bool:
        return tokens is not None and tokens < longest and any(len(text.encode()) > tokens for text in texts)

    pair_tokens = longest if how != "truncate" else job.pair_tokens
    return (
        over([pair.passage for pair in job.pairs], job.passage_tokens)
        or over(list({pair.query for pair in job.pairs}), job.query_tokens)
        or (
            pair_tokens is not None
            and any(len(p.query.encode()) + len(p.passage.encode()) + SPECIAL_TOKENS > pair_tokens for p in job.pairs)
        )
    )


def _cut(
    reranker: Reranker, job: Job, how: LongDoc, stopped: Callable[[], bool]
) -> tuple[list[Pair], list[int] | None]:
    """The pairs to score in place of the job's, and how many are one of the job's; None for one each. Raises TimeoutError."""
    # Not kept for other requests: pieces of long passages take several times the memory of the passages.
    chunker = Chunker(reranker.pipeline, min(reranker.max_length, job.pair_tokens or reranker.max_length))
    pairs: list[Pair] = []
    counts: list[int] = []
    for pair in job.pairs:
        if stopped():
            raise TimeoutError
        if job.query_tokens is not None:
            pair = pair._replace(query=chunker.head(pair.query, job.query_tokens))
        if job.passage_tokens is not None:
            pair = pair._replace(passage=chunker.head(pair.passage, job.passage_tokens))
        if how != "truncate":
            chunks = chunker.chunks(pair)[: job.max_chunks]
        else:
            chunks = [pair if job.pair_tokens is None else chunker.beginning(pair)]
        pairs += chunks
        counts.append(len(chunks))
    return pairs, counts if how != "truncate" else None


async def _end_of(handle: Handle, deadline: float, gone: asyncio.Future[None]) -> None:
    """Wait until ``handle`` has ended, or its deadline is well past, or ``gone``."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not ended.done():
            ended.set_result(None)

    def on_end(handle: Handle) -> None:
        with suppress(RuntimeError):  # the loop has been closed, and nobody waits
            loop.call_soon_threadsafe(settle)

    handle.add_done_callback(on_end)
    left = max(deadline - time.monotonic(), 0) + GRACE
    await asyncio.wait({ended, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)


def _durations(handle: Handle) -> tuple[float, float, float]:
    """Seconds of tokenising, of waiting, and from the start of the first batch to the end."""
    begun, ended = handle.first_started or handle.submitted, handle.finished or time.monotonic()
    return handle.tokenising, max(begun - handle.submitted - handle.tokenising, 0.0), ended - begun


def _refusal(error: BaseException, model: ServedModel, job: Job, gone: asyncio.Future[None]) -> Refusal:
    """What a client is told about ``error``."""
    match error:
        case CancelledError() if gone.cancelled():
            return Refusal("not_ready", "the server is shutting down", retry_after=2)
        case CancelledError() if gone.done():
            return Refusal("gone", "the client has gone")
        case CancelledError() | DeadlineError():
            return Refusal("late", "the request was not answered in time")
        case TooLongError():
            remark = f"; {ONLY_AT_THE_END}" if job.cuts_left else ""
            return Refusal("too_long", f"{error}{remark}")
        case ClosedError():
            return Refusal("not_ready", f"the model '{model.name}' is being opened again", retry_after=5)
        case DeviceError():
            model.suspect()
            return Refusal("device", f"the device failed: {error}", retry_after=2)
        case ZooError():
            return Refusal("failed", str(error))
    return Refusal("failed", f"internal fault: {type(error).__name__}")
