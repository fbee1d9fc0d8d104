"""The cards as ``teco-smi`` lists them.

Its output is a table for people, and no form for programs is documented. Published samples (TCML 1.10, TECO-SMI 1.12 and 1.15) agree on
``| index name | bus id | health ...`` with memory on the next line, and differ in what a row is: a whole card, or one SPA of a card, in
which case the rows of a card share its bus id. So rows are read by what they contain, not by their columns, and grouped by bus id.
Only SPE-Util is read by its place, on the line and in the cell that the header gives it: ``N/A`` there means that the card has dropped
out (Tecorigin's list of frequent questions), and means nothing elsewhere.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from zoo.api import ZooError

PROGRAM = "teco-smi"
SECONDS = 15.0
"""A driver that hangs must not hang ``zoo devices``."""

_INDEX = re.compile(r"^\W*(?:(?:card|device|index|id)\W+(\d+)\b|(\d+)\b(?![.:-]))", re.IGNORECASE)
_BUS = re.compile(r"\b[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]\b", re.IGNORECASE)
_NAMED_UTILISATION = re.compile(r"\bSPE-?Util\W+(N/A)", re.IGNORECASE)
_HEALTH = re.compile(r"\bhealth\W+(\w[\w/]*)|\b(ok)\b", re.IGNORECASE)
_MEMORY = re.compile(r"(\d+(?:\.\d+)?\s*[kmgt]?i?b)\s*/\s*(\d+(?:\.\d+)?\s*[kmgt]?i?b)", re.IGNORECASE)
_VERSION = re.compile(r"\b(?:sdaa)?\s*(driver|runtime)(?:\s+version)?\s*[:=]\s*([\w.+-]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One line of the table: what the runtime counts as a device (``index``)."""

    index: int
    bus: str
    health: str
    """``OK``, or for example ``DEVICE_LOST`` or ``HEARTBEAT_ERROR``."""
    memory: str = ""
    dropped: bool = False
    """SPE-Util is N/A."""

    @property
    def fault(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.health.upper() != "OK":
            return self.health
        return "SPE-Util N/A (dropped out)" if self.dropped else ""


@dataclass(frozen=True)
class Card:
    """One card; ``number`` is what follows ``sdaa:``. It has a row, or a row for each of its SPAs."""

    number: int
    rows: Sequence[Row]

    @property
    def health(self) -> str:
        """``OK``, or the fault of the first row that has one."""
        return next((row.fault for row in self.rows if row.fault), "OK")

    @property
    def healthy(self) -> bool:
        return self.health == "OK"

    @property
    def devices(self) -> str:
        """The card's indices as SDAA_VISIBLE_DEVICES takes them."""
        return ",".join(str(row.index) for row in self.rows)


@dataclass(frozen=True)
class Listing:
    """What ``teco-smi`` printed, as far as it was understood. ``versions`` has ``driver`` and ``runtime`` if they were printed."""

    cards: Sequence[Card]
    versions: Mapping[str, str]

    @property
    def rows_are_spas(self) -> bool:
        """Whether a row is one SPA, so that the SPAs of a card are known; otherwise a row is a card, and they are not."""
        return any(len(card.rows) > 1 for card in self.cards)

    @property
    def health(self) -> str:
        """``OK`` if all cards are, else each card's own: ``0:OK 1:DEVICE_LOST``."""
        if all(card.healthy for card in self.cards):
            return "OK"
        return " ".join(f"{card.number}:{card.health}" for card in self.cards)


def list_cards() -> Listing:
    """Run ``teco-smi``. Raises ZooError if it is missing, fails, hangs, or prints nothing that can be read as a card."""
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
    """The cards in ``teco-smi``'s output; none if nothing looks like a card."""
    table = text.split("Processes:")[0]
    utilisation = _utilisation_column(table)
    rows: list[Row] = []
    second_line = False
    """Whether this line goes on with the row of the line before."""
    for line in table.splitlines():
        memory = _MEMORY.search(line)
        found = _row(line, memory)
        if found:
            rows.append(replace(found, dropped=utilisation.is_missing(line, second_line=False)))
        elif rows and (second_line or memory):
            last = rows[-1]
            dropped = last.dropped or utilisation.is_missing(line, second_line=True)
            rows[-1] = replace(last, memory=last.memory or (_amount(memory) if memory else ""), dropped=dropped)
        second_line = found is not None
    versions = {name.lower(): version for name, version in _VERSION.findall(table)}
    return Listing(_by_bus(rows), versions)


@dataclass(frozen=True)
class UtilisationColumn:
    """Where SPE-Util stands: on the first or the second line of a row, and in which cell; None if no header tells."""

    on_second_line: bool = False
    cell: int | None = None

    def is_missing(self, line: str, *, second_line: bool) -> bool:
        """Whether ``line`` says N/A there."""
        if self.cell is None:
            return bool(_NAMED_UTILISATION.search(line))
        cells = _cells(line)
        if second_line != self.on_second_line or self.cell >= len(cells):
            return False
        return cells[self.cell].split()[-1:] in (["N/A"], ["n/a"])


def _utilisation_column(table: str) -> UtilisationColumn:
    for line in table.splitlines():
        for number, cell in enumerate(_cells(line)):
            if "|" in line and re.search("SPE-?Util", cell, re.IGNORECASE) and not _row(line, None):
                return UtilisationColumn(not re.search("Health|Index|Bus", line, re.IGNORECASE), number)
    return UtilisationColumn()


def _cells(line: str) -> list[str]:
    return line.strip().strip("|").split("|")


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
    number = int(index.group(1) or index.group(2))
    return Row(number, bus.group() if bus else "", health, _amount(memory) if memory else "")


def _amount(memory: re.Match[str]) -> str:
    return f"{memory.group(1)} of {memory.group(2)}"


def _by_bus(rows: Sequence[Row]) -> list[Card]:
    """Rows that share a bus id are the SPAs of one card; a row without one is a card of its own."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.bus or f"row {row.index}", []).append(row)
    return [Card(number, group) for number, group in enumerate(groups.values())]
