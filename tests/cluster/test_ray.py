"""Scoring on a cluster of three nodes, which are processes of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import Zoo
from zoo import Reranker
from zoo.multi import MultiRequest, MultiResult, find_inputs
from zoo.multi import score_files as score_here
from zoo.ray import Cluster, open_remote, score, score_files
from zoo.ray.files import described
from zoo.ray.weights import SentModel
from zoo.registry.catalogue import Catalogue
from zoo.settings import RunSettings

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::Warning")]

MODEL = "zoo-reranker-tiny"
SETTINGS = RunSettings(model=MODEL, target="cpu", threads=1, offline=True, batch_size=None)


class Nodes:
    """A head and two more nodes of one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Machines

        # A lost node is noticed after three seconds in place of half a minute.
        quick = {"health_check_period_ms": 1000, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
        small = {"num_cpus": 1, "object_store_memory": 100 << 20}
        self.machines = Machines(initialize_head=True, head_node_args={**small, "_system_config": quick})
        self.others = [self.machines.add_node(**small) for _ in range(2)]
        ray.init(address=self.machines.address, log_to_driver=False, logging_level="ERROR")

    def kill_one(self) -> None:
        self.machines.remove_node(self.others.pop(), allow_graceful=False)

    def end(self) -> None:
        ray.shutdown()
        self.machines.shutdown()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(tmp_path_factory.mktemp("home-of-nodes")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Nodes()
        try:
            yield made
        finally:
            made.end()


def write(path: Path, count: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": n, "query": f"what is {n // 9}?", "passage": "panda " * ((n * 37) % 5) + str(n)} for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def results(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("*.jsonl"))}


def on_one_machine(data: Path, output: Path) -> dict[str, bytes]:
    with Reranker.from_settings(SETTINGS) as reranker:
        score_here(reranker, find_inputs([data], output), MultiRequest(output=output))
    return results(output)


def on_cluster(data: Path, output: Path, **more: Any) -> MultiResult:
    cluster = Cluster.prepare(SETTINGS, read=[data])
    return score_files(cluster, find_inputs([data], output), MultiRequest(output=output), **more)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "in" / "long.jsonl", 2600)
    write(tmp_path / "in" / "short.jsonl", 30)
    (tmp_path / "in" / "empty.jsonl").touch()
    return tmp_path / "in"


def test_an_interrupted_run_goes_on_to_the_results_of_one_machine(nodes: Nodes, data: Path, tmp_path: Path) -> None:
    def until_the_second(rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        scored = 0
        for row in rows:
            yield row
            scored += bool(row["scores"])
            if scored == 2:
                raise KeyboardInterrupt

    seen: list[Mapping[str, Any]] = []

    def counted(rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for row in rows:
            seen.append(row)
            yield row

    with pytest.raises(KeyboardInterrupt):
        on_cluster(data, tmp_path / "out", shown=until_the_second)
    done = on_cluster(data, tmp_path / "out", shown=counted)
    assert [file.status for file in done.files].count("failed") == 0
    known = [row for row in seen if row["key"] and row["block"] >= 0 and not row["scores"]]
    assert len(known) + [file.status for file in done.files].count("kept") >= 1  # not computed again
    assert results(tmp_path / "out") == on_one_machine(data, tmp_path / "alone")
    assert {file.status for file in on_cluster(data, tmp_path / "out").files} == {"kept"}


def test_a_bad_file_is_reported_and_stdout_has_nothing_but_results(
    nodes: Nodes, zoo: Zoo, data: Path, tmp_path: Path
) -> None:
    (data / "bad.jsonl").write_text('{"query": "q", "passage": "p"}\n{"query": "q"}\n')
    (data / "long.jsonl").unlink()
    words = ["--target", "cpu", "--threads", "1", "--offline", "--json", "--cluster", "auto", "--workers", "1"]
    done = zoo("run", MODEL, "--mode", "multi", "--data-path", data, "--output", tmp_path / "out", *words)
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert {file["name"]: file["status"] for file in report["files"]} == {
        "bad.jsonl": "failed", "empty.jsonl": "scored", "short.jsonl": "scored",
    }  # fmt: skip
    assert "bad.jsonl, line 2: has no column 'passage'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dataset_gets_the_scores_of_a_reranker(nodes: Nodes, reranker: Reranker) -> None:
    rows = [{"id": n, "query": f"q{n % 5}", "passage": "bear " * (n % 11), "logit": "kept"} for n in range(200)]
    found = score(
        ray.data.from_items(rows), model=MODEL, device="cpu", threads=1, actors=2, offline=True, batch_size=64
    ).take_all()
    by_id = {row["id"]: row for row in found}
    expected = reranker.score([(row["query"], row["passage"]) for row in rows])
    assert [by_id[n]["logit"] for n in range(200)] == pytest.approx(expected.tolist(), abs=1e-5)
    assert by_id[3]["input_logit"] == "kept"
    assert by_id[3]["truncated"] is False


def test_an_evaluation_on_a_cluster_is_that_of_one_machine(nodes: Nodes, zoo: Zoo, tmp_path: Path) -> None:
    words = ["--mode", "valid", "--limit", "2", "--target", "cpu", "--threads", "1", "--offline", "--json"]
    alone = zoo("run", MODEL, *words, "--output", tmp_path / "alone")
    done = zoo("run", MODEL, *words, "--output", tmp_path / "out", "--cluster", "auto", "--workers", "2")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["results"] == json.loads(alone.stdout)["results"]
    runs = [(tmp_path / name / "en-test.reranked.trec").read_text() for name in ("alone", "out")]
    assert runs[0] == runs[1]


def test_files_that_a_node_lacks_are_sent_to_it(nodes: Nodes, tiny: Path) -> None:
    from dataclasses import replace

    settings = replace(SETTINGS, config_path=tiny)
    cluster = Cluster.prepare(settings)
    assert cluster.opening.sent == SentModel()  # every node sees it here
    sent = SentModel.of(settings, frozenset({tiny}))
    opening = replace(
        cluster.opening, settings=replace(cluster.opening.settings, config_path=Path("/not/here")), sent=sent
    )
    _, found = described(replace(cluster, opening=opening), None)
    assert found.identity["weights"] == described(cluster, None)[1].identity["weights"]


def test_what_a_node_cannot_open_is_zoos_own_message(nodes: Nodes, tmp_path: Path) -> None:
    from dataclasses import replace

    from zoo import ZooError

    cluster = Cluster.prepare(SETTINGS)
    broken = replace(cluster, opening=replace(cluster.opening, settings=replace(SETTINGS, max_length=100_000)))
    with pytest.raises(ZooError) as caught:
        described(broken, None)
    assert type(caught.value).__module__.startswith("zoo.")
    assert "100000" in str(caught.value)


def test_batches_of_a_lost_actor_are_computed_by_another(nodes: Nodes, reranker: Reranker) -> None:
    pairs = [(f"q{n % 5}", "bear " * (n % 40)) for n in range(600)]
    with open_remote(Cluster.prepare(SETTINGS, actors=2), SETTINGS, Catalogue.installed()) as remote:
        stream = remote.stream(iter(pairs))
        first = next(stream)
        ray.kill(next(iter(remote.session._busy)))  # type: ignore[attr-defined]
        found = [first, *stream]
    assert found == pytest.approx(reranker.score(pairs).tolist(), abs=1e-5)


def test_a_node_killed_in_the_middle_changes_no_result(nodes: Nodes, data: Path, tmp_path: Path) -> None:
    """The last of this module, for it takes one of its nodes."""
    killed = []

    def killing(rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for row in rows:
            yield row
            if row["scores"] and not killed:
                killed.append(row)
                nodes.kill_one()

    done = on_cluster(data, tmp_path / "out", shown=killing)
    assert killed
    assert [file.error for file in done.files] == ["", "", ""]
    assert results(tmp_path / "out") == on_one_machine(data, tmp_path / "alone")
