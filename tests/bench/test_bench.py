"""Measurements on the embedded model, and verdicts on figures that are known."""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Zoo
from sdaa_fixtures import Run
from zoo import Reranker
from zoo.bench import BenchRequest, Shape, bench, compare
from zoo.bench.inputs import random_batch, runner_of
from zoo.bench.measure import default_shapes, encoder_flops
from zoo.errors import ZooError
from zoo.types import ShapeRule

MODEL = "zoo-reranker-tiny"


def report(
    rounds: list[float], target: str = "cpu", shape: str = "1x8", waiting: list[float] | None = None
) -> dict[str, Any]:
    found = {"pairs_per_second": rounds, **({"waiting": waiting} if waiting else {})}
    return {"results": [{"target": target, "shape": shape, "rounds": found}]}


def noisy(middle: float, spread: float, count: int = 10, seed: int = 0) -> list[float]:
    source = random.Random(seed)
    return [middle * (1 + source.uniform(-spread, spread)) for _ in range(count)]


def verdict(first: list[float], second: list[float]) -> str:
    (found,) = compare(report(first), report(second))
    return found.verdict


def test_a_difference_beyond_the_noise_is_called_by_its_name() -> None:
    assert verdict(noisy(100, 0.02), noisy(110, 0.02, seed=1)) == "faster"
    assert verdict(noisy(100, 0.02), noisy(90, 0.02, seed=1)) == "slower"


def test_noise_is_no_difference() -> None:
    verdicts = [verdict(noisy(100, 0.1, seed=2 * n), noisy(100, 0.1, seed=2 * n + 1)) for n in range(40)]
    assert verdicts.count("same") >= 36  # an interval of 95 % may miss


def test_a_certain_difference_of_one_per_cent_is_too_small_to_matter() -> None:
    assert verdict([100.0] * 9, [101.0] * 9) == "same"


def busy(shares: list[float], quiet: float = 100.0) -> dict[str, Any]:
    """What rounds of ``quiet`` pairs a second give if threads wait for processors for these shares of the time."""
    return report([quiet * (1 - share) for share in shares], waiting=shares)


def test_what_other_programs_on_the_machine_explain_is_no_difference() -> None:
    quiet, others = [0.01] * 9, [0.5 + each for each in noisy(0.1, 0.3, 9)]
    assert compare(busy(quiet), busy(others))[0].verdict == "same"
    assert compare(busy(others), busy(quiet))[0].verdict == "same"
    assert compare(busy(others), busy(others, quiet=170))[0].verdict == "faster"
    assert compare(busy(others), busy(others, quiet=110))[0].verdict == "same", "too little on so busy a machine"
    assert compare(busy(quiet), busy(quiet, quiet=104))[0].verdict == "faster"


def test_a_device_that_is_not_bound_by_processors_may_make_its_threads_wait() -> None:
    # A card gives as many pairs however long the host's few threads wait.
    same = compare(report([100.0] * 9, waiting=[0.0] * 9), report([101.0] * 9, waiting=[0.6] * 9))
    assert same[0].verdict == "same"


def test_a_thread_that_others_keep_from_the_processors_is_seen_to_wait() -> None:
    import subprocess
    import time

    from zoo.bench.contention import processor_seconds, waiting_share

    if processor_seconds() is None:
        pytest.skip("this system does not count how long threads wait")
    endless = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(endless) for _ in range(3 * (os.cpu_count() or 1))]
    try:
        before, end = processor_seconds(), time.monotonic() + 2
        while time.monotonic() < end:
            pass
        share = waiting_share(before, processor_seconds())
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert share is not None
    assert 0.3 < share < 1
    assert waiting_share(None, before) is None
    assert waiting_share(before, before) == 0


def test_two_rounds_decide_nothing() -> None:
    assert verdict([100.0, 100.0], [200.0, 200.0]) == "too few rounds"


def test_reports_without_anything_in_common_are_refused() -> None:
    with pytest.raises(ZooError, match="in common"):
        compare(report([1.0]), report([1.0], shape="2x8"))


def test_a_batch_has_the_shape_asked_for_and_tokens_of_the_vocabulary() -> None:
    with Reranker.open(MODEL, device="cpu", offline=True) as reranker:
        batch = random_batch(runner_of(reranker), 3, 40)
        vocabulary = json.loads((reranker.checkpoint.folder / "config.json").read_text())["vocab_size"]
    assert batch.inputs["input_ids"].shape == (3, 40)
    assert batch.inputs["attention_mask"].all()
    assert batch.inputs["input_ids"].max() < vocabulary
    assert len(set(batch.inputs["input_ids"].ravel().tolist())) > 10


def test_a_report_has_every_target_and_shape_with_ordered_percentiles() -> None:
    request = BenchRequest(shapes=(Shape(1, 16), Shape(4, 16)), iterations=5, rounds=2, warm_up=1)
    with Reranker.open(MODEL, device="cpu", offline=True) as one, Reranker.open(MODEL, device="cpu") as two:
        found = bench({"one": one, "two": two}, request)
    assert [(entry["target"], entry["shape"]) for entry in found["results"]] == [
        ("one", "1x16"), ("one", "4x16"), ("two", "1x16"), ("two", "4x16"),
    ]  # fmt: skip
    for entry in found["results"]:
        latency = entry["latency_ms"]
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p95"] <= latency["p99"]
        assert entry["batches"] == 10
        assert len(entry["rounds"]["pairs_per_second"]) == 2
        assert all(0 <= share <= 1 for share in entry["rounds"].get("waiting", []))
        assert entry["tokens_per_second"] == pytest.approx(16 * entry["pairs_per_second"], rel=1e-3)
    json.dumps(found)


def test_more_rows_than_a_device_takes_at_once_are_refused_before_anything_is_measured() -> None:
    with Reranker.open(MODEL, device="cpu") as reranker:
        reranker.session.shape_rule = replace(reranker.session.shape_rule, rows=2)  # as a card that is compiled for two
        assert bench({"cpu": reranker}, BenchRequest(shapes=[Shape(1, 8)], seconds=0.01, rounds=1))["results"]
        with pytest.raises(ZooError, match=r"4x8 has more rows than the 2 .*\(`batch_size`\)"):
            bench({"cpu": reranker}, BenchRequest(shapes=[Shape(4, 8)], seconds=0.01, rounds=1))


@pytest.mark.parametrize(
    ("rows", "length", "shapes"),
    [
        ((None,), 512, ["1x512", "4x512", "8x512", "16x512"]),
        ((1,), 512, ["1x512"]),
        ((6,), 512, ["1x512", "4x512", "6x512"]),
        ((64, 8, None), 512, ["1x512", "4x512", "8x512"]),
        ((None,), 100, ["1x100", "4x100", "8x100", "16x100"]),
    ],
)
def test_shapes_that_nobody_asked_for_are_those_that_every_device_takes(
    rows: tuple[int | None, ...], length: int, shapes: list[str]
) -> None:
    opened: Any = [
        SimpleNamespace(max_length=length, session=SimpleNamespace(shape_rule=ShapeRule(rows=each))) for each in rows
    ]
    assert [str(shape) for shape in default_shapes(opened)] == shapes


@pytest.mark.skipif(find_spec("onnx") is None, reason="the fake runtime reads models with onnx")
@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("batch_size", "shapes"), [((), ["1x64", "4x64"]), (("--batch-size", 8), ["1x64", "4x64", "8x64"])]
)
def test_a_compiled_device_is_measured_at_shapes_that_it_is_compiled_for(
    run: Run, batch_size: tuple[object, ...], shapes: list[str]
) -> None:
    """The fake card has four SPAs, so that it computes four rows at once at least."""
    done = run("--mode", "bench", *batch_size, "--iterations", 1, "--rounds", 1, "--json")
    assert done.exit_code == 0, done.stderr
    assert [entry["shape"] for entry in json.loads(done.stdout)["results"]] == shapes


def test_operations_are_those_of_the_matrices_and_of_attention() -> None:
    # Six layers of 384 with an inner size of 768: 4 * 384 * 384 + 2 * 384 * 768 weights each.
    with Reranker.open(MODEL, device="cpu", offline=True) as reranker:
        found = encoder_flops(reranker, 100)
    weights = 6 * (4 * 384 * 384 + 2 * 384 * 768)
    attention = 6 * 2 * 2 * 384 * 100 * 100  # layers, two products, multiply and add
    assert found == 2 * weights * 100 + attention


def test_the_command_line_measures_writes_and_compares(zoo: Zoo, tmp_path: Path) -> None:
    words = ["run", MODEL, "--mode", "bench", "--target", "cpu", "--shapes", "1x16,2x16", "--iterations", 3]
    for name in ("a.json", "b.json"):
        done = zoo(*words, "--rounds", 3, "--output", tmp_path / name)
        assert done.exit_code == 0, done.stderr
        assert "2x16" in done.stdout
    compared = zoo("bench", "--compare", tmp_path / "a.json", tmp_path / "b.json", "--json")
    assert compared.exit_code == 0, compared.stderr
    assert [entry["shape"] for entry in json.loads(compared.stdout)] == ["1x16", "2x16"]
    table = zoo("bench", "--compare", tmp_path / "a.json", tmp_path / "a.json")
    assert table.stdout.count("same") == 2


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["run", MODEL, "--mode", "bench", "--shapes", "8by4"], 2, "not of the form ROWSxTOKENS"),
        (["run", MODEL, "--mode", "bench", "--shapes", "1x4096"], 1, "1x4096"),
        (["run", MODEL, "--shapes", "1x8"], 2, "--shapes belongs to --mode bench"),
        (["run", MODEL, "--mode", "bench", "--data-path", "x"], 2, "--mode bench makes its own"),
        (["bench", "--compare", "nowhere.json", "nowhere.json"], 1, "cannot be read"),
    ],
)
def test_mistakes_are_reported(zoo: Zoo, args: list[str], code: int, said: str) -> None:
    done = zoo(*args)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize("option", ["--output", "--plot"])
def test_a_folder_that_is_not_there_is_told_before_minutes_of_measurement(
    zoo: Zoo, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.bench.bench", lambda *given: pytest.fail("measured"))
    monkeypatch.setattr("zoo.bench.plot.figure_class", lambda: None)
    done = zoo("run", MODEL, "--mode", "bench", option, "no/folder/file")
    assert done.exit_code == 1
    assert "cannot write no/folder/file: there is no folder no/folder" in done.stderr


@pytest.mark.plot
def test_the_plot_names_every_target_and_shape_and_is_the_same_for_the_same_report(zoo: Zoo, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from zoo.bench.plot import plot

    words = ["--shapes", "1x16,2x16", "--iterations", 2, "--rounds", 2, "--target", "cpu", "--json"]
    done = zoo("run", MODEL, "--mode", "bench", *words, "--plot", tmp_path / "a.svg")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<?xml")
    assert {">cpu<", ">1x16<", ">2x16<"} == {text for text in (">cpu<", ">1x16<", ">2x16<") if text in drawn}
    plot(found, tmp_path / "b.svg")
    assert (tmp_path / "b.svg").read_text(encoding="utf-8") == drawn
    with pytest.raises(ZooError, match="no results"):
        plot({"results": []}, tmp_path / "c.svg")


def test_a_plot_without_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.bench.plot import plot

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ZooError, match=r"pip install 'zoo-runner\[plot\]'"):
        plot(report([1.0]), tmp_path / "a.svg")
