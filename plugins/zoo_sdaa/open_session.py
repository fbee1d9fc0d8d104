"""From an artifact to a session on the card that this process uses."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from zoo.api import Artifact, SessionOptions, ZooError
from zoo_sdaa.compile import build, chatter_to_stderr
from zoo_sdaa.engine_cache import (
    SUFFIXES,
    EngineCache,
    Facts,
    check_engine,
    facts_for,
    plan_of,
    read_engine,
    write_engine,
)
from zoo_sdaa.engine_shapes import Plan, engine_batch, plan_for, rows_asked
from zoo_sdaa.options import SdaaOptions, engines
from zoo_sdaa.runtime_adapters import Context, Generation, generation
from zoo_sdaa.session import RuntimeThread, SdaaSession

logger = logging.getLogger("zoo.sdaa")


def open_here(name: str, artifact: Artifact, options: SessionOptions, chosen: SdaaOptions) -> SdaaSession:
    """Compile or load ``artifact`` in this process. ``name`` is how messages call the card. Raises ZooError."""
    thread = RuntimeThread(name, chosen.timeout)
    making = thread.submit(lambda: _prepare(artifact, options, chosen), watched=False)
    try:
        context, plan = making.result()
    except BaseException:
        # An interrupted compilation runs on; what it makes in the end is given back.
        making.add_done_callback(_release_result)
        thread.stop()
        raise
    rows = plan.rule.rows
    if rows != rows_asked(options):
        logger.info(
            "%s: batches of %d rows (%d SPAs x %d), where --batch-size says %d; rows that are missing are filled and not counted",
            name, rows, plan.engines, (rows or 0) // plan.engines, rows_asked(options),
        )  # fmt: skip
    return SdaaSession(name, thread, context, plan)


def _prepare(artifact: Artifact, options: SessionOptions, chosen: SdaaOptions) -> tuple[Context, Plan]:
    with chatter_to_stderr():
        adapter = generation(chosen.generation, spa=chosen.spa)
        spas = 1 if chosen.synchronous else engines()
        if artifact.model.suffix in SUFFIXES:
            engine, plan = _ready_engine(adapter, artifact.model, options, chosen, spas)
        else:
            plan = plan_for(artifact.model, batch_size=rows_asked(options), max_length=options.max_length, engines=spas)
            engine = _compiled_engine(adapter, artifact.model, plan, options, chosen)
        return adapter.context(engine, synchronous=chosen.synchronous, spa=chosen.spa), plan


def _ready_engine(
    adapter: Generation, path: Path, options: SessionOptions, chosen: SdaaOptions, spas: int
) -> tuple[Any, Plan]:
    file = read_engine(path)
    check_engine(file, options.precision, adapter, options.max_length)
    shape = [engine_batch(rows_asked(options), spas), options.max_length]
    plan = plan_of(file, chosen, shape, spas)
    return adapter.engine_file(path), plan


def _compiled_engine(adapter: Generation, model: Path, plan: Plan, options: SessionOptions, chosen: SdaaOptions) -> Any:
    """From the cache, else by the compiler, which fills the cache."""
    cache = EngineCache()
    facts = facts_for(model, plan, options.precision, adapter, chosen.pass_path)
    kept = cache.find(facts)
    if kept is not None:
        try:
            engine = adapter.engine_file(kept)
        except ZooError as error:
            logger.warning("the kept engine %s cannot be loaded and is compiled anew: %s", kept, error)
            cache.drop(facts)
        else:
            logger.info("sdaa: engine %s, compiled before", kept)
            _save_for_user(kept, facts, model, chosen.save_engine)
            return engine
    library = build(model, plan, options.precision, chosen.pass_path)
    try:
        kept = cache.keep(facts, lambda path: adapter.save(library, path))
    except (OSError, ZooError) as error:
        logger.warning("the engine is not kept for the next run: %s", error)
        if chosen.save_engine:
            write_engine(lambda path: adapter.save(library, path), _named(chosen.save_engine, facts, model), facts)
    else:
        _save_for_user(kept, facts, model, chosen.save_engine)
    return adapter.engine(library)


def _save_for_user(kept: Path, facts: Facts, model: Path, asked: Path | None) -> None:
    if asked is not None:
        path = _named(asked, facts, model)
        write_engine(lambda aside: _copy(kept, aside), path, facts)
        logger.info("sdaa: engine saved as %s", path)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _named(asked: Path, facts: Facts, model: Path) -> Path:
    """A folder gets a file named as the vendor names engines: by model and input shape."""
    if not asked.is_dir():
        return asked
    rows, length = next(iter(facts.shapes.values()))
    return asked / f"{model.stem}_{rows}_{length}_{facts.precision}.tecoengine"


def _release_result(making: Any) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result()[0].release()
