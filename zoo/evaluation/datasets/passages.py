"""The passages that candidates name, out of a corpus of any size.

The corpus is read once from its first to its last line; of the passages that are wanted only the place is kept, and
their text is read again when it is scored. A corpus of gigabytes so costs some tens of bytes a passage.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import msgspec

from zoo.errors import InputError
from zoo.evaluation.datasets.lines import Line, Lines, decode_line


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
Decode = Callable[[bytes], Document]


class Place(NamedTuple):
    """Where a line stands, in bytes, and its number."""

    number: int
    offset: int
    size: int


class Passages(Mapping[str, str]):
    """Passage texts by id, read from the disk each time they are asked for. Safe to use from several threads."""

    def __init__(
        self, lines: Lines, file: IO[bytes], places: Mapping[str, Place], decode: Decode, example: str
    ) -> None:
        self._lines, self._file, self._places = lines, file, places
        self._decode, self._example = decode, example
        weakref.finalize(self, file.close)

    def __getitem__(self, passage: str) -> str:
        place = self._places[passage]
        raw = os.pread(self._file.fileno(), place.size, place.offset)
        line = Line(place.number, place.offset, raw)
        document = decode_line(self._lines, line, self._decode, self._example)
        if document.key != passage:
            raise InputError(self._lines.path, place.number, f"held the passage '{passage}' and was changed meanwhile")
        return document.passage

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def read_corpus(path: Path, form: type[Document], wanted: Collection[str]) -> tuple[Passages, str]:
    """The wanted passages of a corpus, and the corpus' sha256. Raises InputError at the first faulty line.

    A passage that is wanted and not there is simply not in the result; a passage that is there twice is an error.
    """
    lines, hashes = Lines(path), array("Q")
    places: dict[str, Place] = {}
    decode: Decode = msgspec.json.Decoder(form).decode
    example = EXAMPLES[form]
    # gzip cannot be read from the middle: what is wanted of it is kept aside
    file: IO[bytes] = tempfile.TemporaryFile(prefix="zoo-passages-") if lines.packed else path.open("rb")  # noqa: SIM115
    passages = Passages(lines, file, places, decode, example)  # which closes the file when it is gone
    for line in lines:
        document = decode_line(lines, line, decode, example)
        hashes.append(hash(document.key) & 0xFFFFFFFFFFFFFFFF)
        if document.key in wanted:
            offset = line.offset
            if lines.packed:
                offset = file.tell()
                file.write(line.raw)
            places.setdefault(document.key, Place(line.number, offset, len(line.raw)))
    if not hashes:
        raise InputError(path, None, f"is empty. A line reads {example}")
    _refuse_duplicates(lines, hashes, decode, example)
    if lines.packed:
        file.flush()
    return passages, lines.sha256


def _refuse_duplicates(lines: Lines, hashes: array[int], decode: Decode, example: str) -> None:
    """Eight bytes a passage find that one may be there twice; only then are the lines looked at again."""
    import numpy as np

    ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
    twice = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not twice:
        return
    first: dict[str, int] = {}
    for line in lines:
        key = decode_line(lines, line, decode, example).key
        if hash(key) & 0xFFFFFFFFFFFFFFFF in twice:
            if key in first:
                raise InputError(
                    lines.path,
                    line.number,
                    f"the passage id '{key}' is already on line {first[key]}. Every passage needs an id of its own",
                )
            first[key] = line.number
