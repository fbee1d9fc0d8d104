"""Sessions in child processes as one session: each batch goes to the process that has the fewest.

Workers on a CPU are each bound to a share of the CPUs, so that on a machine of many cores, or of several memory banks, none of them
disturbs another. A device whose runtime prints, crashes or sees one card a process opens its sessions here as well.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

from zoo.cpus import usable_threads
from zoo.errors import ZooError
from zoo.scoring.session_process import ChildSettings, Opener, SessionProcess
from zoo.types import Artifact, Session, SessionOptions, ShapeRule, Tensors


def open_on(device: str, artifact: Artifact, options: SessionOptions) -> Session:
    """The session of an installed device, by name."""
    from zoo.registry.catalogue import Catalogue

    return Catalogue.installed().device(device).open(artifact, options)


class Processes:
    """Several session processes as one session: each batch goes to the one with the least to do."""

    def __init__(self, children: Sequence[SessionProcess]) -> None:
        self._children = children
        self.input_names = children[0].input_names
        rule = _common_rule([(child.name, child.shape_rule) for child in children])
        self.shape_rule = replace(rule, parallel_batches=rule.parallel_batches * len(children))
        self._closed = False

    @classmethod
    def opened(cls, settings: Sequence[ChildSettings], *, one_first: bool = False) -> Processes:
        """All of them, opened at the same time; ``one_first`` lets the first finish before the others begin.

        Raises ZooError, and leaves no process behind, if one cannot be opened.
        """
        children: list[SessionProcess] = []
        try:
            for number, each in enumerate(settings):
                children.append(SessionProcess(each))
                if one_first and not number:
                    children[0].wait_until_open()
            for child in children:
                child.wait_until_open()
            return cls(children)
        except BaseException:
            _end(children)
            raise

    @classmethod
    def workers(cls, opener: Opener, artifact: Artifact, options: SessionOptions, count: int) -> Processes:
        """``count`` workers on shares of this process's threads and CPUs. Raises ZooError if there are fewer threads than workers."""
        threads = options.threads or usable_threads()
        if count > threads:
            raise ZooError(
                f"{count} workers need a thread each, and this process may use {threads}: use fewer `workers`"
            )
        share = replace(options, threads=threads // count)
        return cls.opened(
            [
                ChildSettings(
                    name=f"worker {number + 1} of {count}", opener=opener, artifact=artifact, options=share, cpus=cpus
                )
                for number, cpus in enumerate(shares(count))
            ]
        )

    @property
    def device_seconds(self) -> float | None:
        """The busiest process's device time; None if none has a counter."""
        if self._closed:
            return None
        seconds = [child.device_seconds for child in self._children]
        return max((each for each in seconds if each is not None), default=None)

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        """Start a batch in the process that has the fewest; see ``zoo.api.Session``. Raises ZooError if that has died."""
        return min(self._children, key=lambda child: child.busy).submit(inputs, outputs)

    def close(self) -> None:
        """End all processes, at the same time. May be called twice."""
        self._closed = True
        _end(self._children)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _common_rule(by_name: Sequence[tuple[str, ShapeRule]]) -> ShapeRule:
    """What every session takes: the smallest of their token budgets, for cards differ in free memory.

    Raises ZooError if they differ in anything else.
    """
    rules = [rule for _, rule in by_name]
    tokens = [rule.tokens for rule in rules if rule.tokens is not None]
    common = replace(rules[0], tokens=min(tokens, default=None))
    if any(replace(rule, tokens=common.tokens) != common for rule in rules):
        said = ", ".join(f"{name}: {rule.rows} rows" for name, rule in by_name)
        raise ZooError(f"the sessions do not take the same batches ({said}): choose devices of one kind")
    return common


def _end(children: Sequence[SessionProcess]) -> None:
    for child in children:
        child.stop()
    for child in children:
        child.wait()


def shares(count: int) -> list[list[int]]:
    """The CPUs this process may use, dealt to ``count`` workers in runs of neighbours; empty lists if the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(count)]
    cpus = sorted(os.sched_getaffinity(0))
    bounds = [len(cpus) * number // count for number in range(count + 1)]
    return [cpus[start:end] for start, end in itertools.pairwise(bounds)]
