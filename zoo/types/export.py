"""From weights to the file that a device opens: checkpoints, artifacts, and the steps between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8"]
Head: TypeAlias = Mapping[str, "str | int | float | bool | None"]
"""What an architecture's options decide of the graph, for example ``{"kind": "tokens", "positive": 9693, "negative": 2152}``.

Empty means the classification head that the checkpoint has. It stands in the export request, in the artifact and in its key.
"""


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
    they are called with a ``zoo.api.Job``, each in a child process of its own, unless the step is ``light``.
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
    light: bool = False
    """For the step ``export``: its functions take little time and memory, and leave the process as it was. One child process calls all of
    them, for a small model the process that asks."""
