"""Chosen cards, scored data-parallel: a process and an engine a card.

No published call of TecoInference names the card an engine is made on; the runtime takes what ``SDAA_VISIBLE_DEVICES`` shows it when it
is loaded (the vendor's documents choose cards this way for all their frameworks). So each chosen card gets a process of its own. That also
means that a driver that takes its process down takes one card down and not the run's results.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from zoo.api import Artifact, SessionOptions, ShapeRule, Tensors, ZooError
from zoo_sdaa.cards import Card, list_cards
from zoo_sdaa.options import ENGINES_VARIABLE, SdaaOptions
from zoo_sdaa.session import CLOSING, settle

logger = logging.getLogger("zoo.sdaa")

VISIBLE = "SDAA_VISIBLE_DEVICES"


def open_cards(artifact: Artifact, options: SessionOptions, chosen: SdaaOptions) -> Crew:
    """An engine on each chosen card. Raises ZooError naming the card that cannot be used."""
    cards = choose(chosen.cards)
    plain = replace(
        options, selector="", extra={name: value for name, value in options.extra.items() if name != "card_id"}
    )
    members: list[Member] = []
    try:
        # The first card compiles and fills the cache; the others find the engine there.
        members.append(Member(cards[0], artifact, plain))
        members[0].wait()
        others = replace(plain, extra={name: value for name, value in plain.extra.items() if name != "save_engine"})
        members += [Member(card, artifact, others) for card in cards[1:]]
        for member in members[1:]:
            member.wait()
        return Crew(members)
    except BaseException:
        _close(members)
        raise


def choose(numbers: str) -> list[Card]:
    """The cards ``all`` or ``0,2`` name. Raises ZooError for one that is absent or not healthy."""
    if VISIBLE in os.environ:
        raise ZooError(
            f"cards are chosen by the environment variable {VISIBLE} (it is '{os.environ[VISIBLE]}') or by --target, not by both: "
            "unset the one, or use --target sdaa"
        )
    present = {card.number: card for card in list_cards().cards}
    wanted = sorted(present) if numbers == "all" else [int(number) for number in numbers.split(",")]
    for number in wanted:
        if number not in present:
            raise ZooError(f"there is no card sdaa:{number}; teco-smi lists {', '.join(map(str, sorted(present)))}")
        if not present[number].healthy:
            raise ZooError(f"the card sdaa:{number} is not healthy: teco-smi says '{present[number].health}'")
    return [present[number] for number in wanted]


class Member:
    """One card's process, and what it has been given to do."""

    def __init__(self, card: Card, artifact: Artifact, options: SessionOptions) -> None:
        self.name = f"sdaa:{card.number}"
        self.open: dict[int, Future[Any]] = {}
        self.fault: ZooError | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        _, self._opened = self._register()
        self._process, self._connection = _start(card)
        self._reader = threading.Thread(target=self._read, name=f"zoo-{self.name}", daemon=True)
        self._reader.start()
        self._send(("open", self.name, artifact, options, logging.getLogger("zoo").level))

    def wait(self) -> None:
        """Until the engine is ready. Raises ZooError."""
        self.input_names, self.shape_rule = self._opened.result()

    def submit(self, inputs: Tensors) -> Future[Any]:
        return self._ask("batch", dict(inputs))

    def device_seconds(self) -> float | None:
        seconds: float | None = self._ask("clock", None).result()
        return seconds

    def close(self) -> None:
        """Ask the process to release its card and end; one that does not is killed."""
        if not self._opened.done():
            self._process.kill()  # it compiles, for minutes perhaps; nothing is held yet, and what it keeps it keeps whole
        self._send(("close",))
        try:
            self._process.wait(CLOSING)
        except subprocess.TimeoutExpired:
            logger.warning("%s did not end and is killed: its context and engine are not released", self.name)
            self._process.kill()
            self._process.wait()
        self._reader.join(CLOSING)
        self._connection.close()

    def _ask(self, what: str, content: Any) -> Future[Any]:
        number, future = self._register()
        self._send((what, number, content))
        return future

    def _register(self) -> tuple[int, Future[Any]]:
        """A number for a question, and the future of its answer; opening is question 0."""
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            if self.fault is None:
                self.open[number] = future
            else:
                future.set_exception(self.fault)
        return number, future

    def _send(self, message: tuple[Any, ...]) -> None:
        try:
            self._connection.send(message)
        except OSError:
            logger.debug("%s: the reader says why it cannot be reached", self.name)

    def _read(self) -> None:
        """Settle futures as answers come. The end of the line is the end of the card, and of all that waits for it."""
        while True:
            try:
                number, result, fault = self._connection.recv()
            except (EOFError, OSError):
                break
            with self._lock:
                future = self.open.pop(number)
            settle(future, result=result, error=None if fault is None else ZooError(fault))
        code = self._process.wait()
        with self._lock:
            self.fault = ZooError(
                f"{self.name} is lost: its process ended ({_ending(code)}). Look at its health with teco-smi"
            )
            waiting = list(self.open.values())
            self.open.clear()
        for future in waiting:
            settle(future, error=self.fault)


class Crew:
    """Several cards as one session: each batch goes to the card with the least to do."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        rules = {member.name: member.shape_rule for member in members}
        if len(set(rules.values())) > 1:
            said = ", ".join(f"{name} takes {rule.rows} rows" for name, rule in rules.items())
            raise ZooError(f"the chosen cards do not take the same batches ({said}): choose cards of one kind")
        self._closed = False
        self.input_names: Sequence[str] = members[0].input_names
        self.shape_rule: ShapeRule = replace(members[0].shape_rule, parallel_batches=len(members))

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        if self._closed:
            raise ZooError("this session is closed")
        return min(self._members, key=lambda member: len(member.open)).submit(inputs)

    @property
    def device_seconds(self) -> float | None:
        """The busiest card's device time; None where the runtime has no counter."""
        if self._closed:
            return None
        try:
            seconds = [member.device_seconds() for member in self._members]
        except ZooError as error:
            logger.warning("the device time is not known: %s", error)
            return None
        return max((each for each in seconds if each is not None), default=None)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            _close(self._members)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _close(members: Sequence[Member]) -> None:
    for member in members:
        member.close()


def _start(card: Card) -> tuple[subprocess.Popen[bytes], Connection]:
    """A process that sees this card alone. What its runtime prints goes to stderr."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "zoo_sdaa.worker", str(theirs.fileno())],
            env=_environment(card),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,  # Ctrl-C is the run's to hear: it decides when a card is released
        )
    return process, Connection(ours.detach())


def _environment(card: Card) -> Mapping[str, str]:
    environment = {**os.environ, VISIBLE: card.devices, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if len(card.rows) > 1:
        # Where teco-smi lists SPAs, their number is known: 3 or 4.
        environment.setdefault(ENGINES_VARIABLE, str(len(card.rows)))
    return environment


def _ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
