"""The passages that candidates name, out of a corpus of any size.

The corpus is read once from its first to its last line; of the passages that are wanted only the place is kept, and
their text is read again when it is scored. A corpus of gigabytes so costs some tens of bytes a passage.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import IO, NamedTuple, Protocol

import msgspec

from zoo.errors import InputError, ZooError
from zoo.evaluation.datasets.lines import Form, Line, Lines
from zoo.files import reason


class Document(Protocol):
    """A corpus line, whatever its keys are called."""

    @property
    def key(self) -> str: ...

    @property
    def passage(self) -> str: ...


class MldrDocument(msgspec.Struct):
    """MLDR as FlagEmbedding saves it."""

    id: str | int
    text: str
    title: str | None = None

    @property
    def key(self) -> str:
        return str(self.id)

    @property
    def passage(self) -> str:
        """Title and text as the reference joins them: a title that is there but empty still strips the text."""
        return self.text if self.title is None else f"{self.title} {self.text}".strip()


class BeirDocument(MldrDocument, rename={"id": "_id"}):
    """BEIR's corpus.jsonl."""

    id: str | int
    text: str
    title: str | None = None


class HubDocument(msgspec.Struct):
    """A line of MLDR's corpus on the hub."""

    docid: str | int
    text: str

    @property
    def key(self) -> str:
        return str(self.docid)

    @property
    def passage(self) -> str:
        return self.text


EXAMPLES: Mapping[type, str] = {
    MldrDocument: '{"id": "...", "text": "..."}',
    BeirDocument: '{"_id": "...", "title": "...", "text": "..."}',
    HubDocument: '{"docid": "...", "text": "..."}',
}


def form_of(document: type[Document]) -> Form[Document]:
    """What a line of a corpus of such documents is."""
    return Form(document, EXAMPLES[document])


class Place(NamedTuple):
    """Where a line stands, in bytes, and its number."""

    number: int
    offset: int
    size: int


class Passages(Mapping[str, str]):
    """Passage texts by id, read from the disk each time they are asked for. Safe to use from several threads."""

    def __init__(self, lines: Lines, file: IO[bytes], places: Mapping[str, Place], form: Form[Document]) -> None:
        self._lines, self._file, self._places, self._form = lines, file, places, form
        self._lock = Lock()
        weakref.finalize(self, file.close)

    def __getitem__(self, passage: str) -> str:
        place = self._places[passage]
        line = Line(place.number, place.offset, self._bytes(place))
        document = self._form.read(self._lines, line, every_key=False)
        if document.key != passage:
            raise InputError(self._lines.path, place.number, f"held the passage '{passage}' and was changed meanwhile")
        return document.passage

    def _bytes(self, place: Place) -> bytes:
        try:
            if hasattr(os, "pread"):
                return os.pread(self._file.fileno(), place.size, place.offset)
            with self._lock:
                self._file.seek(place.offset)
                return self._file.read(place.size)
        except OSError as error:
            raise self._lines.fault(place.number, f"cannot be read: {reason(error)}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def read_corpus(path: Path, document: type[Document], wanted: Collection[str]) -> tuple[Passages, str]:
    """The wanted passages of a corpus, and the corpus' sha256. Raises InputError with every faulty line.

    A passage that is wanted and not there is simply not in the result; a passage that is there twice is an error.
    """
    lines, hashes, form = Lines(path), array("Q"), form_of(document)
    places: dict[str, Place] = {}
    # gzip cannot be read from the middle: what is wanted of it is kept aside
    file: IO[bytes] = tempfile.TemporaryFile(prefix="zoo-passages-") if lines.packed else path.open("rb")  # noqa: SIM115
    passages = Passages(lines, file, places, form)  # which closes the file when it is gone
    for line in lines:
        try:
            key = form.read(lines, line, every_key=False).key
            hashes.append(hash(key) & 0xFFFFFFFFFFFFFFFF)
            if key in wanted:
                form.read(lines, line)
                places.setdefault(key, _kept(file, line) if lines.packed else _place(line, line.offset))
        except InputError as fault:
            lines.faults.add(fault)
    if not hashes and not lines.faults:
        raise lines.fault(None, f"is empty. A line reads {form.example}")
    _find_duplicates(lines, hashes, form)
    lines.faults.refuse()
    if lines.packed:
        file.flush()
    return passages, lines.sha256


def _place(line: Line, offset: int) -> Place:
    return Place(line.number, offset, len(line.raw))


def _kept(file: IO[bytes], line: Line) -> Place:
    place = _place(line, file.tell())
    try:
        file.write(line.raw)
    except OSError as error:
        raise ZooError(
            f"cannot keep passages in {tempfile.gettempdir()}: {reason(error)}. Set TMPDIR to another folder"
        ) from error
    return place


def _find_duplicates(lines: Lines, hashes: array[int], form: Form[Document]) -> None:
    """Eight bytes a passage find that one may be there twice; only then are the lines looked at again."""
    import numpy as np

    ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
    twice = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not twice or lines.faults:
        return
    first: dict[str, int] = {}
    for line in lines:
        key = form.read(lines, line, every_key=False).key
        if hash(key) & 0xFFFFFFFFFFFFFFFF in twice:
            if key in first:
                problem = (
                    f"the passage id '{key}' is already on line {first[key]}. Every passage needs an id of its own"
                )
                lines.faults.add(lines.fault(line, problem))
            first.setdefault(key, line.number)
