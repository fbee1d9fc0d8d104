"""Scores that have been computed: an append-only file, one line a batch.

A batch is known by the digest of its padded inputs, and its line holds the exact float32 logits that came out. A run that goes on after
an interruption makes the same batches in the same order again and takes those it finds from the journal; what it computes
anew it computes in the very batches an uninterrupted run would have computed. So the results do not depend on where a run was
interrupted, to the last bit. Tokenising is repeated, the device's work never is.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import IO, Any

from zoo.errors import ZooError
from zoo.files import make_folder, reason
from zoo.strict_json import parse
from zoo.types import Scores

VERSION = 1


class Journal:
    """The file and what it knows. Open it with ``Journal.open``; close it, or use it as a context manager."""

    def __init__(self, path: Path, handle: IO[bytes], known: dict[str, Any]) -> None:
        self.path, self._handle, self._known = path, handle, known
        self._lock = Lock()
        self.recalled = self.recalled_rows = 0
        self._end = handle.seek(0, os.SEEK_END)

    @classmethod
    def open(cls, path: Path, header: Mapping[str, Any], *, overwrite: bool = False) -> Journal:
        """Begin a journal or go on with one whose header is equal.

        Raises ZooError with the difference where it is not, where another process is writing it, and where it is damaged other than
        by a torn last line (which is dropped).
        """
        make_folder(path.parent)
        try:
            if path.exists() and not path.is_file():
                raise ZooError(f"cannot write {path}: it is not a regular file")
            handle = path.open("a+b", buffering=0)
        except OSError as error:
            raise ZooError(f"cannot write {path}: {reason(error)}") from error
        try:
            _lock(handle, path)
            known = _read(handle, path, header, overwrite=overwrite)
        except BaseException:
            handle.close()
            raise
        return cls(path, handle, known)

    def __len__(self) -> int:
        """Batches known."""
        return len(self._known)

    def recall(self, key: str) -> Scores | None:
        """The scores of the batch called ``key`` or None."""
        packed = self._known.get(key)
        if packed is None:
            return None
        scores = unpacked(packed)
        self.recalled += 1
        self.recalled_rows += len(scores)
        return scores

    def append(self, key: str, scores: Scores) -> None:
        """Keep a batch's scores: when this returns they outlive the process. Raises ZooError where the disk is full."""
        self.keep(key, scores.astype("<f4").tobytes())

    def keys(self) -> list[str]:
        """What is known."""
        return list(self._known)

    def content(self, key: str) -> bytes:
        """What was kept under ``key``. Raises KeyError."""
        return base64.b64decode(self._known[key])

    def keep(self, key: str, content: bytes) -> None:
        """The same for what somebody else has packed, such as the scores of a cluster's block with their marks."""
        with self._lock:
            if key in self._known:
                return
            packed = base64.b64encode(content).decode()
            try:
                _write(self._handle, {"batch": key, "logits": packed, "crc": _crc(key, packed)})
            except OSError as error:
                # What the disk took of the line goes; a torn last line is dropped when it is read, too.
                with contextlib.suppress(OSError):
                    self._handle.truncate(self._end)
                raise ZooError(
                    f"cannot write {self.path}: {reason(error)}. The scores up to here are kept in it; the same command goes on "
                    "from there when there is room"
                ) from error
            self._end = self._handle.tell()
            self._known[key] = packed

    def close(self) -> None:
        """Bring it to the disk. May be called twice."""
        if not self._handle.closed:
            with contextlib.suppress(OSError):
                os.fsync(self._handle.fileno())
            self._handle.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _lock(handle: IO[bytes], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on this platform
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ZooError(f"another run is writing {path}. Wait for it, or choose another folder (`output`)") from error


def _read(handle: IO[bytes], path: Path, header: Mapping[str, Any], *, overwrite: bool) -> dict[str, str]:
    """What the journal knows, its torn last line cut off and its header written if it is new or to be overwritten."""
    try:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(0)
        raw = b"" if overwrite else handle.read()
    except OSError as error:
        raise ZooError(f"cannot read {path}: {reason(error)}") from error
    whole = raw.rfind(b"\n") + 1
    lines = io.BytesIO(raw[:whole]).readlines()
    try:
        if whole < size:
            handle.truncate(whole)
        if not lines:
            _write(handle, {"zoo_journal": VERSION, **header})
    except OSError as error:
        raise ZooError(f"cannot write {path}: {reason(error)}") from error
    if not lines:
        return {}
    _check_header(_parsed(lines[0], path, 1), header, path)
    known = {}
    for number, line in enumerate(lines[1:], start=2):
        entry = _parsed(line, path, number)
        key, packed = entry.get("batch"), entry.get("logits")
        if not (isinstance(key, str) and isinstance(packed, str) and entry.get("crc") == _crc(key, packed)):
            raise _damaged(path, number)
        known[key] = packed
    return known


def _parsed(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        entry = parse(line)
    except ValueError as error:
        raise _damaged(path, number) from error
    if not isinstance(entry, dict):
        raise _damaged(path, number)
    return entry


def _damaged(path: Path, number: int) -> ZooError:
    return ZooError(
        f"{path}, line {number}: is not a line of a journal. `overwrite` starts anew, another folder (`output`) leaves it alone"
    )


def _check_header(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    expected = json.loads(json.dumps({"zoo_journal": VERSION, **wanted}))
    differences = [
        f"  {key:.200}: {found.get(key, 'not there')!s:.200} in the journal, {expected.get(key, 'not there')!s:.200} now"
        for key in dict.fromkeys([*expected, *found])
        if found.get(key) != expected.get(key)
    ]
    if differences:
        raise ZooError(
            "\n".join([
                f"{path} holds the scores of another run:", *differences[:40],
                "`overwrite` throws them away and starts anew; another folder (`output`) keeps them.",
            ])
        )  # fmt: skip


def _write(handle: IO[bytes], entry: Mapping[str, Any]) -> None:
    """A line with ``entry``, whole. Raises OSError."""
    line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
    while line:  # a full disk takes a part first, then fails
        line = line[handle.write(line) :]


def _crc(key: str, packed: str) -> int:
    return zlib.crc32(f"{key} {packed}".encode())


def unpacked(text: str) -> Scores:
    """Scores out of a journal line: base64 of little-endian float32."""
    import numpy as np

    scores: Scores = np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
    return scores
