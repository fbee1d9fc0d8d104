"""What opens an artifact and computes batches: devices and their sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from zoo.options import Option
from zoo.types.data import Tensors
from zoo.types.export import Artifact, Checkpoint, Precision


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
