"""Compiled engines on disk: made once for a model, shapes, precision and runtime, and found again.

Beside each engine file lies ``<file>.json``, which tells what the engine itself does not: inputs in graph order, shapes, precision.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from zoo.api import Digests, Precision, ZooError, fingerprint, zoo_home
from zoo_sdaa import runtime
from zoo_sdaa.engine_shapes import EngineShapes
from zoo_sdaa.options import SdaaOptions
from zoo_sdaa.runtime_adapters import Adapter

logger = logging.getLogger("zoo.sdaa")

SUFFIXES = (".tecoengine", ".engine")


class DamagedEngineError(ZooError):
    """An engine file is not what the manifest beside it was written for."""


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what the compiler makes. It lies beside an engine file."""

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

    def on(self, engines: int) -> EngineShapes:
        """The same engine on ``engines`` SPAs."""
        return EngineShapes(inputs=self.shapes, outputs=self.outputs, engines=engines)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's info with the content it was written for: a file that was cut short or exchanged is not loaded."""

    facts: EngineInfo
    sha256: str
    bytes: int


@dataclass(frozen=True)
class EngineFile:
    """An engine on disk and, if it is known, the info beside it."""

    path: Path
    info: EngineInfo | None


def info_for(
    model: Path, shapes: EngineShapes, precision: Precision, adapter: Adapter, pass_path: Path | None
) -> EngineInfo:
    """What an engine of ``model`` would be."""
    digests = Digests(zoo_home() / "digests.json")
    return EngineInfo(
        shapes={name: list(shape) for name, shape in shapes.inputs.items()},
        outputs=list(shapes.outputs),
        precision=precision,
        generation=adapter.generation,
        runtime=runtime.version(),
        model=fingerprint(model, digests),
        passes=digests.of(pass_path) if pass_path else "default",
    )


def sidecar(engine: Path) -> Path:
    return engine.with_name(engine.name + ".json")


def read_engine(path: Path) -> EngineFile:
    """An engine file with its info. Raises DamagedEngineError if it is not what its manifest says, ZooError if it cannot be read."""
    beside = sidecar(path)
    try:
        if not path.is_file():
            raise ZooError(f"there is no engine file {path}")
        if not beside.is_file():
            return EngineFile(path, None)
        manifest = msgspec.json.decode(beside.read_bytes(), type=Manifest)
        whole = path.stat().st_size == manifest.bytes and _sha256(path) == manifest.sha256
    except msgspec.DecodeError as error:
        raise DamagedEngineError(
            f"{beside} cannot be read: {error}. Delete it to load {path.name} without it"
        ) from error
    except OSError as error:
        raise ZooError(f"the engine {path} cannot be read: {error.strerror or error}") from error
    if not whole:
        raise DamagedEngineError(
            f"{path} is not the file that {beside.name} was written for: it was cut short or exchanged"
        )
    return EngineFile(path, manifest.facts)


def write_engine(save: Callable[[Path], None], path: Path, info: EngineInfo) -> None:
    """Write an engine aside, under its own name, and its manifest; then put both in place, the manifest last. Raises ZooError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Beside the place, for a rename; of the same name, for the runtime may go by the suffix.
        with tempfile.TemporaryDirectory(prefix="making-", dir=path.parent) as folder:
            aside = Path(folder) / path.name
            save(aside)
            manifest = Manifest(facts=info, sha256=_sha256(aside), bytes=aside.stat().st_size)
            sidecar(aside).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
            aside.replace(path)
            sidecar(aside).replace(sidecar(path))
    except OSError as error:
        raise ZooError(f"cannot write the engine {path}: {error.strerror or error}") from error


class EngineCache:
    """``$ZOO_HOME/engines``: a folder an engine, complete or absent."""

    def __init__(self, home: Path | None = None) -> None:
        self.folder = (home or zoo_home()) / "engines"

    def find(self, info: EngineInfo) -> Path | None:
        """The engine that ``info`` describes, unless it is damaged; a damaged one is removed. Raises ZooError if it cannot be read."""
        path = self._path(info)
        if not path.is_file():
            return None
        try:
            if read_engine(path).info == info:
                return path
            reason = "its manifest is missing, or is that of another engine"
        except DamagedEngineError as error:
            reason = str(error)
        logger.warning("the kept engine %s is damaged and is compiled anew: %s", path, reason)
        shutil.rmtree(path.parent, ignore_errors=True)
        return None

    def keep(self, info: EngineInfo, save: Callable[[Path], None]) -> Path:
        """Write an engine into a temporary folder and rename it; the loser of a race takes the winner's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=self.folder))
        try:
            write_engine(save, making / self._path(info).name, info)
            try:
                making.rename(self._path(info).parent)
            except OSError:
                if not self._path(info).is_file():
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return self._path(info)

    def _path(self, info: EngineInfo) -> Path:
        rows, length = next(iter(info.shapes.values()))
        # Tecorigin names engines by their input shape.
        return self.folder / info.key() / f"model_{rows}_{length}_{info.precision}.tecoengine"


def shapes_of(file: EngineFile, chosen: SdaaOptions, shape: list[int], engines: int) -> EngineShapes:
    """What a ready engine takes: as its manifest says or, with ``shape``, as the user does. Raises ZooError if neither says it."""
    if file.info is not None:
        return file.info.on(engines)
    if not chosen.inputs:
        raise ZooError(
            f"{file.path} does not tell its inputs, and no {sidecar(file.path).name} lies beside it. Name them in graph order by the "
            "device option inputs, for example inputs=input_ids,attention_mask; `batch_size` and `max_length` must be those it was "
            "compiled for"
        )
    return EngineShapes(inputs=dict.fromkeys(chosen.inputs, shape), outputs=chosen.outputs, engines=engines)


def check_engine(file: EngineFile, precision: Precision, adapter: Adapter, max_length: int) -> None:
    """Refuse an engine that was made for something else than this run; warn if only the runtime's version differs."""
    info = file.info
    if info is None:
        return
    if info.precision != precision:
        raise ZooError(
            f"{file.path} was compiled in {info.precision}, not {precision}: give `precision` {info.precision}"
        )
    if info.generation != adapter.generation:
        raise ZooError(
            f"{file.path} is of TecoInference's generation {info.generation}, and this is generation {adapter.generation}: "
            f"give the device option generation={info.generation}, or compile it again from the ONNX file"
        )
    length = next(iter(info.shapes.values()))[1]
    if max_length > length:
        raise ZooError(f"{file.path} was compiled for {length} tokens: give `max_length` {length} or less")
    if info.runtime != runtime.version():
        logger.warning("%s was compiled by %s, and this is %s", file.path, info.runtime, runtime.version())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
