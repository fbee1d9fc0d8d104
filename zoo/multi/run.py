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

from zoo.checkpoints.digests import sha256
from zoo.errors import ZooError
from zoo.evaluation.journal import Journal
from zoo.evaluation.rerank import scores_identity
from zoo.files import atomic_write
from zoo.multi.inputs import InputFile
from zoo.multi.one_file import Shown, score_file, write_file
from zoo.multi.rows import Columns
from zoo.multi.writers import OutputForm
from zoo.reranker import Reranker

logger = logging.getLogger(__name__)

STATE = ".zoo"
"""The folder inside the output folder with what an interrupted run goes on from."""


@dataclass(frozen=True, kw_only=True)
class MultiRequest:
    """Where results go and what they look like. ``top_k`` None keeps all rows; ``batch_size`` None leaves rows to the device."""

    output: Path
    form: OutputForm = "jsonl"
    columns: Columns = field(default_factory=Columns)
    top_k: int | None = None
    batch_size: int | None = None
    overwrite: bool = False
    """Throw away what an earlier run left in the output folder."""


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """One file: ``kept`` was complete before this run. ``error`` says why it failed."""

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
    rows = request.batch_size
    header = {
        **scores_identity(reranker, rows),
        "columns": asdict(request.columns),
        "top k": request.top_k,
        "form": request.form,
    }
    run = _Run(reranker, request, header, shown)
    with Journal.open(request.output / STATE / "run.jsonl", header, overwrite=request.overwrite):
        files = list(run.results(inputs))
    report = {"run": header, "files": [asdict(result) for result in files], "totals": _totals(files)}
    with atomic_write(request.output / "report.json") as handle:
        json.dump(report, handle, indent=2, ensure_ascii=False)
    return MultiResult(files=files, report=report)


class _Run:
    """What the files of a run share."""

    def __init__(self, reranker: Reranker, request: MultiRequest, header: Mapping[str, Any], shown: Shown) -> None:
        self._reranker, self._request, self._header, self._shown = reranker, request, header, shown
        self._run_key = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()

    def results(self, inputs: Sequence[InputFile]) -> Iterator[FileResult]:
        taken: dict[str, str] = {}
        for file in inputs:
            name = file.output_name(f".{self._request.form}")
            try:
                if taken.setdefault(name, file.name) != file.name:
                    raise ZooError(f"the results of {taken[name]} are called {name}, too; {file.name} is not scored")
                yield self._result(file, name)
            except ZooError as error:
                logger.error("%s", error)
                yield FileResult(name=file.name, status="failed", error=str(error))

    def _result(self, file: InputFile, name: str) -> FileResult:
        output = self._request.output / name
        state = self._request.output / STATE / name
        journal, done = state.with_name(state.name + ".journal"), state.with_name(state.name + ".done")
        try:
            content, stamp = sha256(file.path), _stamp(file)
            output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ZooError(f"{file.path} into {output}: {error.strerror}") from error
        if not self._request.overwrite and (kept := self._kept(done, content, output)):
            return kept
        started = time.perf_counter()
        result = self._scored(file, journal, output)
        if _stamp(file) != stamp:
            output.unlink(missing_ok=True)
            raise ZooError(f"{file.path} has changed while it was scored")
        result = FileResult(**{**asdict(result), "seconds": round(time.perf_counter() - started, 3)})
        with atomic_write(done) as handle:
            json.dump({"run": self._run_key, "input": content, "result": asdict(result)}, handle)
        with suppress(OSError):
            journal.unlink()
        logger.info("%s: %d pairs in %.1f s", file.name, result.pairs, result.seconds)
        return result

    def _kept(self, done: Path, content: str, output: Path) -> FileResult | None:
        """The result of an earlier run of the same settings on the same content, if its file is still there."""
        try:
            known = json.loads(done.read_text(encoding="utf-8"))
            same = known["run"] == self._run_key and known["input"] == content and output.is_file()
            return FileResult(**{**known["result"], "status": "kept"}) if same else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _scored(self, file: InputFile, journal: Path, output: Path) -> FileResult:
        request = self._request
        with (
            Journal.open(journal, self._header, overwrite=request.overwrite) as known,
            self._reranker.exclusive(batch_size=request.batch_size or 0, repeatable=True, recall=known) as scorer,
        ):
            if len(known):
                logger.info("%s: continuing, %d batches are there", file.name, len(known))
            scores = score_file(scorer, file, request.columns, self._shown)
        if not len(scores):
            logger.warning("%s holds no pairs; its result is empty", file.path)
        rows = write_file(file, request.columns, scores, output, request.form, request.top_k)
        return FileResult(
            name=file.name,
            status="scored",
            output=output.relative_to(request.output).as_posix(),
            pairs=len(scores),
            rows=rows,
            truncated=sum(scores.truncated),
        )


def _stamp(file: InputFile) -> tuple[int, int]:
    status = file.path.stat()
    return status.st_size, status.st_mtime_ns


def _totals(files: Sequence[FileResult]) -> dict[str, Any]:
    by_status = {status: sum(file.status == status for file in files) for status in ("scored", "kept", "failed")}
    return {
        **by_status,
        "pairs": sum(file.pairs for file in files),
        "truncated": sum(file.truncated for file in files),
        "seconds": round(sum(file.seconds for file in files if file.status == "scored"), 3),
    }
