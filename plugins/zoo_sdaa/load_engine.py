"""From an artifact to an engine on the card of this process: loaded if it was compiled before, else compiled."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.api import Artifact, SessionOptions, ZooError
from zoo_sdaa.compile import build, stdout_to_stderr
from zoo_sdaa.contexts import Context
from zoo_sdaa.engine_cache import (
    SUFFIXES,
    EngineCache,
    EngineInfo,
    check_engine,
    info_for,
    read_engine,
    shapes_of,
    write_engine,
)
from zoo_sdaa.engine_shapes import EngineShapes, engine_batch, rows_asked, shapes_for
from zoo_sdaa.onnx_model import check_types, load_graph
from zoo_sdaa.options import SdaaOptions, engines
from zoo_sdaa.pass_module import load_passes
from zoo_sdaa.runtime import WrongVersionError
from zoo_sdaa.runtime_adapters import Adapter, load_adapter

logger = logging.getLogger("zoo.sdaa")

MakeEngine = Callable[[], Any]


def load_engine(artifact: Artifact, options: SessionOptions, chosen: SdaaOptions) -> tuple[Context, EngineShapes]:
    """An engine of ``artifact`` that is ready to run, and its shapes. Raises ZooError."""
    with stdout_to_stderr():
        adapter = load_adapter(chosen.generation, spa=chosen.spa)
        spas = 1 if chosen.synchronous else engines()
        if artifact.model.suffix in SUFFIXES:
            make, shapes = _ready_engine(adapter, artifact.model, options, chosen, spas)
        else:
            make, shapes = _compiled_engine(adapter, artifact.model, options, chosen, spas)
        try:
            return adapter.context(make(), len(shapes.outputs), synchronous=chosen.synchronous, spa=chosen.spa), shapes
        except WrongVersionError:
            raise
        except ZooError as error:
            raise ZooError(
                f"the card does not take the engine: {error}. Another process may use it, or it has less memory than the engine needs: "
                "look at teco-smi. The compiled engine is kept"
            ) from error


def _ready_engine(
    adapter: Adapter, path: Path, options: SessionOptions, chosen: SdaaOptions, spas: int
) -> tuple[MakeEngine, EngineShapes]:
    file = read_engine(path)
    check_engine(file, options.precision, adapter, options.max_length)
    shape = [engine_batch(rows_asked(options), spas), options.max_length]
    return lambda: adapter.engine_file(path), shapes_of(file, chosen, shape, spas)


def _compiled_engine(
    adapter: Adapter, model: Path, options: SessionOptions, chosen: SdaaOptions, spas: int
) -> tuple[MakeEngine, EngineShapes]:
    """From the cache, else by the compiler, which fills the cache."""
    passes = load_passes(chosen.pass_path)
    graph = load_graph(model)
    check_types(model, graph, options.precision, converts=passes.converts)
    shapes = shapes_for(model, graph, batch_size=rows_asked(options), max_length=options.max_length, engines=spas)
    info = info_for(model, shapes, options.precision, adapter, chosen.pass_path)
    cache = EngineCache()
    kept = cache.find(info)
    if kept is not None:
        logger.info("sdaa: engine %s, compiled before", kept)
        _save_for_user(kept, info, model, chosen.save_engine)
        return lambda: adapter.engine_file(kept), shapes
    library = build(model, shapes, options.precision, passes)
    try:
        kept = cache.keep(info, lambda path: adapter.save(library, path))
    except (OSError, ZooError) as error:
        logger.warning("the engine is not kept for the next run: %s", error)
        if chosen.save_engine:
            write_engine(lambda path: adapter.save(library, path), _named(chosen.save_engine, info, model), info)
    else:
        _save_for_user(kept, info, model, chosen.save_engine)
    return lambda: adapter.engine(library), shapes


def _save_for_user(kept: Path, info: EngineInfo, model: Path, asked: Path | None) -> None:
    if asked is not None:
        path = _named(asked, info, model)
        write_engine(lambda aside: _copy(kept, aside), path, info)
        logger.info("sdaa: engine saved as %s", path)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _named(asked: Path, info: EngineInfo, model: Path) -> Path:
    """A folder gets a file that is named as Tecorigin names engines: by model and input shape."""
    if not asked.is_dir():
        return asked
    rows, length = next(iter(info.shapes.values()))
    return asked / f"{model.stem}_{rows}_{length}_{info.precision}.tecoengine"
