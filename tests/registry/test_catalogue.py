"""Plugins: what they bring, and what happens when one of them is broken."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import zoo_cpu
import zoo_cross_encoder
from conftest import Zoo
from zoo import Architecture, hookimpl
from zoo.errors import NotInstalledError, PluginError, UnknownNameError
from zoo.registry.catalogue import Catalogue
from zoo.registry.participants import Participant
from zoo.registry.stages import Pipeline
from zoo.types import Artifact, Availability, BatchInfo, Checkpoint, ExportRequest, PrecisionInfo
from zoo_cpu.device import CpuDevice

pytestmark = [pytest.mark.lowest]


class Card:
    """A plugin that brings one model card."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @hookimpl
    def zoo_models(self) -> Iterable[Path]:
        return [self.path]


class Devices:
    """A plugin that brings the devices it is given."""

    def __init__(self, *devices: object) -> None:
        self.given = devices

    @hookimpl
    def zoo_devices(self) -> Iterable[Any]:
        return self.given


class Absent(CpuDevice):
    name, aliases, priority = "absent", (), 100

    def probe(self) -> Availability:
        return Availability(ok=False, reason="no card is plugged in", remedy="Plug one in.")


class Liar(Absent):
    name = "liar"

    def probe(self) -> Availability:
        raise RuntimeError("driver exploded")


def test_the_bundled_plugins_enter_through_entry_points() -> None:
    catalogue = Catalogue.installed()
    bundled = {record.name: record for record in catalogue.plugins if record.distribution == "zoo-runner"}
    assert {"cpu", "cross-encoder"} <= set(bundled)
    assert "device cpu" in bundled["cpu"].offers
    assert "model bge-reranker-v2-m3" in bundled["cross-encoder"].offers


def test_a_misspelt_hook_is_found_at_once() -> None:
    class Misspelt:
        @hookimpl
        def zoo_device(self) -> list[object]:
            return []

    catalogue = Catalogue.of(misspelt=Misspelt(), cpu=zoo_cpu)
    assert "zoo_device" in catalogue.plugins[0].error
    assert catalogue.device("cpu").name == "cpu"


def test_an_argument_that_a_hook_does_not_have_is_named() -> None:
    class Wrong:
        @hookimpl
        def evaluate(self, run: object, judgements: object) -> Mapping[str, float]:
            return {}

    [record] = Catalogue.of(wrong=Wrong()).plugins
    assert "the plugin 'wrong' does not fit its hook" in record.error
    assert "judgements" in record.error
    assert "evaluate" in record.error
    with pytest.raises(PluginError, match=r"'mine' \(x 1\) does not fit its hook.*judgements"):
        Pipeline([Participant("model", Wrong(), "'mine' (x 1)")])


def test_a_hook_that_raises_takes_nothing_else_with_it() -> None:
    class Broken:
        @hookimpl
        def zoo_devices(self) -> list[object]:
            raise OSError("cannot open shared object")

    catalogue = Catalogue.of(broken=Broken(), cpu=zoo_cpu)
    assert catalogue.device("cpu")
    with pytest.raises(
        UnknownNameError,
        match="the plugin 'broken' failed in the hook 'zoo_devices': OSError: cannot open shared object",
    ):
        catalogue.device("gpu")


def test_something_that_is_no_device_is_refused_by_name() -> None:
    catalogue = Catalogue.of(odd=Devices(SimpleNamespace(name="odd")))
    assert (
        "lacks aliases, priority, precisions, options, probe, recipe, open of zoo.api.Device"
        in catalogue.plugins[0].error
    )


def test_two_plugins_that_offer_one_name_are_an_error_that_names_both() -> None:
    catalogue = Catalogue.of(ours=zoo_cpu, theirs=Devices(CpuDevice()))
    with pytest.raises(PluginError, match="device 'cpu' is offered by more than one plugin: 'ours' and 'theirs'"):
        catalogue.device("cpu")
    assert catalogue.conflicts()
    assert catalogue.devices == []


def test_the_default_device_is_the_available_one_of_highest_priority() -> None:
    catalogue = Catalogue.of(cpu=zoo_cpu, absent=Devices(Absent(), Liar()))
    assert [device.name for device in catalogue.devices] == ["absent", "liar", "cpu"]
    assert catalogue.default_device().name == "cpu"


def test_without_any_available_device_each_ones_reason_is_given() -> None:
    catalogue = Catalogue.of(absent=Devices(Absent(), Liar()))
    with pytest.raises(
        NotInstalledError, match=r"(?s)absent: no card is plugged in\. Plug one in\..*liar: .*driver exploded"
    ):
        catalogue.default_device()
    assert catalogue.device("liar").probe().ok is False


def test_a_name_close_to_a_broken_plugins_says_why_it_cannot_be_used() -> None:
    record = Catalogue.of(cpu=zoo_cpu).plugins[0]
    record.name, record.error = (
        "sdaa",
        "it needs the Python module 'tvm', which is not installed (try: pip install tvm)",
    )
    with pytest.raises(
        PluginError, match=r"'sdaa'.*may bring device 'sdaa', cannot be used: it needs the Python module 'tvm'"
    ):
        Catalogue([record]).device("sdaa")


def test_precedence_is_observer_then_model_then_device_then_default() -> None:
    calls: list[str] = []

    def participant(name: str, answer: str | None) -> object:
        class Participant:
            @hookimpl
            def postprocess(self, outputs: object) -> object:
                calls.append(name)
                return answer and np.ones(1, np.float32)

        return Participant()

    pipeline = Pipeline(
        [("device", participant("device", "x")), ("model", participant("model", None))],
        [("observer", participant("observer", None))],
    )
    assert pipeline.postprocess({}, {}, BatchInfo(rows=1, tokens=1)).tolist() == [1.0]
    assert calls == ["observer", "model", "device"]


def test_any_participant_may_export_or_infer_in_place_of_the_default(tmp_path: Path) -> None:
    class Participant:
        @hookimpl
        def export(self, request: ExportRequest) -> Artifact:
            model = request.folder / "model.bin"
            model.write_bytes(b"weights")
            return Artifact(model=model, precision=request.precision, origin="made here")

        @hookimpl
        def infer(self, session: object, inputs: Mapping[str, Any]) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result({"doubled": inputs["x"] * 2})
            return future

    pipeline = Pipeline([("model", Participant())])
    checkpoint = Checkpoint(folder=tmp_path, served_by="test")
    request = ExportRequest(checkpoint=checkpoint, task="x", recipe=("export",), precision="fp16", folder=tmp_path)
    assert pipeline.export(request).model.read_bytes() == b"weights"
    nobody: Any = None  # the default would call the session
    assert pipeline.infer(nobody, {"x": 21}, BatchInfo(rows=1, tokens=1)).result() == {"doubled": 42}  # type: ignore[dict-item]


def test_an_observer_that_exports_says_what_it_lacks_before_weights_are_downloaded(tmp_path: Path) -> None:
    class Exporter:
        @hookimpl
        def export(self, request: ExportRequest) -> Artifact:
            raise AssertionError("nothing was fetched that could be exported")

        @hookimpl
        def export_check(self, request: ExportRequest) -> bool:
            raise NotInstalledError(f"{request.recipe[0]} needs my-exporter: pip install my-exporter")

    pipeline = Pipeline([], [("exporter", Exporter())])
    request = ExportRequest(recipe=("export",), precision="fp32", folder=tmp_path)
    with pytest.raises(NotInstalledError, match="export needs my-exporter: pip install my-exporter"):
        pipeline.custom_exporter(request)


def test_a_stage_nobody_answers_is_an_error_that_names_the_participants() -> None:
    with pytest.raises(PluginError, match=r"nobody answered the hook 'postprocess' \(participants: defaults, model\)"):
        Pipeline([("model", object())]).postprocess({}, {}, BatchInfo(rows=1, tokens=1))


def test_evaluators_add_up_and_a_clash_costs_the_second() -> None:
    def evaluator(**metrics: float) -> object:
        class Evaluator:
            @hookimpl
            def evaluate(self, run: object, qrels: object) -> Mapping[str, float]:
                return metrics

        return Evaluator()

    both = Pipeline([("a", evaluator(mine=0.5)), ("b", evaluator(yours=1.0))]).evaluate({}, {})
    assert dict(both.metrics) == {"mine": 0.5, "yours": 1.0}
    first, second = (
        Participant("a", evaluator(mine=0.5), "'a' (one 1)"),
        Participant("b", evaluator(mine=1.0), "'b' (two 2)"),
    )
    clash = Pipeline([first, second]).evaluate({}, {})
    assert dict(clash.metrics) == {"mine": 0.5}
    assert clash.warnings == ("the plugin 'b' (two 2) gives the metric mine, which another evaluator gives already",)


def test_a_metric_that_raises_or_changes_its_arguments_costs_only_itself() -> None:
    class Raises:
        @hookimpl
        def evaluate(self, run: object, qrels: object) -> Mapping[str, float]:
            return {"mine": 1 / 0}

    class Empties:
        @hookimpl
        def evaluate(self, run: dict[str, Any], qrels: dict[str, Any]) -> Mapping[str, float]:
            run.clear()
            qrels.clear()
            return {"emptied": 1.0}

    class Counts:
        @hookimpl
        def evaluate(self, run: dict[str, Any], qrels: dict[str, Any]) -> Mapping[str, float]:
            return {"queries": len(run) + len(qrels)}

    plugins = [
        Participant(plugin.__name__, plugin(), f"'{plugin.__name__}' (x 1)") for plugin in (Raises, Empties, Counts)
    ]
    found = Pipeline(plugins).evaluate({"q": {"p": 1.0}}, {"q": {"p": 1}})
    assert dict(found.metrics) == {"emptied": 1.0, "queries": 2}
    assert found.warnings == (
        "the plugin 'Raises' (x 1) failed in the hook 'evaluate': ZeroDivisionError: division by zero",
    )


def test_a_stage_overridden_without_hookimpl_raises_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"postprocess overrides a stage and needs @zoo\.hookimpl"):

        class Silent(Architecture):
            def postprocess(self, outputs: object) -> object:
                return outputs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("description = 'x", "is not a readable model card"),
        ("architekture = 'x'", "unknown key 'architekture' in a model card. Did you mean 'architecture'?"),
        ("max_length = 'long'", "Expected `int`, got `str`"),
        ("max_length = 0", "'max_length' must be positive"),
        ("hub = 'a/b'\nrevision = 'main'", "'revision' must be a commit of 40 hexadecimal digits, not 'main'"),
    ],
)
def test_a_faulty_card_is_named_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    complete = {
        "description": "'d'", "architecture": "'cross-encoder'", "license": "'MIT'", "languages": "['en']",
        "max_length": "512", "bundled": "'x'",
    }  # fmt: skip
    key = text.partition(" ")[0]
    if key == "hub":
        del complete["bundled"]
    lines = [f"{name} = {value}" for name, value in complete.items() if name != key]
    path = tmp_path / "faulty.toml"
    path.write_text("\n".join([*lines, text]), encoding="utf-8")
    catalogue = Catalogue.of(card=Card(path), cards=zoo_cross_encoder)
    with pytest.raises(Exception, match=r"faulty\.toml") as caught:
        catalogue.card("faulty")
    assert said in str(caught.value)
    assert catalogue.card("bge-reranker-v2-m3").hub == "BAAI/bge-reranker-v2-m3"


def test_a_device_that_lacks_a_precision_says_which_it_has(monkeypatch: pytest.MonkeyPatch, zoo: Zoo) -> None:
    monkeypatch.setattr(CpuDevice, "precisions", {"fp32": PrecisionInfo(offered=True)})
    result = zoo("run", "zoo-reranker-tiny", "--half", "--target", "cpu")
    assert result.exit_code == 1
    assert "cannot run in fp16 here; it runs in fp32" in result.stderr


@pytest.fixture
def entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a distribution with one module and one entry point where importlib.metadata finds it."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def add(module: str, source: str, distribution: str = "third-party", name: str | None = None) -> None:
        info = tmp_path / "site" / f"{distribution.replace('-', '_')}-0.9.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.9\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[zoo]\n{name or module} = {module}\n", encoding="utf-8")
        (tmp_path / "site" / f"{module}.py").write_text(source, encoding="utf-8")

    return add


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import a_runtime_nobody_has", "it needs the Python module 'a_runtime_nobody_has', which is not installed"),
        ("raise RuntimeError('half installed')", "RuntimeError: half installed"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_listed_and_harms_nobody(
    zoo: Zoo, entry_point: Any, source: str, said: str
) -> None:
    entry_point("broken_plugin_under_test", source, name="gpu")
    listed = json.loads(zoo("plugins", "--json").stdout)["plugins"]
    [record] = [plugin for plugin in listed if plugin["name"] == "gpu"]
    assert (record["ok"], record["distribution"], record["version"]) == (False, "third-party", "0.9")
    assert said in record["error"]
    assert "broken" in zoo("plugins").stdout
    assert zoo("run", "zoo-reranker-tiny", "-q").exit_code == 0
    used = zoo("run", "zoo-reranker-tiny", "--target", "gpu")
    assert used.exit_code == 1
    assert "the plugin 'gpu' (third-party 0.9), which may bring device 'gpu', cannot be used" in used.stderr
    assert said in used.stderr
    assert "Traceback" not in used.stderr


def test_two_distributions_with_one_entry_point_name_are_both_listed(zoo: Zoo, entry_point: Any) -> None:
    source = "from zoo import hookimpl\nfrom zoo_cpu.device import CpuDevice\n\n@hookimpl\ndef zoo_devices():\n    return [CpuDevice()]\n"
    entry_point("second_cpu_under_test", source, name="cpu")
    listed = json.loads(zoo("plugins", "--json").stdout)
    assert [p["distribution"] for p in listed["plugins"] if p["name"] == "cpu"] == ["third-party", "zoo-runner"]
    assert any("device 'cpu' is offered by more than one plugin" in conflict for conflict in listed["conflicts"])
    assert "offered by more than one plugin" in zoo("devices").stderr
    result = zoo("run", "zoo-reranker-tiny", "--target", "cpu")
    assert result.exit_code == 1
    assert "Uninstall all but one of them." in result.stderr
