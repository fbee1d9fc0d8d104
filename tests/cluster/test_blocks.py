"""What a cluster is given to do, without a cluster."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import Zoo
from fakes import NumberModel, NumberSession, pipeline_of
from zoo.errors import DeviceError, ZooError
from zoo.multi.one_file import FileScores
from zoo.ray.cluster import Placement, device_for, place, ray_resource
from zoo.ray.nodes import NodeReport, check_equal, check_visible
from zoo.ray.session import ClusterSession
from zoo.ray.weights import SentFiles
from zoo.ray.worker import Description, Opening, blocks, check_same
from zoo.registry.catalogue import Catalogue
from zoo.scoring.scorer import ScoredPair, Scorer
from zoo.settings import RunSettings
from zoo.types import Pair, ShapeRule

BLOCKS_OF_ONE_ROW = ShapeRule(rows=2, length=8)


def numbered(count: int) -> list[Pair]:
    source = random.Random(3)
    return [Pair(str(source.randrange(1, 30)), str(n)) for n in range(count)]


@pytest.mark.parametrize(
    ("rule", "rows"), [(ShapeRule(), 4), (ShapeRule(tokens=256, parallel_batches=6), None), (BLOCKS_OF_ONE_ROW, None)]
)
def test_the_batches_of_blocks_are_those_of_one_machine(rule: ShapeRule, rows: int | None) -> None:
    pairs = numbered(3000) if rule.length is None else [Pair("1", str(n)) for n in range(2100)]
    model = pipeline_of(NumberModel())
    with NumberSession(rule) as together, NumberSession(rule) as apart:
        whole = [score for _, score in Scorer(model, together, rows, repeatable=True).score(pairs)]
        cut = list(blocks(pairs, rule, rows))
        scores = [
            score
            for block in cut
            for _, score in Scorer(model, apart, rows, repeatable=True, sizes=block.sizes).score(block.pairs)
        ]
    assert len(cut) >= 2
    assert scores == whole
    assert sorted(apart.shapes) == sorted(together.shapes), "batches that run side by side begin in any order"


def test_blocks_of_equal_pairs_have_equal_keys_and_others_do_not() -> None:
    first, again = (next(blocks([Pair("a", "bc"), Pair("d", "e")], ShapeRule(), None)) for _ in range(2))
    moved = next(blocks([Pair("ab", "c"), Pair("d", "e")], ShapeRule(), None))
    assert first.key == again.key != moved.key


def test_scores_that_were_packed_are_put_behind_each_other() -> None:
    scored = [ScoredPair(Pair(f"q{n % 3}", str(n)), float(np.float32(n / 7)), n % 2 == 0) for n in range(50)]
    whole, parts = FileScores.of(scored), FileScores()
    for start in range(0, 50, 20):
        parts.add(FileScores.of(scored[start : start + 20]).packed())
    assert (parts.logits, parts.truncated, parts.query_keys) == (whole.logits, whole.truncated, whole.query_keys)


def test_an_actor_has_a_share_of_cpus_or_a_card() -> None:
    catalogue = Catalogue.installed()
    cpu, cuda = catalogue.device("cpu"), catalogue.device("cuda")
    sizes = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}, {"CPU": 0.0}]
    assert (place(cpu, sizes, 2).actors, place(cpu, sizes, 2).ray_options) == (6, {"num_cpus": 2.0})
    assert (place(cpu, sizes, None).actors, place(cpu, sizes, None).threads) == (3, 4)
    assert (place(cuda, sizes, None).actors, place(cuda, sizes, None).ray_options["num_gpus"]) == (2, 1.0)
    assert place(catalogue.device("sdaa"), [{"CPU": 8, "SDAA": 4}], None).ray_options["resources"] == {"SDAA": 1.0}
    assert ray_resource(device_for(catalogue, None, sizes)) == "GPU"
    assert device_for(catalogue, None, [{"CPU": 8.0}]).name in ("cpu", "openvino", "torch")


def test_no_actor_is_placed_that_would_wait_for_a_cpu_for_ever() -> None:
    """A node with more cards than CPUs, and one with cards whose CPUs are somebody else's."""
    cuda = Catalogue.installed().device("cuda")
    assert place(cuda, [{"CPU": 2.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}, {"GPU": 2.0}], None).actors == 3
    with pytest.raises(ZooError, match="room for 2"):
        place(cuda, [{"CPU": 2.0, "GPU": 4.0}], None, 3)
    with pytest.raises(ZooError, match="a CPU and a 'GPU'"):
        place(cuda, [{"GPU": 2.0}], None)


@pytest.mark.parametrize(
    ("device", "threads", "actors", "said"),
    [("cuda", None, None, "counts no 'GPU'"), ("cpu", 9, None, "no node has 9 CPUs"), ("cpu", 4, 3, "room for 2")],
)
def test_what_does_not_fit_is_refused(device: str, threads: int | None, actors: int | None, said: str) -> None:
    with pytest.raises(ZooError, match=said):
        place(Catalogue.installed().device(device), [{"CPU": 8.0}], threads, actors)


def test_nodes_that_differ_are_named_with_their_differences() -> None:
    same = NodeReport("one", {"zoo": "1", "numpy": "2"}, frozenset())
    other = NodeReport("two", {"zoo": "1", "numpy": "3", "torch": "2"}, frozenset({Path("/data")}))
    check_equal([same, same])
    with pytest.raises(ZooError, match=r"numpy: 2 on one, 3 on two\n  torch: not installed on one, 2 on two"):
        check_equal([same, other])
    with pytest.raises(ZooError, match=r"/data \(`data_path`\) is not there on two"):
        check_visible([same, other], [Path("/data")], "`data_path`")
    with pytest.raises(ZooError, match="weights: a and b"):
        check_same({"weights": "a", "zoo": "1"}, {"weights": "b", "zoo": "1"})


def test_an_address_of_rays_client_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    data = tmp_path / "a.tsv"
    data.write_text("q\tp\n")
    words = ["--data-path", data, "--output", tmp_path / "out", "--cluster", "ray://head:10001"]
    done = zoo("run", "zoo-reranker-tiny", "--mode", "multi", *words)
    assert done.exit_code == 1
    assert "run the command on one of its nodes" in done.stderr


def test_a_cluster_without_ray_names_the_extra(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    data = tmp_path / "a.tsv"
    data.write_text("q\tp\n")
    done = zoo(
        "run",
        "zoo-reranker-tiny",
        "--mode",
        "multi",
        "--data-path",
        data,
        "--output",
        tmp_path / "out",
        "--cluster",
        "auto",
    )
    assert done.exit_code == 1
    assert "pip install 'zoo-runner[ray]'" in done.stderr


def test_single_takes_no_cluster(zoo: Zoo) -> None:
    done = zoo("run", "zoo-reranker-tiny", "--mode", "single", "--cluster", "auto")
    assert done.exit_code == 2
    assert "--cluster belongs to --mode valid and --mode multi" in done.stderr


def test_importing_zoo_ray_imports_no_ray() -> None:
    program = "import sys, zoo.ray, zoo.cli; sys.exit(any(name.partition('.')[0] == 'ray' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_models_that_a_cluster_sent_are_listed_and_deleted_like_other_caches(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    stored: list[bytes] = []
    ray = SimpleNamespace(put=lambda part: stored.append(part) or len(stored) - 1, get=stored.__getitem__)
    monkeypatch.setattr("zoo.ray.weights.import_ray", lambda: ray)
    weights = tmp_path / "model.onnx"
    weights.write_bytes(b"x" * 2_000_000)
    folder = SentFiles.put({"model.onnx": weights}).received()
    assert (folder / "model.onnx").read_bytes() == weights.read_bytes()
    [found] = json.loads(zoo("cache", "list", "--json").stdout)["others"]
    assert (Path(found["path"]), found["size"]) == (folder.parent, 2_000_000)
    assert zoo("cache", "prune", "--all").exit_code == 0
    assert not folder.exists()


class LostError(Exception):
    """In the place of Ray's RayActorError."""


class FakeActor:
    """Gives each batch ``reply``, or raises it where the batch is sent."""

    def __init__(self, reply: Future[Any] | Exception) -> None:
        self._reply = reply
        self.ready = SimpleNamespace(remote=lambda: True)
        self.infer = SimpleNamespace(remote=lambda *given: SimpleNamespace(future=self._sent))

    def _sent(self) -> Future[Any]:
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply


def ended(error: Exception | None) -> Future[Any]:
    reply: Future[Any] = Future()
    if error is None:
        reply.cancel()
        reply.set_running_or_notify_cancel()
    else:
        reply.set_exception(error)
    return reply


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ([RuntimeError("the connection is closed")], "connection is closed"),
        ([ended(LostError()), RuntimeError("the connection is closed")], "connection is closed"),
        ([ended(None)], "was given up"),
        ([ended(LostError()), ended(LostError())], "every node is lost"),
    ],
    ids=["not sent", "not sent again", "given up", "lost"],
)
def test_a_batch_that_the_cluster_loses_is_an_error_and_never_a_wait(
    replies: list[Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    actors = iter([FakeActor(reply) for reply in replies])
    kind = SimpleNamespace(remote=lambda opening: next(actors))
    exceptions = SimpleNamespace(RayActorError=LostError, RayError=LostError, RayDataUserCodeException=LostError)
    ray = SimpleNamespace(
        remote=lambda made: SimpleNamespace(options=lambda **given: kind), get=lambda answer: answer,
        kill=lambda actor: None, exceptions=exceptions, RayDataUserCodeException=LostError,
    )  # fmt: skip
    for module in ("session", "files"):
        monkeypatch.setattr(f"zoo.ray.{module}.import_ray", lambda name="ray": ray)
    found = Description(identity={}, rule=ShapeRule(), input_names=("input_ids",))
    placement = Placement(actors=len(replies), threads=1, ray_options={})
    with ClusterSession(Opening(settings=RunSettings(model="x")), found, placement) as session:
        with pytest.raises(DeviceError, match=said):
            session.submit({"input_ids": np.zeros((1, 2), dtype=np.int64)}).result(5)
        assert set(session._busy.values()) <= {0}
