"""What crosses the boundaries between the runner, the models and the devices.

Data goes one way: pairs -> encodings -> inputs -> outputs -> scores -> run -> metrics. Nothing here is mutated
once it is made, and nothing here imports more than numpy's type names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors: TypeAlias = Mapping[str, NDArray[Any]]
    Scores: TypeAlias = NDArray[np.float32]
else:
    Tensors = Scores = Any  # numpy is imported by the stages that compute, never by a listing

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8"]
Run: TypeAlias = Mapping[str, Mapping[str, float]]
"""query id -> passage id -> score."""
Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""query id -> passage id -> graded relevance."""


class Pair(NamedTuple):
    """What a reranker scores."""

    query: str
    passage: str


class Encoding(NamedTuple):
    """One pair as the model reads it: truncated, not padded.

    ``features`` maps a graph input's name to token-level integers, all of one length; ``attention_mask`` is
    left out because padding decides it.
    """

    features: Mapping[str, Sequence[int]]
    passage_truncated: bool = False
    query_truncated: bool = False

    @property
    def length(self) -> int:
        """Tokens, special tokens included."""
        return len(self.features["input_ids"])


@dataclass(frozen=True)
class Encodings:
    """Encodings in the order of their pairs, with the value that pads each feature."""

    rows: Sequence[Encoding]
    padding: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class ShapeRule:
    """The batches a session wants.

    ``rows`` and ``length`` are exact where they are set (a compiled engine); otherwise a batch has at most the
    rows the user asked for, or, where the user left that to the device, at most ``tokens`` slots (rows x padded length); it is
    padded to its longest row rounded up to ``length_multiple``. ``parallel_batches`` is how many batches the session computes at once.
    """

    rows: int | None = None
    length: int | None = None
    length_multiple: int = 1
    tokens: int | None = None
    parallel_batches: int = 1


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether something can be used here and, if not, why and what to do about it."""

    ok: bool
    reason: str = ""
    remedy: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PrecisionInfo:
    """What a device says of a precision: offered by itself, or only on request, with its cost.

    It offers what the hardware here computes natively; ``--precision auto`` chooses among those.
    """

    offered: bool
    cost: str = ""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A folder with a tokenizer and a config, and usually weights; ``served_by`` tells where it came from."""

    folder: Path
    served_by: str
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one step of a recipe did, for the artifact's manifest.

    ``max_abs_error`` and ``max_rel_error`` compare the file after the step with ``compared_with`` on ``pairs`` pairs of
    ``lengths`` tokens; the relative error is the largest difference over the largest score, and ``tolerance`` is its bound.
    ``skipped`` says why the step was left out.
    """

    name: str
    seconds: float
    peak_memory: int
    """Bytes that the step's process held at most."""
    max_abs_error: float | None = None
    max_rel_error: float | None = None
    tolerance: float | None = None
    rank_correlation: float | None = None
    compared_with: str = ""
    pairs: int = 0
    lengths: tuple[int, ...] = ()
    note: str = ""
    skipped: str = ""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A model file a device can open.

    ``precision`` is that of its weights and arithmetic; ``origin`` says in words where the file came from. An exporter also
    gives what it did, step by step, and the versions of the programs it used.
    """

    model: Path
    precision: Precision
    origin: str
    steps: tuple[StepReport, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Make an artifact inside ``folder``, by the named steps of ``recipe``.

    The steps start from ``checkpoint``, or from the model file ``source`` where that is given; one of both may be None.
    ``options`` are for the steps: ``sequence_length``, ``batch_size``, ``monolith`` and ``optimize`` as optimum has them for
    ``export``, ``timeout`` (seconds) and ``memory`` (bytes) for ``simplify``, ``external_data`` and ``file_name`` for the result's form.
    """

    recipe: tuple[str, ...]
    precision: Precision
    folder: Path
    task: str = "text-classification"
    checkpoint: Checkpoint | None = None
    source: Path | None = None
    options: Mapping[str, str | int | bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """How a device opens an artifact.

    ``batch_size`` is the rows the user asked for; None leaves them to the device. ``selector`` is what followed the device's
    name (``sdaa:1``); ``threads`` None means what the process may use; ``extra`` holds a device's own options by name.
    """

    precision: Precision
    batch_size: int | None
    max_length: int
    threads: int | None = None
    selector: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Session(Protocol):
    """An opened artifact. It is a context manager; ``close`` may be called twice.

    A session whose runtime counts the device's own time may also have ``device_seconds``: seconds of it so far, or None.
    """

    @property
    def input_names(self) -> Sequence[str]:
        """The graph's inputs, in graph order."""
        ...

    @property
    def shape_rule(self) -> ShapeRule:
        """The batches this session wants."""
        ...

    def submit(self, inputs: Tensors) -> Future[Tensors]:
        """Start one batch; several may be in flight. The arrays of the result belong to the caller."""
        ...

    def close(self) -> None:
        """Release what is held on the device, whatever state it is in."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(self, *exc_info: object) -> None: ...


@runtime_checkable
class Device(Protocol):
    """Something that opens artifacts and runs them.

    ``priority`` orders the choice of a default device: the available device with the highest wins.
    ``precisions`` lists what it can run; the first is its default. ``aliases`` are other spellings of ``name``.
    """

    @property
    def name(self) -> str: ...

    @property
    def aliases(self) -> Sequence[str]: ...

    @property
    def priority(self) -> int: ...

    @property
    def precisions(self) -> Mapping[Precision, PrecisionInfo]: ...

    def probe(self) -> Availability:
        """Is the runtime, is the hardware here? Cheap, and never raises."""
        ...

    def recipe(self, precision: Precision) -> tuple[str, ...]:
        """The named steps from a checkpoint to the file that ``open`` wants."""
        ...

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        """Load or compile an artifact. Raises ZooError with a remedy where it cannot."""
        ...
