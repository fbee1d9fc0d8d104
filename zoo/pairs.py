"""[query, passage] pairs as users write them: Python literals, JSON lines, or two tab-separated columns."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from zoo.errors import Faults, InputError
from zoo.files import reason
from zoo.streams import as_file, kept, numbered_lines
from zoo.strict_json import RepeatedKeyError, keys_once
from zoo.types import Pair

FORMS = (
    """one of: [['query', 'passage']]  ["query", "passage"]  {"query": "...", "passage": "..."}  query<TAB>passage"""
)

KEYS = (("query", "passage"), ("sentence1", "sentence2"), ("text1", "text2"))
"""Keys of a pair in JSON. The others are those of MRPC, which Tecorigin's page of bge-reranker-large evaluates on."""

READ_AT_ONCE = 1 << 20
"""Bytes. Python's own 8 KB take half as long again for lines of 26 KB."""


class Record(NamedTuple):
    """One input line: usually a pair, but Tecorigin's form allows several in a line."""

    line: int
    pairs: list[Pair]


class PairSource:
    """Pairs from a file, or from a stream that is kept on disk so that it can be read twice.

    A context manager. Iterating parses; nothing is held in memory, so an input of any size can be checked first and scored afterwards.
    """

    def __init__(self, source: Path | BinaryIO) -> None:
        self._source, self._stack = source, ExitStack()
        self.name = str(source) if isinstance(source, Path) else "<stdin>"
        self._path = self._stack.enter_context(as_file(source) if isinstance(source, Path) else kept(source, self.name))

    def __enter__(self) -> PairSource:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[Record]:
        for number, text in self._lines():
            yield Record(number, self._parse(text, number))

    def check(self) -> int:
        """How many records the source holds. Raises InputError with every malformed line, or if there is no record at all."""
        records, faults = 0, Faults()
        for number, text in self._lines(faults):
            records += 1
            try:
                self._parse(text, number)
            except InputError as fault:
                faults.add(fault)
        faults.refuse()
        if not records:
            raise InputError(self.name, None, f"holds no pairs. A line is {FORMS}")
        return records

    def _lines(self, faults: Faults | None = None) -> Iterator[tuple[int, str]]:
        """Lines that are not blank, by number. One that is not UTF-8 goes to ``faults`` if that is given, else it is raised."""
        try:
            with self._path.open("rb", buffering=READ_AT_ONCE) as handle:
                for number, raw in numbered_lines(handle, functools.partial(InputError, self.name)):
                    try:
                        text = self._decode(raw, number)
                    except InputError as fault:
                        if faults is None:
                            raise
                        faults.add(fault)
                        continue
                    if text.strip():
                        yield number, text
        except OSError as error:
            raise InputError(self.name, None, f"cannot be read: {reason(error)}") from error

    def _decode(self, raw: bytes, number: int) -> str:
        try:
            return raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(
                self.name,
                number,
                f"is not UTF-8 (byte {error.start + 1} of the line). Convert the file, for example with iconv",
            ) from error

    def _parse(self, text: str, number: int) -> list[Pair]:
        tabular = self.name.endswith((".tsv", ".tab"))
        try:
            return parse_line(text, tabular=tabular)
        except ValueError as error:
            raise InputError(self.name, number, f"{error}. A line is {FORMS}. It reads: {text[:120]!r}") from error


TAG = re.compile(r"""\[[^][(){}'"\t]*\][^\t]|\([^][(){}'"\t]*\)[^\t]""")
"""A word in brackets that more text follows: '[1] what is panda?', '(a) yes'."""
JSON_PART = re.compile(r""""[^"\t]*"\s*[:,]""")
"""A quoted word and a colon or a comma: a part of a JSON value that lacks its beginning."""


DOUBLE_QUOTED = re.compile(r"""[\[({\s]*\"""")
"""A value whose first text is quoted as JSON quotes."""


def parse_line(text: str, *, tabular: bool = False) -> list[Pair]:
    """The pairs that one line spells; ``tabular`` takes two tab-separated columns only. Raises ValueError saying what is wrong."""
    value: object
    if tabular or _is_columns(text.strip()):
        columns = value = text.split("\t")
        if len(columns) != 2:
            raise ValueError(
                f"has {len(columns)} tab-separated column(s), not 2" if len(columns) > 1 or tabular else "is not a pair"
            )
    else:
        value = _value(text.strip())
    pairs = _pairs(value)
    if _names_characters(text):  # in UTF-8 there is no other way to write half of a surrogate pair
        _refuse_surrogates(pairs)
    return pairs


def _is_columns(text: str) -> bool:
    """Whether a line is plainly not JSON or a literal, so that its TAB parts columns: a broken value is not another pair."""
    if text.startswith(("[", "(")):
        return "\t" in text and TAG.match(text) is not None
    return not text.startswith("{") and JSON_PART.match(text) is None


def _value(text: str) -> object:
    """The JSON value or the Python literal that ``text`` spells. Raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=keys_once)
    except RepeatedKeyError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        not_json = error
    try:
        tree = ast.parse(text, mode="eval")
        if isinstance(tree.body, ast.Dict):
            keys_once([(ast.dump(key), None) for key in tree.body.keys if key is not None])
        return ast.literal_eval(tree)  # literals only: nothing is evaluated; _pairs checks it
    except RepeatedKeyError as error:
        raise RepeatedKeyError("a key is there twice in one object. Remove one of the two") from error
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        tab = ". A TAB inside a text is written \\t" if "\t" in text else ""
        meant = not_json if DOUBLE_QUOTED.match(text) else error
        raise ValueError(f"is neither a Python literal nor JSON ({_first_line(meant)}){tab}") from error


def _pairs(value: object) -> list[Pair]:
    """The pairs of one line's value. Raises ValueError saying what is wrong."""
    if isinstance(value, dict):
        keys = next((keys for keys in KEYS if all(key in value for key in keys)), KEYS[0])
        lacking = [key for key in keys if key not in value]
        if lacking:
            raise ValueError(f"lacks the key {' and '.join(repr(key) for key in lacking)}")
        pair, instruction = _pair([value[key] for key in keys]), value.get("instruction") or ""
        if not isinstance(instruction, str):
            raise ValueError(f"has a {type(instruction).__name__} where the text of an instruction belongs")
        return [pair._replace(instruction=instruction)]
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("holds no pair")
        if all(isinstance(item, (list, tuple)) for item in value):
            return [_pair(item) for item in value]
        return [_pair(value)]
    raise ValueError("is not a pair")


def _pair(item: list[object] | tuple[object, ...]) -> Pair:
    if len(item) != 2:
        raise ValueError(f"has a pair of {len(item)} elements, not 2")
    for text in item:
        if not isinstance(text, str):
            raise ValueError(f"has a {type(text).__name__} where a text belongs")
    query, passage = item
    return Pair(str(query), str(passage))


def _names_characters(text: str) -> bool:
    """Whether it has an escape like ``\\u4e2d``. Looking for one character goes at ten times the speed of looking for two."""
    place = text.find("\\")
    while place >= 0:
        if text[place + 1 : place + 2] in ("u", "U"):
            return True
        place = text.find("\\", place + 2)
    return False


def _refuse_surrogates(pairs: list[Pair]) -> None:
    for pair in pairs:
        for text in pair:
            try:
                text.encode("utf-8")  # some ten times faster than looking at each character
            except UnicodeEncodeError:
                raise ValueError("has half of a surrogate pair, which cannot be written as UTF-8") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_pairs(path: str, stdin: BinaryIO | None = None) -> PairSource:
    """The pairs of the file at ``path``; ``-`` is ``stdin``, which is None if it is closed."""
    if path != "-":
        return PairSource(Path(path))
    if stdin is None:
        raise InputError("<stdin>", None, "is closed, and the pairs (`data_path` -) are to come from it")
    return PairSource(stdin)
