"""A session on a cluster: batches that the driver makes are computed by actors. For ``--mode valid --cluster``."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np

from zoo.errors import ClosedError, DeviceError, ZooError
from zoo.evaluation.rerank import scores_identity
from zoo.ray.cluster import Cluster, Placement
from zoo.ray.files import described, with_zoo_errors
from zoo.ray.imports import import_ray
from zoo.ray.worker import Description, Inference, Opening, check_same
from zoo.registry.catalogue import Catalogue
from zoo.reranker import Reranker
from zoo.settings import RunSettings
from zoo.types import Tensors

logger = logging.getLogger(__name__)


def open_remote(cluster: Cluster, settings: RunSettings, catalogue: Catalogue) -> Reranker:
    """The model with its tokenizer on the driver and its sessions on ``cluster``. Raises ZooError if the nodes open another one."""
    opening, found = described(cluster, settings.batch_size)
    here = replace(settings, target=opening.settings.target, workers=1)
    reranker = Reranker.from_settings(
        here, catalogue, remote=lambda prepared, artifact: ClusterSession(opening, found, cluster.placement)
    )
    try:
        check_same(found.identity, scores_identity(reranker, settings.batch_size))
    except BaseException:
        reranker.close()
        raise
    return reranker


class ClusterSession:
    """Actors as one session: each batch goes to the one with the least to do, and to another if that one's node is lost."""

    device_seconds = None

    def __init__(self, opening: Opening, found: Description, placement: Placement) -> None:
        self._ray = import_ray()
        self._lock, self._closed = Lock(), False
        self.input_names = found.input_names
        self.shape_rule = replace(found.rule, parallel_batches=found.rule.parallel_batches * placement.actors)
        at_once = found.rule.parallel_batches + 1
        kind = self._ray.remote(Inference).options(max_restarts=0, max_concurrency=at_once, **placement.ray_options)
        self._busy: dict[Any, int] = {kind.remote(opening): 0 for _ in range(placement.actors)}
        try:
            for actor in [*self._busy]:
                self._wait_for(actor)
        except BaseException:
            self.close()
            raise

    def _wait_for(self, actor: Any) -> None:
        try:
            with_zoo_errors(lambda: self._ray.get(actor.ready.remote()))
        except ZooError as error:
            if not isinstance(error.__cause__, self._ray.exceptions.ActorUnavailableError):
                raise
            self._drop(actor)

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        future: Future[Tensors] = Future()
        self._send(future, dict(inputs), None if outputs is None else list(outputs))
        return future

    def _send(self, future: Future[Tensors], inputs: dict[str, Any], outputs: list[str] | None) -> None:
        with self._lock:
            actor = min(self._busy, key=self._busy.__getitem__, default=None)
            if actor is not None:
                self._busy[actor] += 1
        if actor is None:
            fault = ClosedError("this session is closed") if self._closed else DeviceError("every node is lost")
            return _settle(future, fault)
        try:
            reply: Future[Any] = actor.infer.remote(inputs, outputs).future()
        except Exception as error:  # when a batch is sent again, nobody but its future can be told
            self._release(actor)
            return _settle(
                future, DeviceError(f"a batch cannot be sent to the cluster: {type(error).__name__}: {error}")
            )
        reply.add_done_callback(functools.partial(self._land, actor, future, inputs, outputs))
        return None

    def _land(
        self,
        actor: Any,
        future: Future[Tensors],
        inputs: dict[str, Any],
        outputs: list[str] | None,
        reply: Future[Any],
    ) -> None:
        self._release(actor)
        if reply.cancelled():
            return _settle(future, DeviceError("a batch was given up by the cluster"))
        error = reply.exception()
        if isinstance(error, self._ray.exceptions.RayActorError):
            self._drop(actor)
            return self._send(future, inputs, outputs)
        if error is not None:
            return _settle(future, getattr(error, "cause", None) or error)
        # What comes out of the object store is read-only.
        return _settle(future, {name: np.array(array) for name, array in reply.result().items()})

    def _release(self, actor: Any) -> None:
        """A batch of ``actor`` has ended."""
        with self._lock:
            if actor in self._busy:
                self._busy[actor] -= 1

    def _drop(self, actor: Any) -> None:
        with self._lock:
            known = self._busy.pop(actor, None) is not None
            left = len(self._busy)
        if known and not self._closed:
            logger.warning("an actor is lost with its node; %d go on", left)

    def close(self) -> None:
        self._closed = True
        with self._lock:
            actors, self._busy = [*self._busy], {}
        for actor in actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)

    def __enter__(self) -> ClusterSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _settle(future: Future[Tensors], result: Tensors | BaseException) -> None:
    """Give a result or a fault to whoever waits; a future that was cancelled wants neither."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
