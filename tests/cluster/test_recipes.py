"""The examples of docs/cluster.md, each in a process of its own, give the scores of a reranker."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from zoo import Reranker

pytestmark = pytest.mark.ray
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
NEEDS = {"ray": "import ray\n", "pyspark": "from pyspark", "daft": "import daft"}


@pytest.mark.parametrize("package", NEEDS)
def test_a_recipe_gives_the_scores_of_a_reranker(package: str, reranker: Reranker, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is None or (package == "pyspark" and not shutil.which("java")):
        pytest.skip(f"{package} is not installed, or lacks Java")
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (example,) = [
        each
        for each in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        if each.startswith("import pandas") == (package == "pyspark") and NEEDS[package] in each
    ]
    rows = [{"id": n, "query": f"q{n % 3}", "passage": "bear " * (n % 7)} for n in range(60)]
    Path("pairs").mkdir()
    parquet.write_table(arrow.Table.from_pylist(rows), Path("pairs") / "a.parquet")
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "RAY_USAGE_STATS_ENABLED": "0",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "DAFT_ANALYTICS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", example], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = arrow.concat_tables([parquet.read_table(path) for path in sorted(Path("scores").glob("*.parquet"))])
    table = sorted(found.to_pylist(), key=lambda row: row["id"])
    assert len(table) in (50, 60)
    expected = reranker.score([(row["query"], row["passage"]) for row in table])
    assert [row["logit"] for row in table] == pytest.approx(expected.tolist(), abs=1e-5)
