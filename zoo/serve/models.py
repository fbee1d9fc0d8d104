"""The models that are served: opened in the background, watched, and opened again if their device fails."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from contextlib import suppress
from typing import Literal, TypeAlias

from zoo.errors import ZooError
from zoo.reranker import Reranker
from zoo.scoring.queue import BatchReport
from zoo.serve.refusal import Refusal
from zoo.serve.threads import in_daemon_thread
from zoo.types import Pair

logger = logging.getLogger(__name__)

State: TypeAlias = Literal["loading", "ready", "recovering", "failed"]
WARM_UP = Pair("Is it ready?", "It has scored a pair.")
CLOSING_SECONDS = 15.0
"""A reranker that does not close within that holds the device, and only the end of the process releases it."""
REOPENING = (0.0, 2.0, 10.0)
"""Seconds before each attempt to open a model again."""
LOOK_EVERY = 0.5
"""Seconds between two looks at whether a device is silent."""
UNNAMED = ("", "default", "default/not-specified")
"""What clients send as the model if their user has named none."""
FOLDERS = re.compile(r"(?:/[^\s/:]+)+/(?=[^\s/])")


class ServedModel:
    """One model and the reranker that scores with it. ``names`` are other names that requests may use."""

    def __init__(
        self, name: str, opener: Callable[[], Reranker], *, names: Sequence[str] = (), device_timeout: float = 300.0
    ) -> None:
        self.name, self.names = name, tuple(names)
        self.state: State = "loading"
        self.reranker: Reranker | None = None
        self.on_batch: Callable[[BatchReport], None] | None = None
        self.progress = ""
        """The last message that was logged while it opened."""
        self.since = time.monotonic()
        self.created = int(time.time())
        self._opener, self._device_timeout = opener, device_timeout
        self._suspected = asyncio.Event()
        self._busy_seconds = self._tokens = 0.0

    @property
    def tokens_per_second(self) -> float:
        """What the device has done lately, or 0 as long as it has done nothing."""
        return self._tokens / self._busy_seconds if self._busy_seconds else 0.0

    def ready(self) -> Reranker:
        """The open reranker. Raises Refusal as long as there is none."""
        if self.state != "ready" or self.reranker is None:
            raise Refusal("not_ready", f"the model '{self.name}' is {self.state}", retry_after=2)
        return self.reranker

    def suspect(self) -> None:
        """The device has failed on a batch: see whether it is fit for others."""
        self._suspected.set()

    async def supervise(self) -> None:
        """Open the model, and keep it open. Returns only by an error, after which this process cannot serve the model."""
        try:
            self._become("loading")
            await self._open()
            while True:
                self._suspected.clear()
                reason = await self._trouble()
                if reason:
                    logger.warning("the model '%s' is opened again: %s", self.name, reason)
                    self._become("recovering")
                    await self._reopen()
        except Exception:
            self._become("failed")
            raise

    async def close(self) -> None:
        """Close the reranker; one that does not close in time is left to the end of the process."""
        await self._closed()

    def _become(self, state: State) -> None:
        self.state, self.since = state, time.monotonic()

    async def _open(self, seconds: float | None = None) -> None:
        """Open the model and score a pair, which may take ``seconds``. A reranker that cannot is left to be closed."""

        def opened() -> Reranker:
            handler = _LatestMessage(self)
            logging.getLogger("zoo").addHandler(handler)
            try:
                return self._opener()
            finally:
                logging.getLogger("zoo").removeHandler(handler)

        self.reranker = await in_daemon_thread(opened)
        await _score_a_pair(self.reranker, seconds)
        self.reranker.on_batch(self._batch)
        self.progress = ""
        self._become("ready")

    async def _trouble(self) -> str:
        """Wait until the device is suspected or silent; why it is not fit, or nothing if it is."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._suspected.wait(), LOOK_EVERY)
        assert self.reranker is not None
        silent = self.reranker.silent_seconds
        if silent > self._device_timeout:
            return f"the device has given no result for {silent:.0f} s"
        if not self._suspected.is_set():
            return ""
        try:
            await _score_a_pair(self.reranker, self._device_timeout)
        except Exception as error:
            return f"it cannot score a pair: {error}"
        return ""

    async def _reopen(self) -> None:
        for attempt, pause in enumerate(REOPENING, start=1):
            if not await self._closed():  # the device may have room for one model
                raise ZooError(
                    f"the device of '{self.name}' hangs and does not release the model; this process has to end"
                )
            await asyncio.sleep(pause)
            try:
                await self._open(self._device_timeout)
            except Exception as error:
                logger.warning("opening '%s' again failed (%d of %d): %s", self.name, attempt, len(REOPENING), error)
                last = error
            else:
                return
        raise ZooError(f"the model '{self.name}' cannot be opened again: {last}")

    async def _closed(self) -> bool:
        """Close the reranker, if there is one; whether that was done in time."""
        reranker, self.reranker = self.reranker, None
        if reranker is None:
            return True
        try:
            await asyncio.wait_for(in_daemon_thread(reranker.close), CLOSING_SECONDS)
        except asyncio.TimeoutError:
            return False
        except Exception as error:
            logger.warning("closing '%s': %s", self.name, error)
        return True

    def _batch(self, report: BatchReport) -> None:
        keep = 0.98  # the last fifty batches or so
        self._tokens = keep * self._tokens + report.tokens
        self._busy_seconds = keep * self._busy_seconds + report.seconds
        if self.on_batch is not None:
            self.on_batch(report)


async def _score_a_pair(reranker: Reranker, seconds: float | None) -> None:
    """Raises what hinders it, ZooError if it takes longer than ``seconds`` (None: no limit)."""
    handle = reranker.submit([WARM_UP])
    try:
        await in_daemon_thread(lambda: handle.result(seconds))
    except futures.TimeoutError as error:  # not left to the queue's own deadlines: a device that blocks it blocks them
        handle.cancel()
        raise ZooError(f"a pair was not scored within {seconds:g} s") from error


class _LatestMessage(logging.Handler):
    """Keeps what the thread that opens a model logs, for whoever asks how far it is. Folders of this machine are left out."""

    def __init__(self, model: ServedModel) -> None:
        import threading

        super().__init__(logging.INFO)
        self._model, self._thread = model, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._model.progress = FOLDERS.sub("", record.getMessage())


class Models:
    """All served models. The first is that of requests that name none."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.all = list(models)
        self._by_name: dict[str, ServedModel] = {}
        for model in reversed(self.all):  # the first wins
            self._by_name.update({name.casefold(): model for name in (*model.names, model.name)})

    def named(self, name: str | None) -> ServedModel:
        """The model that a request names. Raises Refusal."""
        wanted = (name or "").strip().casefold()
        if wanted in UNNAMED and wanted not in self._by_name:
            return self.all[0]
        found = self._by_name.get(wanted)
        if found is None:
            known = ", ".join(model.name for model in self.all)
            raise Refusal(
                "unknown_model", f"the model '{(name or '')[:100]}' is not served here. Served: {known}", param="model"
            )
        return found

    @property
    def ready(self) -> bool:
        """Whether all can score."""
        return all(model.state == "ready" for model in self.all)
