"""The cards as ``teco-smi`` lists them.

Its output is a table for people, and no form for programs is documented. Published samples (TCML 1.10, TECO-SMI 1.12 and 1.15) agree on
``| index name | bus id | health ...`` with memory on the next line, and differ in what a row is: a whole card, or one SPA of a card, in
which case the rows of a card share its bus id. So rows are read by what they contain, not by their columns, and grouped by bus id.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zoo.api import ZooError

PROGRAM = "teco-smi"
SECONDS = 15.0
"""A driver that hangs must not hang ``zoo devices``."""

_INDEX = re.compile(r"^\W*(?:(?:card|device|index|id)\W+(\d+)\b|(\d+)\b(?![.:-]))", re.IGNORECASE)
_BUS = re.compile(r"\b[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]\b", re.IGNORECASE)
_HEALTH = re.compile(r"\bhealth\W+(\w[\w/]*)|\b(ok)\b", re.IGNORECASE)
_MEMORY = re.compile(r"(\d+(?:\.\d+)?\s*[kmgt]?i?b)\s*/\s*(\d+(?:\.\d+)?\s*[kmgt]?i?b)", re.IGNORECASE)
_VERSION = re.compile(r"\b(?:sdaa)?\s*(driver|runtime)(?:\s+version)?\s*[:=]\s*([\w.+-]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One line of the table: what the runtime counts as a device (``index``)."""

    index: int
    bus: str
    health: str
    memory: str


@dataclass(frozen=True)
class Card:
    """One card; ``number`` is what follows ``sdaa:``. It has a row, or a row for each of its SPAs."""

    number: int
    rows: Sequence[Row]

    @property
    def health(self) -> str:
        """``OK``, or what the first row that is not says."""
        return next((row.health for row in self.rows if row.health.upper() != "OK"), "OK")

    @property
    def healthy(self) -> bool:
        return self.health == "OK"

    @property
    def devices(self) -> str:
        """The card's indices as SDAA_VISIBLE_DEVICES takes them."""
        return ",".join(str(row.index) for row in self.rows)


@dataclass(frozen=True)
class Listing:
    """What ``teco-smi`` printed, as far as it was understood. ``versions`` has ``driver`` and ``runtime`` where they were."""

    cards: Sequence[Card]
    versions: Mapping[str, str]
    text: str


def list_cards() -> Listing:
    """Run ``teco-smi``. Raises ZooError where it is missing, fails, hangs, or prints nothing that can be read as a card."""
    if shutil.which(PROGRAM) is None:
        raise ZooError(f"'{PROGRAM}' is not on the PATH, so no card can be seen")
    try:
        done = subprocess.run([PROGRAM], capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ZooError(f"'{PROGRAM}' did not answer within {SECONDS:.0f} s; the driver may hang") from error
    except OSError as error:
        raise ZooError(f"'{PROGRAM}' cannot be run: {error.strerror}") from error
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        said = (done.stderr.decode("utf-8", "replace").strip() or text.strip() or "nothing").splitlines()[0]
        raise ZooError(f"'{PROGRAM}' failed with exit code {done.returncode}: {said}")
    listing = parse(text)
    if not listing.cards:
        raise ZooError(f"'{PROGRAM}' lists no card that can be read in its output")
    return listing


def parse(text: str) -> Listing:
    """The cards in ``teco-smi``'s output; none where nothing looks like a card."""
    table = text.split("Processes:")[0]
    rows: list[Row] = []
    for line in table.splitlines():
        memory = _MEMORY.search(line)
        found = _row(line, memory)
        if found:
            rows.append(found)
        elif memory and rows and not rows[-1].memory:
            last = rows.pop()
            rows.append(Row(last.index, last.bus, last.health, _amount(memory)))
    versions = {name.lower(): version for name, version in _VERSION.findall(table)}
    return Listing(_by_bus(rows), versions, text)


def _row(line: str, memory: re.Match[str] | None) -> Row | None:
    index = _INDEX.match(line)
    if not index:
        return None
    rest = line[index.end() :]
    bus = _BUS.search(rest)
    if bus:
        words = rest[bus.end() :].replace("|", " ").split()
        health = words[0] if words else "unknown"
    else:
        named = _HEALTH.search(rest)
        if not named:
            return None
        health = named.group(1) or named.group(2)
    return Row(
        int(index.group(1) or index.group(2)), bus.group() if bus else "", health, _amount(memory) if memory else ""
    )


def _amount(memory: re.Match[str]) -> str:
    return f"{memory.group(1)} of {memory.group(2)}"


def _by_bus(rows: Sequence[Row]) -> list[Card]:
    """Rows that share a bus id are the SPAs of one card; a row without one is a card of its own."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.bus or f"row {row.index}", []).append(row)
    return [Card(number, group) for number, group in enumerate(groups.values())]
