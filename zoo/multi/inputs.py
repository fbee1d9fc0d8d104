"""Which files are scored: folders, globs and single files, and what each one's name says of its content."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from zoo.errors import ZooError
from zoo.files import resolved

logger = logging.getLogger(__name__)

Form: TypeAlias = Literal["demo", "jsonl", "tsv", "csv", "parquet", "arrow"]
Packing: TypeAlias = Literal["", "gz", "zst"]

FORMS: dict[str, Form] = {
    ".txt": "demo",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""The form of a file by its suffix; ``demo`` is one of the written forms of ``zoo.pairs`` a line."""

PACKINGS: dict[str, Packing] = {".gz": "gz", ".zst": "zst"}
BINARY: tuple[Form, ...] = ("parquet", "arrow")
"""These compress by themselves, and are read from several places of the file."""


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file to score. ``name`` is its path below the folder or the glob that it was found by, with forward slashes.

    ``form`` is what its rows are written as, and ``packing`` how the file is compressed; empty if it is not.
    """

    path: Path
    name: str
    form: Form
    packing: Packing = ""

    def output_name(self, suffix: str) -> str:
        """The result's path below the output folder: the same name, with ``suffix`` unless the name ends so."""
        return self.name if self.name.endswith(suffix) else self.name + suffix


def find_inputs(paths: Iterable[str | Path], output: Path) -> list[InputFile]:
    """The files that ``paths`` name, in order of their names: folders (with all below), globs, files.

    Hidden files, those whose names begin with an underscore, and those in ``output`` are passed over in folders; so are, with a warning,
    files of an unknown suffix. A file given by its own name is read as ``demo`` if its suffix says nothing. Raises ZooError if there
    is nothing to score, or if two files have one name.
    """
    found: dict[str, InputFile] = {}
    for given in paths:
        files = _files(str(given), resolved(output))
        if not files:
            raise ZooError(
                f"`data_path` {given}: there are no files of pairs. Suffixes: {', '.join(FORMS)}, also with .gz or .zst"
            )
        for file in files:
            other = found.setdefault(file.name, file)
            if resolved(other.path) != resolved(file.path):
                raise ZooError(
                    f"{other.path} and {file.path} would both be called {file.name} in the output folder. "
                    "Give the folder that holds both, or score them in two runs"
                )
    return [found[name] for name in sorted(found)]


def _files(given: str, output: Path) -> list[InputFile]:
    path = Path(given)
    if path.is_file():
        return [_named(path, path.name)]
    if path.is_dir():
        if resolved(path) == output:
            raise ZooError(f"`output` {output} is the folder that is read. Choose another folder for the results")
        return list(_below(path, output))
    if not glob.has_magic(given):
        raise ZooError(f"`data_path` {given}: there is no such file or folder")
    root = _fixed_part(path)
    matches = [Path(match) for match in sorted(glob.glob(given, recursive=True))]  # noqa: PTH207  # Path.glob takes no absolute pattern
    return [
        _named(match, match.relative_to(root).as_posix())
        for match in matches
        if match.is_file() and not resolved(match).is_relative_to(output)
    ]


def _fixed_part(pattern: Path) -> Path:
    """The folder that every match of a glob lies below."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _below(folder: Path, output: Path) -> Iterator[InputFile]:
    unknown: list[str] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith((".", "_")) for part in name.parts) or resolved(path).is_relative_to(output):
            continue
        if not path.is_file():
            continue
        if _form(path)[0] is None:
            unknown.append(name.as_posix())
        else:
            yield _named(path, name.as_posix())
    if unknown:
        logger.warning("passed over, for their suffix says nothing of their form: %s", _listed(unknown))


def _named(path: Path, name: str) -> InputFile:
    form, packing = _form(path)
    if packing and form in BINARY:
        raise ZooError(
            f"{path}: a {form} file is compressed inside, and cannot be read through {packing}. Unpack it first"
        )
    return InputFile(path=path, name=name, form=form or "demo", packing=packing)


def _form(path: Path) -> tuple[Form | None, Packing]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packing: Packing = PACKINGS.get(suffixes[-1], "") if suffixes else ""
    if packing:
        suffixes.pop()
    return (FORMS.get(suffixes[-1]) if suffixes else None), packing


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
