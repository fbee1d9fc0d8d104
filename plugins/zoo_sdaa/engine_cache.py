"""Compiled engines on disk: made once for a model, shapes, precision and runtime, and found again.

Beside each engine file lies ``<file>.json``, which tells what the engine itself does not: inputs in graph order, shapes, precision.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from zoo.api import Precision, ZooError, zoo_home
from zoo_sdaa import runtime
from zoo_sdaa.engine_shapes import Plan, file_hash, fingerprint
from zoo_sdaa.options import SdaaOptions
from zoo_sdaa.runtime_adapters import Generation

logger = logging.getLogger("zoo.sdaa")

SUFFIXES = (".tecoengine", ".engine")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside an engine file."""

    shapes: dict[str, list[int]]
    """Input name to the shape of one engine, in graph order."""
    outputs: list[str]
    precision: Precision
    generation: int
    runtime: str
    model: str
    """sha256 of the ONNX file and its weights."""
    passes: str
    """sha256 of the pass module, or ``default``."""

    def key(self) -> str:
        """The name of the engine's folder in the cache."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:32]

    def plan(self, engines: int) -> Plan:
        """The same engine on ``engines`` SPAs."""
        return Plan(shapes=self.shapes, outputs=self.outputs, engines=engines)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Facts with what they were written for: an engine file that was cut short or exchanged is not loaded."""

    facts: Facts
    sha256: str
    bytes: int


@dataclass(frozen=True)
class EngineFile:
    """An engine on disk and, where they are known, the facts beside it."""

    path: Path
    facts: Facts | None


def facts_for(model: Path, plan: Plan, precision: Precision, generation: Generation, pass_path: Path | None) -> Facts:
    """All that decides what the compiler makes."""
    passes = file_hash(pass_path) if pass_path else "default"
    return Facts(
        shapes={name: list(shape) for name, shape in plan.shapes.items()},
        outputs=list(plan.outputs),
        precision=precision,
        generation=generation.number,
        runtime=runtime.version(),
        model=fingerprint(model),
        passes=passes,
    )


def sidecar(engine: Path) -> Path:
    return engine.with_name(engine.name + ".json")


def read_engine(path: Path) -> EngineFile:
    """A user's engine file. Raises ZooError where it is not what the manifest beside it says."""
    if not path.is_file():
        raise ZooError(f"there is no engine file {path}")
    beside = sidecar(path)
    if not beside.is_file():
        return EngineFile(path, None)
    try:
        manifest = msgspec.json.decode(beside.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, OSError) as error:
        raise ZooError(f"{beside} cannot be read: {error}. Delete it to load {path.name} without it") from error
    if path.stat().st_size != manifest.bytes or file_hash(path) != manifest.sha256:
        raise ZooError(f"{path} is not the file that {beside.name} was written for: it was cut short or exchanged")
    return EngineFile(path, manifest.facts)


def write_engine(save: Callable[[Path], None], path: Path, facts: Facts) -> None:
    """Write an engine aside, its manifest last, and give both their names. Raises ZooError."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(aside)
        manifest = Manifest(facts=facts, sha256=file_hash(aside), bytes=aside.stat().st_size)
        aside.replace(path)
        beside = sidecar(aside)
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        beside.replace(sidecar(path))
    except OSError as error:
        raise ZooError(f"cannot write the engine {path}: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


class EngineCache:
    """``$ZOO_HOME/engines``: a folder an engine, complete or absent."""

    def __init__(self, home: Path | None = None) -> None:
        self.folder = (home or zoo_home()) / "engines"

    def find(self, facts: Facts) -> Path | None:
        """The engine made for ``facts``, unless it is damaged; a damaged one is removed."""
        path = self._path(facts)
        if not path.is_file():
            return None
        try:
            if read_engine(path).facts == facts:
                return path
            reason = "its manifest is missing or tells of another engine"
        except ZooError as error:
            reason = str(error)
        logger.warning("the kept engine %s is damaged and is compiled anew: %s", path, reason)
        self.drop(facts)
        return None

    def keep(self, facts: Facts, save: Callable[[Path], None]) -> Path:
        """Write an engine into a temporary folder and rename it; the loser of a race takes the winner's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=self.folder))
        try:
            write_engine(save, making / self._path(facts).name, facts)
            try:
                making.rename(self._path(facts).parent)
            except OSError:
                if not self._path(facts).is_file():
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return self._path(facts)

    def drop(self, facts: Facts) -> None:
        shutil.rmtree(self._path(facts).parent, ignore_errors=True)

    def _path(self, facts: Facts) -> Path:
        rows, length = next(iter(facts.shapes.values()))
        # The vendor names engines by their input shape.
        return self.folder / facts.key() / f"model_{rows}_{length}_{facts.precision}.tecoengine"


def plan_of(file: EngineFile, chosen: SdaaOptions, shape: list[int], engines: int) -> Plan:
    """What a ready engine takes: as its manifest says or, with ``shape``, as the user does. Raises ZooError where nobody says."""
    if file.facts is not None:
        return file.facts.plan(engines)
    if not chosen.inputs:
        raise ZooError(
            f"{file.path} does not tell its inputs, and no {sidecar(file.path).name} lies beside it. Name them in graph order, for "
            "example --device-option inputs=input_ids,attention_mask; --batch-size and --shape must be those it was compiled for"
        )
    return Plan(shapes=dict.fromkeys(chosen.inputs, shape), outputs=chosen.outputs, engines=engines)


def check_engine(file: EngineFile, precision: Precision, generation: Generation, max_length: int) -> None:
    """Refuse an engine that was made for something else than this run; tell where only the runtime's version differs."""
    facts = file.facts
    if facts is None:
        return
    if facts.precision != precision:
        flag = "--half" if facts.precision == "fp16" else "--no-half"
        raise ZooError(f"{file.path} was compiled in {facts.precision}, not {precision}: use {flag}")
    if facts.generation != generation.number:
        raise ZooError(
            f"{file.path} is of TecoInference's generation {facts.generation}, and this is generation {generation.number}: "
            f"use --device-option generation={facts.generation}, or compile it again from the ONNX file"
        )
    length = next(iter(facts.shapes.values()))[1]
    if max_length > length:
        raise ZooError(f"{file.path} was compiled for {length} tokens: use --shape {length} or less")
    if facts.runtime != runtime.version():
        logger.warning("%s was compiled by %s, and this is %s", file.path, facts.runtime, runtime.version())
