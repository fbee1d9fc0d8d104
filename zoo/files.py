"""Output files: written aside under an unguessable name, and renamed when they are complete. Every command writes through here.

What is there already is never destroyed by accident: a link stays a link and what it points to is replaced; a device, a FIFO or another
thing that is not a regular file is written through.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from zoo.errors import ZooError

logger = logging.getLogger(__name__)

DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|\d+))/fd/(\d+)")
"""A path that is one of a process's own open files, as ``/dev/stdout`` is."""
LINKS = 40
"""Links that lead to one another; Linux follows as many."""
UNFIT_IN_NAME = re.compile(r"[/\\:\x00-\x1f\x7f]")
UNUSUAL_IN_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
LONGEST_NAME = 255
"""Bytes of a file's name on the usual file systems."""
LONGEST_STEM = 100
"""Bytes of a file's name that its temporary name repeats: the system allows 255 in all."""


@contextmanager
def atomic_write(path: Path, *, quiet: bool = False) -> Iterator[TextIO]:
    """A text file (UTF-8) to write ``path``'s content to. A regular file is called ``path`` only after the block ends well.

    A block that fails leaves what it has written beside ``path``, and its name is logged; ``quiet`` leaves nothing and logs nothing.
    Raises ZooError if something cannot be written.
    """
    place = destination(path)
    if isinstance(place, int) or _is_special(place):
        with _text(_Raw.opened(path, place)) as handle:
            yield handle
        return
    raw, partial = _aside(path, place)
    try:
        with _text(raw) as handle:
            yield handle
            handle.flush()
            _sync(path, handle)
        _rename(path, partial, place)
    except BaseException:
        _keep(partial, quiet)
        raise


def write_json(path: Path, value: object, *, quiet: bool = False) -> None:
    """``value`` as a JSON document for readers, by the rules of ``atomic_write``. Raises ZooError."""
    with atomic_write(path, quiet=quiet) as handle:
        json.dump(value, handle, ensure_ascii=False, indent=2)
        handle.write("\n")


def put_in_place(made: Path, path: Path) -> None:
    """Give a finished file the name ``path``, by the same rules: it is moved there, or its content is written through.

    ``made`` lies in the folder of ``path`` or of what ``path`` links to. Raises ZooError.
    """
    import shutil

    place = destination(path)
    try:
        if isinstance(place, int) or _is_special(place):
            with made.open("rb") as source, io.BufferedWriter(_Raw.opened(path, place)) as target:
                shutil.copyfileobj(source, target)
            made.unlink()
        else:
            made.replace(place)
    except OSError as error:
        raise _cannot_write(path, error) from error


def make_folder(folder: Path, remedy: str = "") -> Path:
    """The folder, made with its parents if it is not there. Raises ZooError, with ``remedy`` at its end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"cannot make the folder {folder}: {reason(error)}. {remedy}".rstrip(". ")) from error
    return folder


def destination(path: Path) -> Path | int:
    """What is written when ``path`` is: the file that its links lead to, or an open file of this process, by its number.

    Raises ZooError if it is a folder or if its links lead in a circle.
    """
    place = path
    for _ in range(LINKS):
        if found := DESCRIPTOR.fullmatch(os.path.abspath(place)):  # noqa: PTH100  # resolve() would follow the link itself
            return int(found[1])
        if not place.is_symlink():
            if place.is_dir():
                raise ZooError(f"cannot write {path}: it is a folder")
            return place
        try:
            place = place.parent / place.readlink()
        except OSError as error:
            raise _cannot_write(path, error) from error
    raise ZooError(f"cannot write {path}: its links lead in a circle")


def is_plain_name(name: str) -> bool:
    """Whether ``name`` is that of a file directly inside a folder, on every system: no path, no drive, no control character."""
    try:
        fits = len(os.fsencode(name)) <= LONGEST_NAME
    except UnicodeEncodeError:  # half of a character
        return False
    return bool(name) and fits and name not in (".", "..") and not UNFIT_IN_NAME.search(name)


def plain_name(text: str) -> str:
    """``text`` as a part of a file's name: what is not a letter, a digit, ``_``, ``.`` or ``-`` becomes ``-``."""
    return UNUSUAL_IN_NAME.sub("-", text)


def resolved(path: Path) -> Path:
    """``path`` without links. One that leads in a circle stays as it is, where ``Path.resolve`` raises RuntimeError before Python 3.13."""
    return Path(os.path.realpath(path))


def reason(error: OSError) -> str:
    """What the system says of a file."""
    return error.strerror or str(error) or type(error).__name__


REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "Raise the limit on open files (ulimit -n)",
    errno.ENFILE: "The system has no more open files to give",
    errno.EAGAIN: "Raise the limit on processes and threads (ulimit -u)",
    errno.EACCES: "This user may not use it",
    errno.EPERM: "This user may not use it",
    errno.EROFS: "Choose another folder",
}


def in_words(error: OSError) -> str:
    """What the system refused, of which file, and what helps."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str)]
    said = " and ".join(names) + ": " if names else ""
    return f"{said}{reason(error)}. {REMEDIES.get(error.errno or 0, '')}".rstrip(". ")


@contextmanager
def system_faults() -> Iterator[None]:
    """What the system refuses inside the block is a ZooError that names the file."""
    try:
        yield
    except OSError as error:
        raise ZooError(in_words(error)) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path for the block to write a new file at, which takes the place of ``path`` after the block ends well. It is removed if it fails.

    Raises ZooError if it cannot be written.
    """
    import tempfile

    place = destination(path)
    if isinstance(place, int) or _is_special(place):
        partial = _beside(Path(tempfile.gettempdir()) / path.name)
    else:
        _refuse_protected(path, place)
        partial = _beside(place)
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        put_in_place(partial, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def size_of(folder: Path) -> int:
    """Bytes in a folder and below; files that vanish meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


class _Raw(io.FileIO):
    """A file whose failures to write are ZooErrors that name it."""

    shown: Path

    @classmethod
    def opened(cls, path: Path, place: Path | int) -> _Raw:
        try:
            # An open file goes on where it is: opening it once more would begin at its first byte.
            raw = cls(os.dup(place), "wb") if isinstance(place, int) else cls(place, "wb")
        except OSError as error:
            raise _cannot_write(path, error) from error
        raw.shown = path
        return raw

    def write(self, content: object) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]  # any buffer, as the parent takes
        except OSError as error:
            raise _cannot_write(self.shown, error) from error


def _text(raw: _Raw) -> TextIO:
    # Names of files that are not UTF-8 stand in reports too: they are escaped.
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", newline="\n")


def _is_special(place: Path) -> bool:
    try:
        return not stat.S_ISREG(place.stat().st_mode)
    except OSError:  # nothing is there, or opening it will say what is wrong
        return False


def _aside(path: Path, place: Path) -> tuple[_Raw, Path]:
    """A new file beside ``place`` that nobody else has opened, with the mode that ``place`` has or would get."""
    _refuse_protected(path, place)
    partial = _beside(place)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise _cannot_write(path, error) from error
    with suppress(OSError, AttributeError):  # nothing is there yet, or it is somebody else's
        before = place.stat()
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
        os.fchown(descriptor, before.st_uid, before.st_gid)
    raw = _Raw(descriptor, "wb")
    raw.shown = path
    return raw, partial


def _refuse_protected(path: Path, place: Path) -> None:
    if place.exists() and not os.access(place, os.W_OK):
        raise ZooError(f"cannot write {path}: it is write-protected")


def _beside(place: Path) -> Path:
    """An unguessable name beside ``place``."""
    stem = place.name.encode(errors="surrogateescape")[:LONGEST_STEM].decode(errors="ignore")
    return place.with_name(f"{stem}.{os.urandom(8).hex()}.partial")


def _sync(path: Path, handle: TextIO) -> None:
    try:
        os.fsync(handle.fileno())
    except OSError as error:
        raise _cannot_write(path, error) from error


def _rename(path: Path, partial: Path, place: Path) -> None:
    try:
        partial.replace(place)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _keep(partial: Path, quiet: bool) -> None:
    """What was written before a fault stays; an empty file does not."""
    with suppress(OSError):
        if partial.stat().st_size and not quiet:
            logger.warning("what was written before the fault is kept in %s", partial)
        else:
            partial.unlink()


def _cannot_write(path: Path, error: OSError) -> ZooError:
    return ZooError(f"cannot write {path}: {reason(error)}")
