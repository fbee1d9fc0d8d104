"""A package of somebody else's, installed as packages are, joins in through its entry point alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PANDA, ROOT
from zoo.paths import bundled


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with zoo-example installed by pip, to be put on the path."""
    pytest.importorskip("hatchling", reason="builds the outside package")
    target = tmp_path_factory.mktemp("site")
    source = ROOT / "tests" / "external" / "zoo-example"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True)
    return target


def run(site: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-m", "zoo", *args], capture_output=True, text=True, env=environment, check=False
    )


def logits(done: subprocess.CompletedProcess[str]) -> list[float]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["logit"] for line in done.stdout.splitlines()]


def test_what_it_brings_is_listed(site: Path) -> None:
    [record] = [p for p in json.loads(run(site, "plugins", "--json").stdout)["plugins"] if p["name"] == "example"]
    assert record["distribution"] == "zoo-example"
    assert record["version"] == "1.2.3"
    assert record["offers"] == [
        "model halved-demo", "architecture halved", "device reference", "stage preprocess", "stage evaluate",
    ]  # fmt: skip


def test_its_model_runs_with_the_stage_it_overrides_and_the_wrapper_it_adds(site: Path) -> None:
    checkpoint = str(bundled("models") / "zoo-reranker-tiny")
    plain = run(site, "run", "zoo-reranker-tiny", "--json")
    halved = run(site, "run", "halved-demo", "--config-path", checkpoint, "--json")
    assert logits(halved) == [logit / 2 for logit in logits(plain)]
    assert f"example saw {len(PANDA)} pairs" in halved.stderr
    assert f"example saw {len(PANDA)} pairs" in plain.stderr, "a observer joins every run"


def test_its_device_is_used_when_it_is_asked_for_and_only_then(site: Path) -> None:
    plain = run(site, "run", "zoo-reranker-tiny", "--json")
    asked = run(site, "run", "zoo-reranker-tiny", "--json", "--target", "reference")
    assert " on cpu in " in plain.stderr
    assert " on reference in " in asked.stderr
    assert logits(asked) == pytest.approx(logits(plain), abs=1e-5)


def test_its_metric_is_asked_for_by_the_pipeline(site: Path) -> None:
    code = (
        "from zoo.registry.catalogue import Catalogue; from zoo.registry.stages import Pipeline;"
        "p = Pipeline([], Catalogue.installed().observers);"
        "print(p.evaluate({'q1': {'a': 2.0, 'b': 1.0}, 'q2': {'a': 0.0, 'b': 3.0}}, {'q1': {'a': 1}, 'q2': {'a': 1}}).metrics['hit@1'])"
    )
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "0.5\n"
