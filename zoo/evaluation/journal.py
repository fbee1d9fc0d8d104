"""Scores already earned: an append-only file, one line a batch.

A batch is known by a digest of its padded inputs, and its line holds the exact float32 logits that came out. A run that goes on after
an interruption makes the same batches in the same order again and takes those it finds from the journal; what it computes
anew it computes in the very batches an uninterrupted run would have computed. So the results do not depend on where a run was cut, to
the last bit. What is repeated is tokenising, never the device's work.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import IO, Any

from zoo.errors import ZooError
from zoo.registry.hookspecs import hookimpl
from zoo.types import Scores, Session, Tensors

VERSION = 1


class Journal:
    """The file and what it knows. Open it with ``Journal.open``; close it, or use it as a context manager."""

    def __init__(self, path: Path, handle: IO[bytes], known: dict[str, Any]) -> None:
        self.path, self._handle, self._known = path, handle, known
        self._lock = Lock()
        self.recalled = self.recalled_rows = 0

    @classmethod
    def open(cls, path: Path, header: Mapping[str, Any], *, overwrite: bool = False) -> Journal:
        """Begin a journal or go on with one whose header is equal.

        Raises ZooError with the difference where it is not, where another process is writing it, and where it is damaged other than
        by a torn last line (which is dropped).
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("a+b", buffering=0)
        except OSError as error:
            raise ZooError(f"cannot write {path}: {error.strerror}") from error
        try:
            _lock(handle, path)
            if overwrite:
                handle.truncate(0)
            known = _read(handle, path, header)
        except BaseException:
            handle.close()
            raise
        return cls(path, handle, known)

    def __len__(self) -> int:
        """Batches known."""
        return len(self._known)

    def recall(self, key: str) -> Scores | None:
        """The scores of the batch called ``key``, or None."""
        packed = self._known.get(key)
        return None if packed is None else unpacked(packed)

    def append(self, key: str, scores: Scores) -> None:
        """Keep a batch's scores: when this returns they outlive the process. Raises ZooError where the disk is full."""
        with self._lock:
            if key in self._known:
                return
            packed = _packed(scores)
            line = _line({"batch": key, "logits": packed, "crc": _crc(key, packed)})
            try:
                while line:  # a full disk takes a part first, then fails
                    line = line[self._handle.write(line) :]
            except OSError as error:
                raise ZooError(
                    f"cannot write {self.path}: {error.strerror}. The scores up to here are kept in it"
                ) from error
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
        raise ZooError(
            f"another run is writing {path}. Wait for it, or choose another folder with --output DIR"
        ) from error


def _read(handle: IO[bytes], path: Path, header: Mapping[str, Any]) -> dict[str, str]:
    """What the journal knows, its torn last line cut off and its header written where it is new."""
    handle.seek(0)
    raw = handle.read()
    whole = raw.rfind(b"\n") + 1
    if whole < len(raw):
        handle.truncate(whole)
    lines = io.BytesIO(raw[:whole]).readlines()
    if not lines:
        handle.write(_line({"zoo_journal": VERSION, **header}))
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
        entry = json.loads(line)
    except ValueError as error:
        raise _damaged(path, number) from error
    if not isinstance(entry, dict):
        raise _damaged(path, number)
    return entry


def _damaged(path: Path, number: int) -> ZooError:
    return ZooError(
        f"{path}, line {number}: is no line of a journal. --overwrite starts anew, --output DIR leaves it alone"
    )


def _check_header(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    expected = json.loads(json.dumps({"zoo_journal": VERSION, **wanted}))
    differences = [
        f"  {key}: {found.get(key, 'not there')} in the journal, {expected.get(key, 'not there')} now"
        for key in dict.fromkeys([*expected, *found])
        if found.get(key) != expected.get(key)
    ]
    if differences:
        raise ZooError(
            "\n".join([
                f"{path} holds the scores of another run:", *differences,
                "--overwrite throws them away and starts anew; --output DIR keeps them and writes elsewhere.",
            ])
        )  # fmt: skip


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"


def _crc(key: str, packed: str) -> int:
    return zlib.crc32(f"{key} {packed}".encode())


def _packed(scores: Scores) -> str:
    return base64.b64encode(scores.astype("<f4").tobytes()).decode()


def unpacked(text: str) -> Scores:
    """Scores out of a journal line: base64 of little-endian float32."""
    import numpy as np

    scores: Scores = np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
    return scores


def digest(inputs: Tensors) -> str:
    """A name for a padded batch: equal for equal inputs, whatever their order."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(inputs):
        array = inputs[name]
        state.update(f"{name} {array.dtype} {array.shape};".encode())
        state.update(array.tobytes())
    return state.hexdigest()


class Outputs(dict[str, Any]):
    """A batch's outputs that know which batch they are of; ``scores`` are those the journal had."""

    def __init__(self, outputs: Tensors, key: str, scores: Scores | None = None) -> None:
        super().__init__(outputs)
        self.key, self.scores = key, scores


class Recalled(Future[Tensors]):
    """A batch that the journal knew: done from the start, and no work of the device."""


class JournalHooks:
    """The journal as a participant of a run: it answers ``infer`` for batches it knows and writes down the others' scores."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    @hookimpl(tryfirst=True)
    def infer(self, session: Session, inputs: Tensors) -> Future[Tensors] | None:
        if not len(self.journal):
            return None
        key = digest(inputs)
        scores = self.journal.recall(key)
        if scores is None:
            return None
        self.journal.recalled += 1
        self.journal.recalled_rows += len(scores)
        future = Recalled()
        future.set_result(Outputs({}, key, scores))
        return future

    @hookimpl(specname="infer", wrapper=True)
    def name_batch(self, session: Session, inputs: Tensors) -> Any:
        future = yield
        if future is None or isinstance(future, Recalled):
            return future
        return _Named(future, digest(inputs))

    @hookimpl(tryfirst=True)
    def postprocess(self, outputs: Tensors) -> Scores | None:
        return outputs.scores if isinstance(outputs, Outputs) else None

    @hookimpl(specname="postprocess", wrapper=True)
    def write_down(self, outputs: Tensors) -> Any:
        scores = yield
        if scores is not None and isinstance(outputs, Outputs) and outputs.scores is None:
            import numpy as np

            scores = np.asarray(scores, dtype=np.float32)
            if np.isfinite(scores).all():  # what is no score is an error elsewhere, and never kept
                self.journal.append(outputs.key, scores)
        return scores


class _Named(Future[Tensors]):
    """Another future's result, marked as the batch ``key``'s. To cancel it is to cancel the other."""

    def __init__(self, inner: Future[Tensors], key: str) -> None:
        super().__init__()
        self._inner, self._key = inner, key
        inner.add_done_callback(self._finish)

    def cancel(self) -> bool:
        return self._inner.cancel()

    def _finish(self, inner: Future[Tensors]) -> None:
        if inner.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
        elif error := inner.exception():
            self.set_exception(error)
        else:
            self.set_result(Outputs(inner.result(), self._key))
