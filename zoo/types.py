"""What crosses the boundaries between the runner, the models, the devices and the export steps.

Data goes one way: weights -> artifact -> session, and pairs -> encodings -> inputs -> outputs -> scores -> run -> metrics. Nothing
here is mutated once it is made, and nothing here imports more than numpy's type names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from zoo.options import Option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors: TypeAlias = Mapping[str, NDArray[Any]]
    Scores: TypeAlias = NDArray[np.float32]
else:
    Tensors = Scores = Any  # numpy is imported by the stages that compute, never by a listing

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8"]
Head: TypeAlias = Mapping[str, "str | int | float | bool | None"]
"""What an architecture's options decide of the graph, for example ``{"kind": "tokens", "positive": 9693, "negative": 2152}``.

Empty means the classification head that the checkpoint has. It stands in the export request, in the artifact and in its key.
"""
Run: TypeAlias = Mapping[str, Mapping[str, float]]
"""query id -> passage id -> score."""
Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""query id -> passage id -> graded relevance."""


class Pair(NamedTuple):
    """What a reranker scores: a ``query`` and a ``passage``.

    ``instruction`` says what is asked for, to a model that reads instructions; empty means the model's own.
    """

    query: str
    passage: str
    instruction: str = ""


class Encoding(NamedTuple):
    """One pair as the model reads it: truncated, not padded.

    ``features`` maps a graph input's name to token-level integers, all of one length; ``attention_mask`` is
    left out because padding decides it. The first feature gives the pair's length.
    """

    features: Mapping[str, Sequence[int]]
    passage_truncated: bool = False
    """Whether text of the passage was cut off, at the length limit of the pair."""
    query_truncated: bool = False
    """Whether text of the query was cut off, at its own length limit."""
    unknown: int = 0
    """Tokens that stand for text which the vocabulary does not know."""

    @property
    def length(self) -> int:
        """Tokens, special tokens included."""
        return len(next(iter(self.features.values())))


@dataclass(frozen=True)
class Encodings:
    """Encodings in the order of their pairs, with the value that pads each feature.

    ``padding_side`` is where a row shorter than its batch is filled. ``groups`` numbers the query of each row, for an architecture
    that computes the leading tokens of one query's rows once; ``shared`` counts these leading tokens, row by row. Rows of one group
    stay together in a batch as far as its size allows, and batching counts their shared tokens once.
    """

    rows: Sequence[Encoding]
    padding: Mapping[str, int]
    padding_side: Literal["right", "left"] = "right"
    groups: Sequence[int] | None = None
    shared: Sequence[int] | None = None


@dataclass(frozen=True, kw_only=True)
class BatchInfo:
    """What a stage may want to know of a padded batch beside its arrays.

    ``rows`` counts the rows that are pairs; rows after them only fill a fixed shape. ``groups`` and ``shared`` are those of
    ``Encodings``, for these rows, or None. ``padding_side`` is where shorter rows were filled.
    """

    rows: int
    tokens: int
    """Real tokens of the rows that are pairs."""
    padding_side: Literal["right", "left"] = "right"
    groups: tuple[int, ...] | None = None
    shared: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ShapeRule:
    """The batches a session wants.

    ``rows`` and ``length`` are exact where they are set (a compiled engine); otherwise a batch has at most the
    rows the user asked for, or, where the user left that to the device, at most ``tokens`` slots (rows x padded length); it is
    padded to its longest row rounded up to ``length_multiple``, and has ``auto_rows`` rows at most.
    ``parallel_batches`` is how many batches the session computes at once.
    """

    rows: int | None = None
    length: int | None = None
    length_multiple: int = 1
    tokens: int | None = None
    auto_rows: int = 32
    """More rows gain nothing on a CPU, however short they are."""
    parallel_batches: int = 1


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether something can be used here (``ok``) and, if not, why (``reason``) and what to do about it (``remedy``).

    ``details`` are shown by ``zoo devices``: what the hardware is, for example.
    """

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
    """A folder with a tokenizer and a config, and usually weights; ``served_by`` tells where it came from.

    ``revision`` is the commit of the repository that it was fetched from; None for a folder of the user's.
    """

    folder: Path
    served_by: str
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointOffer:
    """What an architecture answers when it is asked for a checkpoint that no card is written for: whether it is ``available``.

    ``max_length`` is the longest input in tokens. ``reason`` says why it cannot be opened, if the architecture knows checkpoints of its
    kind, and ``remedy`` what to do; both are empty if it does not.
    """

    available: bool
    max_length: int = 0
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one step of a recipe did, for the artifact's manifest: its ``name`` and ``version``, and how many ``seconds`` it took.

    ``rank_correlation`` is Spearman's, of the scores of the file after the step and those of ``compared_with``. ``max_abs_error`` and
    ``max_rel_error`` compare the file after the step with ``compared_with`` on ``pairs`` pairs of ``lengths`` tokens; the relative error is
    the largest difference over the largest score, and ``tolerance`` is its bound. They are None if the step's file could not be evaluated,
    and ``note`` says so. ``skipped`` says why the step was left out.
    """

    name: str
    seconds: float
    peak_memory: int
    """Bytes that the step's process held at most."""
    version: str = ""
    plugin: str = ""
    """Who offers the step: plugin, distribution and version."""
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
    """What a device opens: a model file or, for a recipe of no steps, the folder of the checkpoint itself.

    ``model`` is the file or the folder; ``is_checkpoint`` tells which. ``precision`` is that of its weights and arithmetic;
    ``origin`` says in words where it came from. ``weights_folder`` is where the file's external data lies if that is not beside it.
    ``head`` is what the architecture's options decided. An exporter also gives what it did, step by step, and the versions of
    the programs it used.
    """

    model: Path
    precision: Precision
    origin: str
    is_checkpoint: bool = False
    weights_folder: Path | None = None
    head: Head = field(default_factory=dict)
    steps: tuple[StepReport, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    borrowed: Mapping[str, Path] = field(default_factory=dict)
    """Files outside the artifact's folder that it reads weights from, by the name the graph gives them."""


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Make an artifact inside ``folder``, by the named steps of ``recipe``.

    The steps start from ``checkpoint``, or from the model file ``source`` if that is given; one of both may be None. ``precision`` is that
    of the file to make, ``task`` the head that an exporter has to produce, in optimum's words. ``head`` is what the architecture's options
    decide of the graph. ``exporter`` names who is to do the step ``export``; empty means the one with the lowest cost. ``options`` are for
    the steps: ``sequence_length``, ``batch_size``, ``monolith`` and ``optimize`` as optimum has them for ``export``, ``timeout`` (seconds)
    and ``memory`` (bytes) for ``simplify``, ``external_data`` and ``file_name`` for the result's form.
    """

    recipe: tuple[str, ...]
    precision: Precision
    folder: Path
    task: str = "text-classification"
    checkpoint: Checkpoint | None = None
    source: Path | None = None
    head: Head = field(default_factory=dict)
    exporter: str = ""
    options: Mapping[str, str | int | bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExportOffer:
    """What an exporter answers when it is asked for a checkpoint whose config.json is here, before weights are fetched.

    ``cost_seconds`` is about how long it would take; the available exporter of the lowest cost is taken.
    ``reason`` says why it is not available, naming the key of the config or the missing package, and ``remedy`` what to do.
    ``covers`` are the steps after ``export`` that it does itself.
    """

    available: bool
    cost_seconds: float = 0.0
    covers: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One named step of a recipe, from a folder with a model file to another. A plugin offers it through ``zoo_steps``.

    ``needs``, ``gives`` and ``takes`` are facts about the file (``zoo.export.steps`` names the usual ones); a recipe that asks for
    something an earlier step has taken is refused. ``run``, ``reference`` and ``evaluate`` are written ``package.module:function``;
    they are called in a child process with a ``zoo.api.Job``.
    """

    name: str
    version: str
    """Part of every key: a new one makes artifacts again."""
    summary: str
    """What it does, in a few words, for listings."""
    run: str
    """Makes the file ``job.output`` from ``job.model`` or ``job.checkpoint``; may return ``{"note": ...}``."""
    needs: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    space: float = 1.1
    """Disk it writes at most, as a multiple of the weights in float32."""
    space_split: float | None = None
    """The same past 2 GB, if that differs."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Python modules it needs, each with the name of its package."""
    tolerance: float = 1e-4
    """Largest difference from the source's scores allowed after it, over the largest score of the source."""
    lowers_to: Precision | None = None
    """The precision it lowers a file to."""
    runtime_ops: bool = False
    """Whether it writes operators of ONNX Runtime's own, which may change with its minor version."""
    only_faster: bool = False
    """No device needs it: it is not done to a file that came with the checkpoint."""
    may_fail: bool = False
    """A recipe goes on without it if it dies or if its modules are missing."""
    spellings: tuple[str, ...] = ()
    """Older names that still work."""
    exporter: str = ""
    """For the step ``export``, which several plugins may offer: the name that ``--exporter`` takes."""
    can: Callable[[ExportRequest], ExportOffer] | None = None
    """For the step ``export``: whether it can do this request here, and at what cost."""
    reference: str = ""
    """Writes the probe pairs and the logits they should get to ``job.reference``."""
    evaluate: str = ""
    """The logits of the file ``job.model`` for those pairs. Without it the step is reported as unproven."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """How a device opens an artifact.

    ``precision`` is what it computes in. ``batch_size`` is the rows the user asked for; None leaves them to the device. ``max_length`` is
    the longest row in tokens. ``selector`` is what followed the device's name (``sdaa:1``); ``threads`` None means what the process may
    use; ``extra`` holds a device's own options by name.
    """

    precision: Precision
    batch_size: int | None
    max_length: int
    threads: int | None = None
    selector: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Session(Protocol):
    """An opened artifact. It is a context manager; ``close`` may be called twice."""

    @property
    def input_names(self) -> Sequence[str]:
        """The graph's inputs, in graph order."""
        ...

    @property
    def shape_rule(self) -> ShapeRule:
        """The batches this session wants."""
        ...

    @property
    def device_seconds(self) -> float | None:
        """Seconds of device time so far by the runtime's own counter, or None if it has none."""
        ...

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        """Start one batch; several may be in flight. The arrays of the result belong to the caller.

        ``outputs`` names those that are wanted; None means all of them.
        """
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
    ``precisions`` lists what it can run; the first is its default. ``aliases`` are other spellings of ``name``. A device of cards may
    have ``resource``, the name under which Ray counts them on a node: ``GPU`` for NVIDIA's.
    """

    @property
    def name(self) -> str:
        """What ``--target`` takes: small letters, digits, ``.``, ``_`` and ``-``."""
        ...

    @property
    def aliases(self) -> Sequence[str]:
        """Other spellings of ``name``."""
        ...

    @property
    def priority(self) -> int:
        """Where it stands in the choice of a default device: the cpu has 0, cards have more."""
        ...

    @property
    def precisions(self) -> Mapping[Precision, PrecisionInfo]:
        """What it can run in on this machine, the default first."""
        ...

    @property
    def options(self) -> Sequence[Option]:
        """What ``--device-option`` takes. Values are checked before ``open`` gets them in ``SessionOptions.extra``."""
        ...

    def probe(self) -> Availability:
        """Is the runtime, is the hardware here? Cheap, and never raises."""
        ...

    def recipe(self, precision: Precision, checkpoint: Checkpoint | None = None) -> tuple[str, ...]:
        """The named steps from a checkpoint to the file that ``open`` wants; none if ``open`` wants the checkpoint itself.

        ``checkpoint`` is None as long as it has not been found.
        """
        ...

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        """Load or compile an artifact. Raises ZooError with a remedy if it cannot."""
        ...


@dataclass(frozen=True, kw_only=True)
class CommandOffer:
    """A command that a plugin adds to ``zoo``: its one-line summary, and the click command as ``package.module:attribute``."""

    summary: str
    command: str


@dataclass(frozen=True, kw_only=True)
class CacheFolder:
    """A folder below ZOO_HOME, called ``name``, in which a plugin keeps what can be made again; ``zoo cache`` shows and empties it."""

    name: str
    holds: str
    """What lies there, in words: 'compiled engines'."""
