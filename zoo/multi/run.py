"""All files of a run: what is done is kept, what fails is reported, and the next file goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from zoo.checkpoints.digests import sha256
from zoo.errors import ZooError
from zoo.evaluation.journal import Journal
from zoo.evaluation.rerank import scores_identity
from zoo.files import atomic_write, reason, write_json
from zoo.multi.inputs import InputFile
from zoo.multi.one_file import FileScores, Shown, score_file, write_file
from zoo.multi.rows import Columns
from zoo.multi.writers import OutputForm
from zoo.reranker import Reranker
from zoo.strict_json import read_object

logger = logging.getLogger(__name__)

STATE = ".zoo"
"""The folder inside the output folder with what an interrupted run goes on from."""


@dataclass(frozen=True, kw_only=True)
class MultiRequest:
    """Where results go and what they look like.

    ``output`` is the folder of the results and ``form`` what they are written as; ``columns`` names the columns of the input if they have
    unusual names. ``top_k`` None keeps all rows; ``batch_size`` None leaves rows to the device.
    """

    output: Path
    form: OutputForm = "jsonl"
    columns: Columns = field(default_factory=Columns)
    top_k: int | None = None
    batch_size: int | None = None
    overwrite: bool = False
    """Throw away what an earlier run left in the output folder."""


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """One file, by its ``name`` below the input folder.

    Its ``status`` is ``kept`` if it was complete before this run, and ``error`` says why it failed. ``output`` is the path of the result
    below the output folder, ``pairs`` how many were scored, ``seconds`` how long that took.
    """

    name: str
    status: Literal["scored", "kept", "failed"]
    output: str = ""
    pairs: int = 0
    rows: int = 0
    """Rows of the result."""
    truncated: int = 0
    """Pairs that were cut to the length limits."""
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class MultiResult:
    """All files in the order they were given. ``report`` is the content of report.json."""

    files: Sequence[FileResult]
    report: Mapping[str, Any]

    @property
    def failed(self) -> list[FileResult]:
        """The files that could not be read, scored or written."""
        return [file for file in self.files if file.status == "failed"]


def score_files(
    reranker: Reranker,
    inputs: Sequence[InputFile],
    request: MultiRequest,
    *,
    shown: Shown = lambda scored, file: scored,
) -> MultiResult:
    """Score each of ``inputs`` (see ``find_inputs``) into a file of the output folder; write report.json there.

    An interrupted run is continued: complete files stay as they are, and the batches that were scored of others are not computed
    again. A file that fails is reported in the result, and the others go on. Raises ZooError if the output folder holds the results
    of another run, or is being written by one.
    """
    run = MultiRun(request, scores_identity(reranker, request.batch_size))

    def results() -> Iterator[FileResult]:
        for file, output in run.named(inputs):
            try:
                begun = run.begin(file, output)
                yield (
                    begun if isinstance(begun, FileResult) else run.finish(begun, _scored(reranker, run, begun, shown))
                )
            except ZooError as error:
                yield failed(file, error)

    with run.locked():
        return run.reported(list(results()))


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A file that is being scored: its content when that began, and the paths of its result and of what an interruption leaves."""

    file: InputFile
    output: Path
    journal: Path
    done: Path
    content: str
    stamp: tuple[int, int]
    started: float


class MultiRun:
    """What the files of a run share, whoever scores them: which are kept, how one begins and ends, and the report.

    ``identity`` is all but the pairs that decides a score.
    """

    def __init__(self, request: MultiRequest, identity: Mapping[str, Any]) -> None:
        self.request = request
        self.header = {
            **identity,
            "columns": asdict(request.columns),
            "top k": request.top_k,
            "form": request.form,
        }
        self._taken: dict[str, str] = {}
        self._key = hashlib.sha256(json.dumps(self.header, sort_keys=True).encode()).hexdigest()

    def locked(self) -> Journal:
        """Keeps other runs out of the output folder, in a ``with`` block. Raises ZooError if it holds the results of other settings."""
        return Journal.open(self.request.output / STATE / "run.jsonl", self.header, overwrite=self.request.overwrite)

    def named(self, inputs: Sequence[InputFile]) -> Iterator[tuple[InputFile, str]]:
        """Each file with the name of its result."""
        return ((file, file.output_name(f".{self.request.form}")) for file in inputs)

    def begin(self, file: InputFile, name: str) -> FileResult | Begun:
        """The result of an earlier run of the same settings on the same content, or what ``finish`` needs. Raises ZooError."""
        if (other := self._taken.setdefault(name, file.name)) != file.name:
            raise ZooError(f"the results of {other} are called {name}, too; {file.name} is not scored")
        output = self.request.output / name
        state = self.request.output / STATE / name
        journal, done = state.with_name(state.name + ".journal"), state.with_name(state.name + ".done")
        started = time.perf_counter()
        try:
            content, stamp = sha256(file.path), _stamp(file)
            output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ZooError(f"{file.path} cannot be scored into {output}: {reason(error)}") from error
        if not self.request.overwrite and (kept := self._kept(done, content, output)):
            return kept
        return Begun(
            file=file, output=output, journal=journal, done=done, content=content, stamp=stamp, started=started
        )

    def finish(self, begun: Begun, scores: FileScores) -> FileResult:
        """Write the result of a file whose pairs are all scored. Raises ZooError."""
        request, file = self.request, begun.file
        if not len(scores):
            logger.warning("%s holds no pairs; its result is empty", file.path)
        rows = write_file(file, request.columns, scores, begun.output, request.form, request.top_k)
        if not _is_unchanged(begun):
            begun.output.unlink(missing_ok=True)
            raise ZooError(f"{file.path} has changed while it was scored")
        result = FileResult(
            name=file.name,
            status="scored",
            output=begun.output.relative_to(request.output).as_posix(),
            pairs=len(scores),
            rows=rows,
            truncated=sum(scores.truncated),
            seconds=round(time.perf_counter() - begun.started, 3),
        )
        with atomic_write(begun.done) as handle:
            json.dump({"run": self._key, "input": begun.content, "result": asdict(result)}, handle)
        with suppress(OSError):
            begun.journal.unlink()
        logger.info("%s: %d pairs in %.1f s", file.name, result.pairs, result.seconds)
        return result

    def reported(self, files: Sequence[FileResult]) -> MultiResult:
        """Write report.json."""
        report = {"run": self.header, "files": [asdict(result) for result in files], "totals": _totals(files)}
        write_json(self.request.output / "report.json", report)
        return MultiResult(files=files, report=report)

    def _kept(self, done: Path, content: str, output: Path) -> FileResult | None:
        try:
            known = read_object(done)
            same = known["run"] == self._key and known["input"] == content and output.is_file()
            return msgspec.convert({**known["result"], "status": "kept"}, FileResult) if same else None
        except (ZooError, OSError, ValueError, TypeError, KeyError):
            return None


def failed(file: InputFile, error: ZooError) -> FileResult:
    """The result of a file that could not be read, scored or written."""
    logger.error("%s", error)
    return FileResult(name=file.name, status="failed", error=str(error))


def _scored(reranker: Reranker, run: MultiRun, begun: Begun, shown: Shown) -> FileScores:
    request = run.request
    with (
        Journal.open(begun.journal, run.header, overwrite=request.overwrite) as known,
        reranker.exclusive(batch_size=request.batch_size or 0, repeatable=True, recall=known) as scorer,
    ):
        if len(known):
            logger.info("%s: continuing, %d batches are there", begun.file.name, len(known))
        return score_file(scorer, begun.file, request.columns, shown)


def _stamp(file: InputFile) -> tuple[int, int]:
    """What tells whether a file has changed. Raises OSError."""
    status = file.path.stat()
    return status.st_size, status.st_mtime_ns


def _is_unchanged(begun: Begun) -> bool:
    try:
        return _stamp(begun.file) == begun.stamp
    except OSError:
        return False


def _totals(files: Sequence[FileResult]) -> dict[str, Any]:
    by_status = {status: sum(file.status == status for file in files) for status in ("scored", "kept", "failed")}
    return {
        **by_status,
        "pairs": sum(file.pairs for file in files),
        "truncated": sum(file.truncated for file in files),
        "seconds": round(sum(file.seconds for file in files if file.status == "scored"), 3),
    }
