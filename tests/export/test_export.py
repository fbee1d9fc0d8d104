"""Export, the steps after it, and their proof. What needs torch or onnx skips, with the reason, where they are missing."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import PANDA, Zoo
from random_checkpoints import exported_only, make_checkpoint
from zoo import hookimpl
from zoo.checkpoints.files import model_files
from zoo.errors import NotInstalledError, ZooError
from zoo.export import modules, probes, proof, run_steps
from zoo.export.process import Job, StepError, run
from zoo.export.run_steps import DefaultExport
from zoo.export.steps import Steps
from zoo.registry.catalogue import Catalogue
from zoo.registry.participants import Participant
from zoo.registry.stages import Pipeline
from zoo.statistics import spearman
from zoo.types import Artifact, Checkpoint, ExportRequest, StepReport
from zoo_cpu.device import _multiplies_int8
from zoo_onnx import EXACT
from zoo_onnx import proof as evaluation

pytestmark = [pytest.mark.export]

EXPORT = "the export extra is not installed"


@pytest.fixture
def torch() -> Any:
    for module in ("transformers", "optimum.exporters.onnx", "onnx"):
        pytest.importorskip(module, reason=EXPORT)
    return pytest.importorskip("torch", reason=EXPORT)


@pytest.fixture
def onnx() -> Any:
    return pytest.importorskip("onnx", reason=EXPORT)


@pytest.fixture
def xlmr(tmp_path: Path, torch: Any) -> Path:
    make_checkpoint(tmp_path / "xlmr")
    return tmp_path / "xlmr"


def torch_scores(model: Any, folder: Path) -> list[float]:
    """The panda pairs by transformers, one at a time."""
    import torch
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    scores = []
    for query, passage in PANDA:
        encoded = tokenizer(query, passage, return_tensors="pt")
        if model.config.type_vocab_size == 1:
            encoded.pop("token_type_ids", None)
        with torch.inference_mode():
            scores.append(float(model(**encoded).logits[0, 0]))
    return scores


def logits(stdout: str) -> list[float]:
    return [json.loads(line)["logit"] for line in stdout.splitlines()]


@pytest.mark.parametrize("family", ["xlm-roberta", "bert"])
def test_run_exports_by_itself_and_scores_as_torch_does(zoo: Zoo, tmp_path: Path, torch: Any, family: str) -> None:
    folder = tmp_path / family
    model = make_checkpoint(folder, family)
    arguments = (
        "run",
        "bge-reranker-v2-m3",
        "--config-path",
        folder,
        "--target",
        "cpu",
        "--exporter",
        "optimum",
        "--json",
    )
    first = zoo(*arguments)
    assert first.exit_code == 0, first.stderr
    assert "step 1 of 3: export" in first.stderr
    assert "largest difference from torch, float32" in first.stderr
    np.testing.assert_allclose(logits(first.stdout), torch_scores(model, folder), atol=1e-4)
    second = zoo(*arguments)
    assert second.stdout == first.stdout
    assert "step 1" not in second.stderr
    assert "cached, made" in second.stderr

    (row,) = json.loads(zoo("cache", "list", "--json").stdout)["artifacts"]
    manifest = json.loads((Path(row["path"]) / "manifest.json").read_text(encoding="utf-8"))
    step, *faster = manifest["steps"]
    assert step["compared_with"] == "torch, float32"
    assert step["max_rel_error"] <= step["tolerance"] == EXACT
    assert [other["name"] for other in faster] == ["first-token-only", "flash"]
    assert all(other["max_rel_error"] <= other["tolerance"] == EXACT for other in faster)
    assert step["pairs"] == 4
    assert step["lengths"] == [9, 16, 30, 50]
    assert step["peak_memory"] > 50_000_000
    assert "torch" in manifest["versions"]


@pytest.mark.parametrize("dot_product", [_multiplies_int8(), False], ids=["this-cpu", "a-cpu-without-vnni"])
def test_every_step_is_proven_and_int8_scores_near_the_source(
    zoo: Zoo, tmp_path: Path, torch: Any, monkeypatch: pytest.MonkeyPatch, dot_product: bool
) -> None:
    monkeypatch.setattr("zoo_cpu.device._multiplies_int8", lambda: dot_product)
    last = "quantise" if dot_product else "quantise-unsigned"
    folder = tmp_path / "xlmr"
    right = torch_scores(make_checkpoint(folder), folder)
    words = ("--config-path", folder, "--target", "cpu", "--precision", "int8", "--exporter", "optimum", "--json")
    exported = zoo("export", "bge-reranker-v2-m3", *words)
    assert exported.exit_code == 0, exported.stderr
    report = json.loads(exported.stdout)
    assert [step["name"] for step in report["steps"]] == ["export (optimum)", "fuse", last]
    assert report["steps"][1]["note"] == "2 attention layers fused"
    assert report["precision"] == "int8"
    assert all(step["max_abs_error"] is not None for step in report["steps"])
    result = zoo("run", "bge-reranker-v2-m3", *words)
    assert "cached, made" in result.stderr
    difference = np.abs(np.array(logits(result.stdout)) - right).max()
    assert 0 < difference < 0.2 * np.abs(right).max(), "another precision, near the source"


def test_tecorigins_recipe_into_a_folder_to_run_from(zoo: Zoo, xlmr: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "model"
    result = zoo(
        "export", "bge-reranker-v2-m3", "--config-path", xlmr, "--target", "cpu", "--offline", "--output", output,
        "--optimize", "O1", "--sequence-length", "128", "--batch-size", "1", "--monolith",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{output / 'model.onnx'}\n"
    assert {path.name for path in output.iterdir()} == {
        "config.json", "manifest.json", "model.onnx", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["recipe"] == ["export"]
    assert manifest["options"] == {"batch_size": 1, "monolith": True, "optimize": "O1", "sequence_length": 128}
    shutil.rmtree(xlmr)
    ran = zoo("run", "bge-reranker-v2-m3", "--config-path", output, "--target", "cpu")
    assert ran.exit_code == 0, ran.stderr
    again = zoo("export", "bge-reranker-v2-m3", "--config-path", output, "--output", output)
    assert again.exit_code == 1
    assert "exists and is not empty" in again.stderr
    nothing = zoo("export", "bge-reranker-v2-m3", "--config-path", output, "--target", "cpu", "--optimize", "none")
    assert "there is nothing to export" in nothing.stderr


def test_export_of_nonsense_is_a_usage_error(zoo: Zoo) -> None:
    for words in (("--optimize", "O9"), ("--precision", "fp8"), ("--sequence-length", "0"), ("--batch-size", "x")):
        assert zoo("export", "bge-reranker-v2-m3", *words).exit_code == 2
    missing = zoo("export", "bge-reranker-v2-m4")
    assert missing.exit_code == 1
    assert "Did you mean 'bge-reranker-v2-m3'?" in missing.stderr


def test_half_and_precision_must_not_contradict_each_other(zoo: Zoo) -> None:
    for words in (("--half", "--precision", "int8"), ("--no-half", "--precision", "fp16")):
        result = zoo("run", "zoo-reranker-tiny", *words)
        assert result.exit_code == 2
        assert "--precision" in result.stderr
    assert zoo("run", "zoo-reranker-tiny", "--no-half", "--precision", "fp32").exit_code == 0


def test_a_file_handed_over_is_brought_to_the_precision_asked_for_once(
    zoo: Zoo, exported: Path, tmp_path: Path, onnx: Any
) -> None:
    model = tmp_path / "mine" / "model.onnx"
    model.parent.mkdir()
    for path in model_files(exported / "model.onnx"):
        shutil.copy(path, model.parent)
    before = sorted(model.parent.iterdir())
    arguments = ("run", "zoo-reranker-tiny", "--ckpt", model, "--config-path", exported, "--target", "cpu")
    plain = zoo(*arguments)
    assert "(the model file given)" in plain.stderr, "what needs no step is run as it is"
    for precision in ("fp16", "int8"):
        first = zoo(*arguments, "--precision", precision)
        assert first.exit_code == 0, first.stderr
        assert f"made now from the file {model}" in first.stderr
        second = zoo(*arguments, "--precision", precision)
        assert "cached, made" in second.stderr
        assert first.stdout == second.stdout != plain.stdout
    made = {row["precision"]: row for row in json.loads(zoo("cache", "list", "--json").stdout)["artifacts"]}
    assert sorted(model.parent.iterdir()) == before, "nothing is written beside the user's file"
    for precision in ("fp16", "int8"):
        already = Path(made[precision]["path"]) / "model.onnx"
        again = zoo("run", "zoo-reranker-tiny", "--ckpt", already, "--config-path", exported, "--precision", precision)
        assert again.exit_code == 0, again.stderr
        assert "already" in again.stderr


def test_signed_weights_made_elsewhere_are_named_where_they_overflow(
    zoo: Zoo, exported: Path, tmp_path: Path, onnx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = exported_only(exported, tmp_path / "exported"), tmp_path / "out"
    words = ("zoo-reranker-tiny", "--target", "cpu", "--precision", "int8", "--config-path")
    monkeypatch.setattr("zoo_cpu.device._multiplies_int8", lambda: True)
    made = zoo("export", *words, source, "--output", folder)
    assert made.exit_code == 0, made.stderr
    file = folder / "model.onnx"
    words = (*words, folder)
    same = zoo("run", *words, "--ckpt", file)
    assert "quantised already" in same.stderr
    assert "overflow" not in same.stderr
    monkeypatch.setattr("zoo_cpu.device._multiplies_int8", lambda: False)
    other = zoo("run", *words, "--ckpt", file)
    assert other.exit_code == 0, other.stderr
    assert "quantised already, with signed weights: they overflow" in other.stderr
    refused = zoo("run", *words)
    assert refused.exit_code == 1
    assert (
        "made for int8 by fuse, quantise, and int8 takes export, fuse, quantise-unsigned on this machine"
        in refused.stderr
    )
    assert "needs its weights, model.safetensors" in refused.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors.pop("classifier.out_proj.weight"), "missing: classifier.out_proj.weight"),
        (
            lambda tensors: tensors.pop("roberta.embeddings.word_embeddings.weight"),
            "roberta.embeddings.word_embeddings.weight",
        ),
        (lambda tensors: tensors.update(extra=tensors["classifier.dense.bias"].clone()), "unexpected: extra"),
        (
            lambda tensors: tensors.update({"classifier.dense.bias": tensors["classifier.dense.bias"][:5].clone()}),
            "of another shape: classifier.dense.bias",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_keys_named(xlmr: Path, change: Any, told: str) -> None:
    from safetensors.torch import load_file, save_file

    from zoo_optimum.torch_export import load

    tensors = load_file(xlmr / "model.safetensors")
    change(tensors)
    save_file(tensors, xlmr / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ZooError) as caught:
        load(xlmr)
    assert told in str(caught.value)
    assert ("no trained classifier" in str(caught.value)) == ("classifier.out" in told)


def test_a_checkpoint_without_a_classifier_ends_the_run_and_leaves_nothing(
    zoo: Zoo, tmp_path: Path, torch: Any
) -> None:
    import transformers

    make_checkpoint(tmp_path / "encoder")
    whole = transformers.XLMRobertaForSequenceClassification.from_pretrained(tmp_path / "encoder")
    whole.roberta.save_pretrained(tmp_path / "encoder")
    config = json.loads((tmp_path / "encoder" / "config.json").read_text())
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(config | {"id2label": {"0": "LABEL_0"}}))
    result = zoo("run", "bge-reranker-v2-m3", "--config-path", tmp_path / "encoder", "--target", "cpu")
    assert result.exit_code == 1
    assert "classifier.out_proj.weight" in result.stderr
    assert "no trained classifier" in result.stderr
    assert result.stdout == ""
    assert json.loads(zoo("cache", "list", "--json").stdout)["artifacts"] == []


def test_a_classifier_with_several_labels_is_no_reranker(zoo: Zoo, tmp_path: Path, torch: Any) -> None:
    make_checkpoint(tmp_path / "labels", num_labels=3)
    result = zoo("run", "bge-reranker-v2-m3", "--config-path", tmp_path / "labels", "--target", "cpu")
    assert result.exit_code == 1
    assert "3 labels" in result.stderr


class Intruder:
    """A pickle that writes a file when somebody loads it carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "executed")


def test_pickled_weights_are_read_only_when_asked_for(zoo: Zoo, xlmr: Path, torch: Any) -> None:
    from safetensors.torch import load_file

    from zoo_optimum.torch_export import load

    tensors = load_file(xlmr / "model.safetensors")
    (xlmr / "model.safetensors").unlink()
    torch.save(tensors, xlmr / "pytorch_model.bin")
    arguments = ("run", "bge-reranker-v2-m3", "--config-path", xlmr, "--target", "cpu")
    refused = zoo(*arguments)
    assert refused.exit_code == 1
    assert "--allow-pickle reads" in refused.stderr
    assert "step 1 of 3" in zoo(*arguments, "--allow-pickle").stderr
    loaded = load(xlmr)[0].state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_what_is_pickled_beside_weights_is_not_executed(xlmr: Path, tmp_path: Path, torch: Any) -> None:
    from zoo_optimum.torch_export import load

    (xlmr / "model.safetensors").unlink()
    trap = tmp_path / "trap"
    torch.save({"x": Intruder(trap)}, xlmr / "pytorch_model.bin")
    with pytest.raises(ZooError, match="cannot be read"):
        load(xlmr)
    assert not trap.exists()


def test_weights_cut_short_are_refused(zoo: Zoo, xlmr: Path) -> None:
    from zoo_optimum.torch_export import load

    content = (xlmr / "model.safetensors").read_bytes()
    for size in (4, 100):
        (xlmr / "model.safetensors").write_bytes(content[:size])
        result = zoo("run", "bge-reranker-v2-m3", "--config-path", xlmr, "--target", "cpu")
        assert result.exit_code == 1
        assert "is not a safetensors file, or not a whole one" in result.stderr
    (xlmr / "model.safetensors").write_bytes(content[:-10])
    with pytest.raises(ZooError, match="cannot be read"):
        load(xlmr)


def test_code_in_a_checkpoint_is_not_run(xlmr: Path, tmp_path: Path) -> None:
    from zoo_optimum.torch_export import load

    trap = tmp_path / "trap"
    (xlmr / "modeling_mine.py").write_text(f"import pathlib\npathlib.Path({str(trap)!r}).write_text('executed')\n")
    config = json.loads((xlmr / "config.json").read_text())
    maps = {"AutoConfig": "modeling_mine.Config", "AutoModelForSequenceClassification": "modeling_mine.Model"}
    (xlmr / "config.json").write_text(json.dumps(config | {"auto_map": maps, "model_type": "mine"}))
    with pytest.raises(ZooError, match="describes no model that transformers knows"):
        load(xlmr)
    assert not trap.exists()


def test_a_file_that_computes_something_else_fails_its_proof(exported: Path, tmp_path: Path, onnx: Any) -> None:
    import onnxruntime

    batches = probes.of_checkpoint(exported, ["input_ids", "attention_mask"])
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    right = [{"logits": session.run(["logits"], batch)[0]} for batch in batches]
    for label, wrong, fails in (("same", 0.0, False), ("wrong", 1.0, True)):
        job = _job(tmp_path / label, model=exported / "model.onnx")
        probes.save(job.reference, batches, [{"logits": output["logits"] + wrong} for output in right])
        result = proof.prove(job, evaluation.evaluate)
        assert (result["max_rel_error"] > EXACT) == fails
        assert result["max_abs_error"] == pytest.approx(wrong, abs=1e-4)
        assert result["rank_correlation"] == pytest.approx(1.0)


def test_an_error_over_the_tolerance_and_a_nan_end_the_export() -> None:
    report = StepReport(
        name="half",
        seconds=1,
        peak_memory=1,
        max_abs_error=1.0,
        max_rel_error=0.5,
        tolerance=0.02,
        pairs=2,
        lengths=(3, 9),
    )
    for error in (0.5, float("nan")):
        with pytest.raises(ZooError, match=r"after 'half' does not compute what its source does.*allowed is 0\.02"):
            run_steps._judge(replace(report, max_rel_error=error))
    run_steps._judge(replace(report, max_rel_error=0.01))


def test_a_step_that_dies_is_told_by_its_ending(tmp_path: Path) -> None:
    job = _job(tmp_path / "job", model=tmp_path / "absent.onnx")
    with pytest.raises(StepError, match="'half' failed: "):
        run(job)


def test_what_a_plugins_own_kind_of_error_says_is_said_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_of_mine.py").write_text(
        "from zoo.api import ZooError\n"
        "class Mine(ZooError):\n    def __init__(self, one, two):\n        super().__init__(f'{one} lacks {two}')\n"
        "def run(job):\n    raise Mine('config.json', 'a key')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    job = replace(_job(tmp_path / "job", model=tmp_path / "absent.onnx"), function="plugin_of_mine:run")
    with pytest.raises(ZooError, match=r"^config\.json lacks a key$") as caught:
        run(job)
    assert not isinstance(caught.value, StepError), "a step that may fail has told its user something here"


def test_a_step_that_fails_on_a_full_disk_says_that_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job(tmp_path / "job", model=tmp_path / "absent.onnx")
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    with pytest.raises(OSError, match="No space left on device"):
        run(job)


def test_onnxsim_dying_leaves_the_graph_as_it_was_and_says_so(
    exported: Path, tmp_path: Path, onnx: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxsim", reason=EXPORT)
    folder = tmp_path / "out"
    folder.mkdir()
    request = ExportRequest(
        source=exported / "model.onnx", checkpoint=Checkpoint(folder=exported, served_by="a test"), recipe=("simplify", "half"),
        precision="fp16", folder=folder, options={"memory": 1_000_000},
    )  # fmt: skip
    artifact = DefaultExport(Steps(Catalogue.installed().steps)).export(request)
    assert "Going on with the file as it was" in caplog.text
    assert "'simplify' gave no result: " in caplog.text
    simplified, halved = artifact.steps
    assert simplified.skipped
    assert halved.max_abs_error is not None
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


def test_simplify_writes_a_proven_file_with_its_axes(zoo: Zoo, exported: Path, tmp_path: Path, onnx: Any) -> None:
    import onnxruntime

    pytest.importorskip("onnxsim", reason=EXPORT)
    for words, files in (((), ["out.onnx"]), (("--save-as-external-data",), ["out.onnx", "out.onnx.data"])):
        place = tmp_path / f"with{len(words)}"
        result = zoo("simplify", exported / "model.onnx", "--save-name", place / "out.onnx", *words)
        assert result.exit_code == 0, result.stderr
        assert result.stdout == f"{place / 'out.onnx'}\n"
        assert "largest difference from the file it was made from" in result.stderr
        assert sorted(path.name for path in place.iterdir()) == files
        onnx.checker.check_model(str(place / "out.onnx"))
        session = onnxruntime.InferenceSession(str(place / "out.onnx"))
        assert all(isinstance(axis, str) for node in session.get_inputs() for axis in node.shape)
        ran = zoo("run", "zoo-reranker-tiny", "--ckpt", place / "out.onnx", "--config-path", exported)
        assert ran.exit_code == 0, ran.stderr


def test_simplify_refuses_what_it_cannot_do_and_writes_nothing(
    zoo: Zoo, exported: Path, tmp_path: Path, onnx: Any
) -> None:
    pytest.importorskip("onnxsim", reason=EXPORT)
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    target = tmp_path / "place" / "out.onnx"
    for file, words, told in (
        (tmp_path / "absent.onnx", (), "there is no model file"),
        (tmp_path / "bad.onnx", (), "is not an ONNX file"),
        (exported / "model.onnx", ("--memory", "0.1"), "was not simplified"),
    ):
        result = zoo("simplify", file, "--save-name", target, *words)
        assert result.exit_code == 1
        assert told in result.stderr
        assert not target.parent.exists() or not list(target.parent.iterdir())
    assert zoo("simplify", exported / "model.onnx").exit_code == 2
    assert zoo("simplify", exported / "model.onnx", "--save-name", target, "--timeout", "0").exit_code == 2
    folder = zoo("simplify", exported / "model.onnx", "--save-name", tmp_path)
    assert "is a folder" in folder.stderr


def test_a_graph_with_float_inputs_is_simplified_too(zoo: Zoo, tmp_path: Path, onnx: Any) -> None:
    pytest.importorskip("onnxsim", reason=EXPORT)
    make = onnx.helper
    graph = make.make_graph(
        [make.make_node("Identity", ["x"], ["y"]), make.make_node("Relu", ["y"], ["z"])],
        "small",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [make.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["n", 4])],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "in.onnx"))
    result = zoo("simplify", tmp_path / "in.onnx", "--save-name", tmp_path / "out.onnx")
    assert result.exit_code == 0, result.stderr
    assert [node.op_type for node in onnx.load(str(tmp_path / "out.onnx")).graph.node] == ["Relu"]


def test_a_step_that_may_fail_may_lack_its_package_if_it_is_one_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(Catalogue.installed().steps)
    monkeypatch.setattr(modules, "found", lambda module: module != "onnxsim")
    steps.check_modules(("simplify", "half"))
    with pytest.raises(NotInstalledError, match="onnxsim"):
        steps.check_modules(("simplify",))


def test_without_an_exporter_each_ones_reason_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(Catalogue.installed().steps)
    monkeypatch.setattr(modules, "found", lambda module: module != "torch")
    request = ExportRequest(recipe=("export",), precision="fp32", folder=tmp_path, exporter="optimum")
    with pytest.raises(
        NotInstalledError, match=r"optimum: torch is not installed\. pip install 'zoo-runner\[export\]'"
    ):
        steps.exporter(request)
    with pytest.raises(ZooError, match=r"there is no exporter 'optimun'\. Did you mean 'optimum'"):
        steps.exporter(replace(request, exporter="optimun"))


def test_the_steps_are_asked_last() -> None:
    class Own:
        @hookimpl
        def export(self, request: ExportRequest) -> Artifact:
            return Artifact(model=Path("made-by-the-model"), precision="fp32", origin="the model itself")

    pipeline = Pipeline([("model", Own())]).extended(Participant("exporter", DefaultExport(Steps({}))))
    request = ExportRequest(recipe=("export",), precision="fp32", folder=Path())
    assert pipeline.custom_exporter(request) == "model"
    assert pipeline.export(request).origin == "the model itself"


def test_the_exporter_imports_nothing_heavy_until_it_works() -> None:
    code = "import sys, zoo_onnx; print(sorted({'torch', 'onnx', 'numpy', 'onnxruntime', 'transformers'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(result.stdout) == []


def _job(folder: Path, *, model: Path) -> Job:
    folder.mkdir()
    return Job(
        name="half",
        function="zoo_onnx.graph_steps:half",
        model=model,
        target=folder / "out",
        reference=folder / "reference.npz",
    )


def test_a_quality_report_compares_a_precision_with_float32_on_labelled_data(zoo: Zoo, torch: Any) -> None:
    words = ("export", "zoo-reranker-tiny", "--target", "cpu", "--precision", "fp16", "--quality", "mldr-mini")
    result = zoo(*words, "--quality-queries", "2", "--json")
    assert result.exit_code == 0, result.stderr
    reports = json.loads(result.stdout)["quality"]
    assert {report["queries"] for report in reports} == {2}
    for report in reports:
        assert report["pairs"] > 2
        assert 0 < report["max_deviation"] < 0.1 * report["spread"], "float16 moves scores, and moves them little"
        assert report["rms_deviation"] <= report["max_deviation"]
        assert report["spearman"] > 0.9
        assert 0 <= report["ndcg_at_10"] <= 1
    assert "ndcg_at_10_fp32" in zoo(*words, "--quality-queries", "1").stdout


def test_a_quality_report_needs_another_precision_and_a_data_set(zoo: Zoo, tmp_path: Path, torch: Any) -> None:
    words = ("export", "zoo-reranker-tiny", "--target", "cpu", "--quality")
    assert zoo(*words, "mldr-mini", "--quality-queries", "0").exit_code == 2
    assert zoo(*words, "mldr-mini").exit_code == 2
    assert zoo(*words, "mldr-mini", "--precision", "fp32").exit_code == 2
    missing = zoo(*words, tmp_path / "absent", "--precision", "fp16")
    assert missing.exit_code == 1
    assert "no such folder" in missing.stderr


def test_rank_correlation_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="the reference is scipy's")
    random = np.random.default_rng(3)
    for _ in range(20):
        first, second = random.integers(0, 6, 12), random.normal(size=12)
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert spearman([1.0], [2.0]) == 1.0
