"""Quality reports that were measured and kept, and the precision that may be chosen by them.

A report belongs to the content of a checkpoint's files, to a device and to a precision; it lies in ``$ZOO_HOME/quality``. Nothing is
assumed of a precision that has none.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from zoo.checkpoints.digests import Digests
from zoo.checkpoints.files import has_pickled, has_safetensors, model_files, onnx_file, weight_files
from zoo.files import make_folder, plain_name, write_json
from zoo.paths import zoo_home
from zoo.types import CacheFolder, Checkpoint, Device, Precision

logger = logging.getLogger(__name__)

FORMAT = 1
CACHE = CacheFolder(name="quality", holds="quality reports of precisions")
LEAST_SPEARMAN = 0.99
LARGEST_LOSS = 0.01
FEWEST_QUERIES = 50
BOUND = (
    f"mean rank correlation {LEAST_SPEARMAN} or more and nDCG@10 at most {LARGEST_LOSS} below fp32's on each collection, "
    f"{FEWEST_QUERIES} queries or more in all"
)
"""What ``--precision auto`` demands, in words: the three numbers above."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A precision beside float32 on the same pairs of one collection.

    Deviations are of logits, to be held against ``spread``, the standard deviation of the float32 ones; ``spearman`` is the mean
    over the queries. Seconds are those of scoring alone.
    """

    precision: Precision
    collection: str
    queries: int
    pairs: int
    max_deviation: float
    rms_deviation: float
    spread: float
    spearman: float
    ndcg_at_10_fp32: float
    ndcg_at_10: float
    seconds_fp32: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """One measurement: ``files`` are the checkpoint's by sha256, ``details`` what the device said of itself, ``made_at`` is UTC."""

    format: int = FORMAT
    model: str
    device: str
    precision: Precision
    files: Mapping[str, str]
    collections: Sequence[Quality]
    max_length: int
    details: Mapping[str, str]
    versions: Mapping[str, str]
    made_at: str

    @property
    def speed(self) -> float:
        """How many times as fast as float32 all collections together were scored."""
        return sum(q.seconds_fp32 for q in self.collections) / max(sum(q.seconds for q in self.collections), 1e-9)

    @property
    def faults(self) -> list[str]:
        """Where it lies outside ``BOUND``, or nowhere."""
        return list(self._faults())

    def _faults(self) -> Iterator[str]:
        queries = sum(quality.queries for quality in self.collections)
        if queries < FEWEST_QUERIES:
            yield f"measured on {queries} queries, {FEWEST_QUERIES} are needed"
        for quality in self.collections:
            # Written so that NaN fails too.
            if not quality.spearman >= LEAST_SPEARMAN:
                yield f"rank correlation {quality.spearman:.4f} on {quality.collection}, {LEAST_SPEARMAN} is needed"
            loss = quality.ndcg_at_10_fp32 - quality.ndcg_at_10
            if not loss <= LARGEST_LOSS:
                yield f"nDCG@10 {loss:.4f} below fp32's on {quality.collection}, {LARGEST_LOSS} is allowed"

    def in_words(self) -> str:
        """What was measured, on one line."""
        figures = "; ".join(
            f"rank correlation {q.spearman:.4f} and nDCG@10 {q.ndcg_at_10:.4f} (fp32 {q.ndcg_at_10_fp32:.4f}) on {q.queries} queries "
            f"of {q.collection}"
            for q in self.collections
        )
        return f"{self.speed:.2f} times as fast as fp32, {figures}, measured {self.made_at}"


def identity(checkpoint: Checkpoint) -> dict[str, str]:
    """sha256 of every file of the checkpoint that decides its scores, by name."""
    folder = checkpoint.folder
    paths = [folder / "config.json", folder / "tokenizer.json"]
    if exported := onnx_file(folder):
        paths += model_files(exported)
    if has_safetensors(folder) or has_pickled(folder):
        paths += weight_files(folder)
    digests = Digests(zoo_home() / "digests.json")
    return {path.relative_to(folder).as_posix(): digests.of(path) for path in paths if path.is_file()}


def keep(report: Report) -> Path:
    """Write the report in place of an earlier one of the same checkpoint, device and precision. Raises ZooError."""
    path = _place(report.model, report.device, report.precision, report.files)
    make_folder(path.parent, "Set ZOO_HOME to another")
    write_json(path, msgspec.to_builtins(report))
    return path


def find(model: str, device: str, precision: Precision, files: Mapping[str, str]) -> Report | None:
    """The report of exactly this. A report that cannot be read is ignored with a warning."""
    path = _place(model, device, precision, files)
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        logger.warning("the quality report %s cannot be read and is ignored: %s", path, error)
        return None
    same = (report.format, report.device, report.precision, dict(report.files)) == (
        FORMAT,
        device,
        precision,
        dict(files),
    )
    return report if same else None


def exact(device: Device) -> Precision:
    """What ``auto`` falls back on: float32, or the device's default where it has no float32."""
    return "fp32" if "fp32" in device.precisions else next(iter(device.precisions))


def choose(model: str, checkpoint: Checkpoint, device: Device) -> tuple[Precision, str]:
    """The fastest precision that the device offers by itself and a report shows inside ``BOUND``, else ``exact``; and why."""
    fallback = exact(device)
    candidates = [name for name, info in device.precisions.items() if info.offered and name != fallback]
    if not candidates:
        return fallback, f"{fallback}: '{device.name}' computes in nothing else here"
    files = identity(checkpoint)
    best, passed_over = None, []
    for precision in candidates:
        report = find(model, device.name, precision, files)
        if report is None:
            passed_over.append(
                f"{precision} has no quality report for this checkpoint on '{device.name}' (the export makes one: `quality`)"
            )
        elif report.faults:
            passed_over.append(f"{precision} is outside the bound: {', '.join(report.faults)}")
        elif report.speed <= (best.speed if best else 1.0):
            passed_over.append(f"{precision} is no faster: {report.in_words()}")
        else:
            best = report
    if best is None:
        return fallback, f"{fallback}, because {'; '.join(passed_over)}"
    return best.precision, f"{best.precision}, {best.in_words()}"


def _place(model: str, device: str, precision: Precision, files: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(json.dumps([FORMAT, device, precision, sorted(files.items())]).encode()).hexdigest()
    name = plain_name(f"{model}-{device}-{precision}")
    return zoo_home() / CACHE.name / f"{name}-{digest[:16]}.json"
