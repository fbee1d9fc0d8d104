"""``zoo.ray.score``: a Ray Dataset of pairs into one with their scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.multi.rows import Columns
from zoo.ray.cluster import Cluster, Placement
from zoo.ray.imports import import_ray
from zoo.ray.worker import ScoreTable
from zoo.settings import RunSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray.data import Dataset

    from zoo.settings import PrecisionChoice

BATCH = 2048
"""Rows that are sorted by length and scored together."""


def score(
    dataset: Dataset,
    *,
    model: str,
    query: str = "",
    passage: str = "",
    device: str | None = None,
    precision: PrecisionChoice | None = None,
    max_length: int | None = None,
    threads: int | None = None,
    actors: int | None = None,
    batch_size: int = BATCH,
    checkpoint: str | Path | None = None,
    ckpt: str | Path | None = None,
    offline: bool = False,
    device_options: Mapping[str, str] | None = None,
    model_options: Mapping[str, str] | None = None,
) -> Dataset:
    """``dataset`` with the columns ``logit`` (float32), ``score`` (its sigmoid) and ``truncated``; all others are kept.

    ``query`` and ``passage`` name the columns of the texts; empty means the usual names. A column ``instruction`` is
    for models that read one. Rows come in any order, as Ray Data gives them: carry an id. ``actors`` None is as many as fit, each with
    ``threads`` CPUs or a card; ``batch_size`` rows are sorted and scored together. ``checkpoint`` and ``ckpt`` that a node does not see
    are sent to it. The nodes are checked now, and the model is opened when the dataset is read. Raises ZooError.
    """
    settings = RunSettings(
        model=model,
        target=device,
        precision=precision,
        batch_size=None,
        max_length=max_length,
        threads=threads,
        offline=offline,
        config_path=Path(checkpoint) if checkpoint is not None else None,
        ckpt=Path(ckpt) if ckpt is not None else None,
        device_options=dict(device_options or {}),
        model_options=dict(model_options or {}),
    )
    cluster = Cluster.prepare(settings, actors=actors)
    return dataset.map_batches(
        ScoreTable,
        fn_constructor_kwargs={"opening": cluster.opening, "columns": Columns(query, passage)},
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=actor_pool(cluster.placement),
        **cluster.placement.ray_options,
    )


def actor_pool(placement: Placement) -> Any:
    """All actors from the beginning, going on with those that are left if a node is lost."""
    data = import_ray("ray.data")
    return data.ActorPoolStrategy(min_size=1, max_size=placement.actors, initial_size=placement.actors)
