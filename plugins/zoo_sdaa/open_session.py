"""From an artifact to a session: a process for each chosen card, and in it an engine."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from zoo.api import Artifact, ChildSettings, Processes, Session, SessionOptions, ZooError, environment
from zoo_sdaa.choose_cards import ChosenCard, choose_cards
from zoo_sdaa.engine_shapes import rows_asked
from zoo_sdaa.load_engine import load_engine
from zoo_sdaa.options import SdaaOptions, parse
from zoo_sdaa.session import CLOSING, RuntimeThread, SdaaSession

logger = logging.getLogger("zoo.sdaa")

HINT = ". Look at its health with teco-smi"
SLOW_HINT = "; if a batch may take longer, raise the device option timeout"
ENDING = 3.0
"""Seconds that a card's process may take to end after its session has given up waiting for a batch."""


def open_session(artifact: Artifact, options: SessionOptions) -> Session:
    """An engine on each chosen card, scored data-parallel. Raises ZooError naming the card that cannot be used."""
    chosen = parse(options)
    cards = choose_cards(chosen.cards, spa=chosen.spa)
    if cards[0].passed_over:
        logger.warning("%s is used: cards before it are not healthy: %s", cards[0].name, cards[0].passed_over)
    if not chosen.synchronous:
        _check_equal(cards)
    session: Session
    if chosen.own_process:
        # The first card compiles and fills the cache; the others find the engine there.
        children = [_child(card, artifact, options, chosen, first=not number) for number, card in enumerate(cards)]
        session = Processes.opened(children, one_first=True)
    else:
        session = _open_here(cards, artifact, options)
    _report_rows(session.shape_rule.rows or 0, 1 if chosen.synchronous else cards[0].engines, options)
    return session


def open_card(name: str, artifact: Artifact, options: SessionOptions) -> SdaaSession:
    """The session on the card that this process sees. ``name`` is how messages call the card. Raises ZooError."""
    thread = RuntimeThread(name)
    loading = thread.submit(lambda: load_engine(artifact, options, parse(options)))
    try:
        context, shapes = loading.result()
    except ZooError as error:
        thread.stop()
        raise ZooError(f"{name}: {error}") from error
    except BaseException:
        # An interrupted compilation runs on; the context that it makes in the end is released.
        loading.add_done_callback(_release_result)
        thread.stop()
        raise
    return SdaaSession(name, thread, context, shapes)


def _release_result(loading: Future[Any]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result()[0].release()


def _child(
    card: ChosenCard, artifact: Artifact, options: SessionOptions, chosen: SdaaOptions, *, first: bool
) -> ChildSettings:
    extra = {name: value for name, value in options.extra.items() if name != "card_id"}
    if not first:
        extra.pop("save_engine", None)
    return ChildSettings(
        name=card.name,
        opener=functools.partial(open_card, card.name),
        artifact=artifact,
        options=replace(options, selector="", extra=extra),
        environment=card.environment,
        hint=HINT,
        slow_hint=SLOW_HINT,
        closing_seconds=CLOSING + ENDING,
        answer_seconds=chosen.timeout,
    )


def _open_here(cards: Sequence[ChosenCard], artifact: Artifact, options: SessionOptions) -> SdaaSession:
    if len(cards) > 1:
        raise ZooError("the device option process=no takes one card: several need a process each")
    with ExitStack() as stack:
        stack.enter_context(environment(cards[0].environment))
        session = open_card(cards[0].name, artifact, options)
        session.on_close = stack.pop_all().close
    return session


def _check_equal(cards: Sequence[ChosenCard]) -> None:
    """Cards that share the work need engines of one shape. Raises ZooError before anything is compiled."""
    if len({card.engines for card in cards}) > 1:
        counts = ", ".join(f"{card.name} has {card.engines}" for card in cards)
        raise ZooError(f"the chosen cards do not have the same number of SPAs ({counts}): choose cards of one kind")


def _report_rows(rows: int, engines: int, options: SessionOptions) -> None:
    if rows != rows_asked(options):
        logger.info(
            "sdaa: batches of %d rows (%d SPAs x %d), where `batch_size` is %d; missing rows are filled and are not counted",
            rows, engines, rows // engines, rows_asked(options),
        )  # fmt: skip
