"""Tecorigin's acceptance figures, and ``zoo verify``."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from click.testing import Result

import zoo_cpu
from conftest import PANDA, Zoo
from zoo import Architecture
from zoo.api import Requirements
from zoo.checks import bounds
from zoo.checks.bounds import Check, card_checks, metric_checks, output_check, output_error, relative_difference
from zoo.checks.compare import Variant, recommended
from zoo.checks.device import _swaps, golden_pairs
from zoo.errors import ScoreError
from zoo.paths import bundled
from zoo.registry.card import ModelCard, Reference
from zoo.registry.catalogue import Catalogue, PluginRecord
from zoo.registry.markers import hookimpl
from zoo.settings import RunSettings
from zoo.testing.toy import write_toy, write_toy_tokenizer
from zoo.types import Encoding, Encodings, Pair, Precision, Tensors
from zoo_cross_encoder.reranker import CrossEncoder
from zoo_sdaa.testing import Machine, fake_sdaa

pytestmark = [pytest.mark.export, pytest.mark.any_device]

REPORT = Path("report.json")


def test_the_output_error_is_tecorigins_formula() -> None:
    assert output_error([3.0, 0.0], [0.0, 4.0]) == pytest.approx(5 / 4)
    assert output_error([1.0, 2.0], [1.0, 2.0]) == 0.0
    out, ref = np.random.default_rng(0).normal(size=(2, 100, 1))
    assert output_error(out, ref) == pytest.approx(float(((np.abs(out - ref) ** 2).sum() / (ref**2).sum()) ** 0.5))


def test_the_output_error_is_computed_in_double_precision() -> None:
    reference = np.full(10, 1e-30, dtype=np.float32)  # whose square float32 cannot hold
    assert output_error(reference * np.float32(1.5), reference) == pytest.approx(0.5)


def test_outputs_that_cannot_be_compared_are_an_error() -> None:
    with pytest.raises(ScoreError, match=r"shape \(2,\).*shape \(2, 1\)"):
        output_error([1.0, 2.0], [[1.0], [2.0]])
    for bad in (math.nan, math.inf):
        with pytest.raises(ScoreError, match="not finite"):
            output_error([bad], [1.0])


def test_every_precision_has_a_bound_and_more_is_allowed_the_lower_it_is() -> None:
    """Those of every device that is installed: a device whose precision zoo does not know is refused when it is asked."""
    assert set(bounds.OUTPUT_BOUNDS) == set(get_args(Precision))
    allowed = [bounds.OUTPUT_BOUNDS[precision] for precision in ("fp32", "fp16", "bf16", "int8")]
    assert allowed == sorted(allowed)
    for device in Catalogue.installed().devices:
        for precision in device.precisions:
            assert output_check(device.name, [1.0], [1.0], precision).passed


def test_a_reference_of_zero_is_met_by_zero_alone() -> None:
    assert output_error([0.0], [0.0]) == relative_difference(0.0, 0.0) == 0.0
    assert output_error([1e-9], [0.0]) == relative_difference(1e-9, 0.0) == math.inf


def test_a_metric_is_inside_a_tenth_of_a_percent_or_not() -> None:
    inside, outside = (
        metric_checks("sdaa", {"ndcg@10": value}, {"ndcg@10": 0.4}, bounds.DEVICE_METRIC_BOUND, ["ndcg@10"])[0]
        for value in (0.40039, 0.40041)
    )
    assert (inside.passed, outside.passed) == (True, False)
    assert outside.deviation == pytest.approx(0.001025)


def test_an_output_check_shows_the_scores_that_differ_most() -> None:
    check = output_check("x", [1.0, 2.0, 3.0], [1.0, 2.5, 3.1], "fp16")
    assert (check.measured, check.reference, check.passed) == (2.0, 2.5, False)


def test_a_deviation_that_is_no_number_does_not_pass() -> None:
    assert not replace(output_check("x", [1.0], [1.0], "fp32"), deviation=math.nan).passed


def test_a_cards_value_counts_for_its_own_data_set_and_metric() -> None:
    def reference(dataset: str, value: float) -> Reference:
        return Reference(dataset=dataset, metric="score@1", value=value, tolerance=0.1, settings="", source="a page")

    card = ModelCard(
        name="m", folder=Path(), description="", architecture="a", license="", languages=[], max_length=1, bundled="m",
        reference=[reference("panda-demo", 1.0), reference("elsewhere", 9.0)],
    )  # fmt: skip
    assert [check.passed for check in card_checks(card, "panda-demo", {"score@1": 1.05})] == [True]
    assert [check.passed for check in card_checks(card, "panda-demo", {"score@1": 1.2})] == [False]
    assert card_checks(card, "panda-demo", {"score@2": 1.0}) == []


def test_the_golden_pairs_begin_with_the_demo_and_end_past_every_limit() -> None:
    pairs = golden_pairs(None)
    assert [(pair.query, pair.passage) for pair in pairs[:2]] == PANDA
    assert len(pairs[-1].passage) > 20_000
    assert any(not pair.passage for pair in pairs)
    assert any(not pair.query for pair in pairs)


def test_pairs_in_another_order_are_counted_and_ties_are_not() -> None:
    assert _swaps([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]) == 3
    assert _swaps([1.0, 1.0, 2.0], [2.0, 1.0, 1.0]) == 1
    random = np.random.default_rng(5)
    for _ in range(20):
        scores, reference = (list(map(float, random.integers(0, 9, 30))) for _ in range(2))
        pairs = itertools.combinations(zip(scores, reference, strict=True), 2)
        assert _swaps(scores, reference) == sum((a - c) * (b - d) < 0 for (a, b), (c, d) in pairs)


def test_as_many_pairs_as_a_user_may_have_are_compared_at_once() -> None:
    scores = np.random.default_rng(5).normal(size=(2, 30_000)).tolist()
    started = time.process_time()
    assert _swaps(*scores) > 0
    assert time.process_time() - started < 5, "comparing each with each takes minutes"


@pytest.fixture
def toy_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A model beside those that are installed whose card gives no values: it may be any checkpoint."""
    card = tmp_path / "cards" / "toy-reranker.toml"
    card.parent.mkdir()
    text = (bundled("models") / "zoo-reranker-tiny.toml").read_text(encoding="utf-8")
    card.write_text(text.partition("[[reference]]")[0], encoding="utf-8")

    class Toys:
        @hookimpl
        def zoo_models(self) -> Iterable[Path]:
            return [card.parent]

    plugins = [*Catalogue.installed().plugins, PluginRecord("toys", plugin=Toys())]
    monkeypatch.setattr(Catalogue, "installed", lambda: Catalogue(plugins))
    return card.stem


@pytest.fixture
def verify(zoo: Zoo, toy_card: str, tmp_path: Path) -> Any:
    """``zoo verify`` of the toy model, without PyTorch unless a test says so."""
    pytest.importorskip("onnx")
    toy, words = write_toy(tmp_path / "toy.onnx"), write_toy_tokenizer(tmp_path / "toy")

    def call(*args: object) -> Result:
        return zoo(
            "verify", toy_card, "--ckpt", toy, "--config-path", words, "--shape", 64, "--output", REPORT, *args
        )  # fmt: skip

    return call


def test_verify_passes_a_device_that_computes_right_and_writes_a_report(verify: Any, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(device_seconds=0.01)):
        result = verify("--target", "sdaa")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "passed"
    assert "sdaa against ONNX Runtime" in result.stdout
    assert f"report: {REPORT}" in result.stderr
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert report["passed"]
    assert 0 < report["checks"][0]["deviation"] <= report["checks"][0]["bound"] == 0.01
    assert report["device"]["details"]["driver"] == "3.2.0"
    assert report["device"]["device_seconds"] == pytest.approx(0.01 * report["device"]["batches"])
    assert report["reference"]["name"] == "cpu"
    assert len(report["pairs"]) == 27
    assert report["pairs"][-1]["tokens"] == 64
    for pair in report["pairs"]:
        assert pair["device"] == float(np.float16(pair["device"]))


def test_verify_counts_samples_as_we_do_and_as_tecorigin_does(verify: Any, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake"):
        verify("--target", "sdaa", "--batch-size", 8)
    facts = json.loads(REPORT.read_text(encoding="utf-8"))["device"]
    assert facts["vendor_samples_per_second"] / facts["pairs_per_second"] == pytest.approx(32 / 27, rel=1e-3)


def test_verify_fails_a_device_that_computes_wrong(verify: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = CrossEncoder.postprocess, []

    def wrong(self: Any, outputs: Any) -> Any:
        calls.append(1)
        return original(self, outputs) * (1.01 if len(calls) == 1 else 1.0)

    monkeypatch.setattr(CrossEncoder, "postprocess", wrong)
    wrong.zoo_impl = original.zoo_impl  # type: ignore[attr-defined]  # the mark of @hookimpl
    result = verify("--target", "cpu")
    assert result.exit_code == 1
    assert "EXCEEDED" in result.stdout
    assert result.stdout.splitlines()[-1] == "FAILED"
    assert not json.loads(REPORT.read_text(encoding="utf-8"))["passed"]


def test_a_stage_whose_scores_depend_on_the_batch_fails_though_both_sides_share_it(
    verify: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that reads a padded batch at its last place: the device and the CPU agree, batches of other pairs do not."""
    original = CrossEncoder.postprocess

    def wrong(self: Any, outputs: Any, inputs: Any) -> Any:
        return original(self, outputs) * (1 + inputs["attention_mask"].shape[1] / 100)

    wrong.zoo_impl = original.zoo_impl  # type: ignore[attr-defined]  # the mark of @hookimpl
    monkeypatch.setattr(CrossEncoder, "postprocess", wrong)
    result = verify("--target", "cpu", "--batch-size", "2")
    assert result.exit_code == 1
    failed = [
        check["name"] for check in json.loads(REPORT.read_text(encoding="utf-8"))["checks"] if not check["passed"]
    ]
    assert "cpu, batches against other batches" in failed
    assert "cpu against ONNX Runtime" not in failed


def test_a_model_without_weights_is_verified_too(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Lengths(Architecture):
        """A score is how many characters a passage has."""

        requires = Requirements(files=(), weights=False, session=False)

        @hookimpl
        def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
            return Encodings([Encoding({"length": [len(pair.passage)]}) for pair in pairs], {"length": 0})

        @hookimpl
        def postprocess(self, outputs: Tensors) -> Any:
            return outputs["length"].sum(axis=1).astype(np.float32)

    class Plugin:
        @hookimpl
        def zoo_models(self) -> Iterable[Path]:
            return [tmp_path / "lengths.toml"]

        @hookimpl
        def zoo_architectures(self) -> Mapping[str, Any]:
            return {"lengths": Lengths}

    (tmp_path / "lengths.toml").write_text(
        'description = "d"\narchitecture = "lengths"\nlicense = "MIT"\nlanguages = ["en"]\nmax_length = 512\n'
    )
    catalogue = Catalogue.of(lengths=Plugin(), cpu=zoo_cpu)
    monkeypatch.setattr(Catalogue, "installed", lambda: catalogue)
    result = zoo("verify", "lengths", "--output", REPORT)
    assert result.exit_code == 0, result.stderr
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert (report["passed"], report["device"]["model_file"]) == (True, "none")


def test_verify_speaks_json(verify: Any) -> None:
    result = verify("--target", "cpu", "--json")
    assert json.loads(result.stdout) == json.loads(REPORT.read_text(encoding="utf-8"))


def test_verify_takes_pairs_of_the_users_own(verify: Any) -> None:
    Path("mine.tsv").write_text("a query\ta passage\n", encoding="utf-8")
    assert verify("--target", "cpu", "--data-path", "mine.tsv").exit_code == 0
    assert len(json.loads(REPORT.read_text(encoding="utf-8"))["pairs"]) == 1


def test_verify_compares_a_saved_engine_with_the_checkpoint(zoo: Zoo, toy_card: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    toy = write_toy(tmp_path / "toy.onnx")
    words = write_toy_tokenizer(tmp_path / "toy")
    with fake_sdaa(tmp_path / "fake"):
        arguments = (toy_card, "--config-path", words, "--shape", 32, "--target", "sdaa")
        assert zoo("run", *arguments, "--ckpt", toy, "--save-engine", "toy.tecoengine").exit_code == 0
        toy.rename(words / "model.onnx")
        result = zoo("verify", *arguments, "--ckpt", "toy.tecoengine", "--output", REPORT)
    assert result.exit_code == 0, result.stderr
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert report["device"]["model_file"] == "toy.tecoengine"
    assert report["reference"]["model_file"] == "model.onnx"


def test_verify_compares_with_pytorch_where_it_can(zoo: Zoo) -> None:
    for module in ("torch", "transformers"):
        pytest.importorskip(module)
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PANDA), encoding="utf-8")
    result = zoo(
        "verify", "zoo-reranker-tiny", "--target", "cpu", "--torch", "--data-path", "pairs.jsonl", "--output", REPORT
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert [check["name"] for check in report["checks"]] == [
        "cpu against ONNX Runtime", "cpu, batches against other batches", "ONNX Runtime against PyTorch"
    ]  # fmt: skip
    assert report["checks"][2]["deviation"] < 1e-5
    assert "torch" in report["pairs"][0]


def test_verify_compares_the_metric_with_pytorchs_where_it_can(zoo: Zoo) -> None:
    for module in ("torch", "transformers"):
        pytest.importorskip(module)
    data = bundled("datas") / "mldr-mini" / "data"
    result = zoo(
        "verify",
        "zoo-reranker-tiny",
        "--target",
        "cpu",
        "--torch",
        "--data-path",
        data,
        "--limit",
        1,
        "--output",
        REPORT,
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    [check] = [c for c in report["checks"] if c["name"] == "ONNX Runtime against PyTorch, mldr-mini/en, ndcg@10"]
    assert check["bound"] == 0.01
    metrics = report["metrics"]["mldr-mini/en"]
    assert (check["measured"], check["reference"]) == (metrics["cpu"]["ndcg@10"], metrics["torch"]["ndcg@10"])


def test_verify_compares_the_metric_on_a_labelled_data_set(verify: Any, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake"):
        result = verify("--target", "sdaa", "--data-path", bundled("datas") / "mldr-mini" / "data", "--limit", 2)
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert set(report["metrics"]) == {"mldr-mini/en", "mldr-mini/zh"}
    named = {check["name"]: check for check in report["checks"]}
    check = named["sdaa against ONNX Runtime, mldr-mini/en, ndcg@10"]
    assert check["bound"] == 0.001
    assert check["measured"] == report["metrics"]["mldr-mini/en"]["device"]["ndcg@10"]
    assert report["passed"] == (result.exit_code == 0) == all(check["passed"] for check in report["checks"])


def test_verify_checks_the_values_of_the_models_card_and_pairs_only_leaves_them_out(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reference(metric: str, value: float) -> Reference:
        return Reference(
            dataset="mldr-mini/en", metric=metric, value=value, tolerance=1e-4, settings="", source="a test"
        )

    original = Catalogue.card

    def card(self: Catalogue, name: str) -> ModelCard:
        return msgspec.structs.replace(original(self, name), reference=[reference("ndcg@10", 0.0)])

    monkeypatch.setattr(Catalogue, "card", card)
    pytest.importorskip("onnx")
    toy, words = write_toy(tmp_path / "toy.onnx"), write_toy_tokenizer(tmp_path / "toy")
    arguments = ("verify", "zoo-reranker-tiny", "--ckpt", toy, "--config-path", words, "--shape", 64, "--target", "cpu")
    result = zoo(*arguments, "--output", REPORT, "--no-torch")
    assert result.exit_code == 1
    assert "the model card's mldr-mini/en, ndcg@10" in result.stdout
    assert "EXCEEDED" in result.stdout
    alone = zoo(*arguments, "--output", REPORT, "--pairs-only")
    assert alone.exit_code == 0, alone.stderr
    assert "mldr-mini" not in alone.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--torch",), "--torch) needs *.safetensors"),
        (("--data-path", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--target", "sda"), "Did you mean 'sdaa'?"),
        (("--output", "no/folder/report.json"), "cannot write no/folder/report.json: there is no folder no/folder"),
    ],
)
def test_a_fault_of_verify_is_an_error_that_names_it(verify: Any, arguments: tuple[str, ...], said: str) -> None:
    if said.startswith("--torch"):
        pytest.importorskip("transformers")
    result = verify(*arguments, *(() if "--target" in arguments else ("--target", "cpu")))
    assert result.exit_code == 1
    assert "Error: " in result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not REPORT.exists()


def test_quick_scores_a_few_pairs_and_nothing_else(zoo: Zoo, tiny: Path) -> None:
    result = zoo("verify", "zoo-reranker-tiny", "--target", "cpu", "--quick", "--output", REPORT)
    assert result.exit_code == 0, result.stderr
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert len(report["pairs"]) == 8
    assert report["metrics"] == {}
    assert "torch" not in report["pairs"][0]


def test_data_sets_are_cut_to_what_can_be_scored_in_the_time_there_is(verify: Any) -> None:
    data = bundled("datas") / "mldr-mini" / "data"
    result = verify("--target", "cpu", "--data-path", data, "--minutes", 0.00001)
    assert result.exit_code == 0, result.stderr
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert [count["scored"] for count in report["queries"].values()] == [1, 1]
    assert all(count["there"] > 1 for count in report["queries"].values())
    assert "1 of " in result.stderr
    assert not any(check["name"].startswith("the model card's mldr-mini") for check in report["checks"])


def test_verify_shows_how_far_it_is(verify: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.cli import progress

    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    data = bundled("datas") / "mldr-mini" / "data"
    shown = verify("--target", "cpu", "--data-path", data, "--limit", 1).stderr
    assert "pairs on cpu: 1/27" in shown
    assert "pairs of mldr-mini/en on cpu: 1/" in shown
    assert "pairs on cpu: " not in verify("--target", "cpu", "--pairs-only", "--progress", "off").stderr


PASSES = {
    "wrong.py": "skip_ops = []\ndef use_passes(ir_module):\n    raise ValueError('no such pass')\n",
    "exact.py": "skip_ops = ['Div', 'MatMul', 'Mul', 'ReduceSum']\ndef use_passes(ir_module):\n    return ir_module\n",
}


def test_verify_compares_pass_modules_and_recommends_one(verify: Any, tmp_path: Path) -> None:
    for name, content in PASSES.items():
        Path(name).write_text(content, encoding="utf-8")
    given = ("--pass-path", "default", "--pass-path", "wrong.py", "--pass-path", "exact.py")
    with fake_sdaa(tmp_path / "fake", Machine(device_seconds=0.3)) as fake:
        # Of a length of its own: engines are kept from test to test where every run is on SDAA.
        result = verify("--target", "sdaa", "--pairs-only", "--shape", 48, *given)
        builds = len(fake.events("build"))
    assert result.exit_code == 0, result.stderr
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    by_default, wrong, exact = report["compared"]
    assert [row["value"] for row in report["compared"]] == ["default", "wrong.py", "exact.py"]
    assert "no such pass" in wrong["error"]
    assert not wrong["passed"]
    assert exact["output_error"] < by_default["output_error"]
    assert report["recommended"] == "exact.py", "as fast as the default, and nearer"
    assert report["device"]["options"]["pass_path"] == "exact.py"
    assert report["checks"][0]["deviation"] == exact["output_error"]
    assert builds == 2
    assert "recommended" in result.stdout
    assert result.stdout.splitlines()[-1] == "passed"


def test_a_single_pass_module_that_fails_fails_the_command(verify: Any, tmp_path: Path) -> None:
    Path("wrong.py").write_text(PASSES["wrong.py"], encoding="utf-8")
    with fake_sdaa(tmp_path / "fake"):
        result = verify("--target", "sdaa", "--pass-path", "wrong.py")
    assert result.exit_code == 1
    assert "no such pass" in result.stderr
    assert not REPORT.exists()


def measured(value: str, speed: float, error: float, *, bound: float = 0.01) -> Variant:
    side: Any = SimpleNamespace(facts={"pairs_per_second": speed})
    check = Check(name="x", measured=0.0, reference=0.0, deviation=error, bound=bound)
    return Variant(settings=RunSettings(model="m"), option="pass_path", value=value, side=side, checks=[check])


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([("fast", 100, 0.005), ("exact", 80, 0.001)], "fast"),
        ([("fast", 100, 0.005), ("exact", 96, 0.001)], "exact"),
        ([("fastest", 200, 0.02), ("slow", 10, 0.009)], "slow"),
        ([("a", 100, 0.02), ("b", 100, math.nan)], None),
    ],
    ids=["speed counts first", "equal speed: the error", "a bound is exceeded", "none is inside its bound"],
)
def test_what_is_recommended(rows: list[tuple[str, float, float]], best: str | None) -> None:
    found = recommended([measured(*row) for row in rows])
    assert (found.value if found else None) == best
