"""Scoring on a cluster, by Ray (``pip install 'zoo-runner[ray]'``)::

    import ray
    import zoo.ray

    pairs = ray.data.read_parquet("pairs")
    zoo.ray.score(pairs, model="bge-reranker-v2-m3").write_parquet("scores")

``zoo run --mode multi --cluster`` and ``--mode valid --cluster`` use ``score_files`` and ``open_remote``. Importing this module
does not import Ray.
"""

from __future__ import annotations

from zoo.ray.cluster import Cluster as Cluster
from zoo.ray.cluster import connected as connected
from zoo.ray.dataset import score as score
from zoo.ray.files import score_files as score_files
from zoo.ray.session import open_remote as open_remote
