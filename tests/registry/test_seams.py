"""What plugins of somebody else's can do: a scorer without weights, a device with a file format and a step of its own, a command."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest

import zoo_cpu
import zoo_cross_encoder
import zoo_onnx
from conftest import Zoo
from zoo.api import (
    Architecture,
    Artifact,
    Availability,
    BatchInfo,
    CacheFolder,
    Checkpoint,
    CommandOffer,
    Encoding,
    Encodings,
    ExportRequest,
    Job,
    ModelCard,
    Option,
    Pair,
    PluginError,
    Precision,
    PrecisionInfo,
    Requirements,
    ScoreError,
    Scores,
    Session,
    SessionOptions,
    ShapeRule,
    Step,
    Tensors,
    ZooError,
    hookimpl,
)
from zoo.errors import DeviceError
from zoo.registry.catalogue import Catalogue
from zoo.registry.participants import Participant
from zoo.registry.stages import Pipeline
from zoo.reranker import Reranker
from zoo.scoring.batch_runner import BatchRunner
from zoo.scoring.batching import batches

CARD = """
description = "words in common"
architecture = "{architecture}"
license = "MIT"
languages = ["en"]
max_length = 512
"""


class Lexical(Architecture):
    """Counts the words that query and passage share: no files, no weights, no device."""

    requires = Requirements(files=(), weights=False, session=False)
    options = (Option(name="weight", kind="number", default="1", help="What a shared word counts."),)

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        rows = [
            Encoding({"hits": [1 if word in pair.query.split() else 0 for word in pair.passage.split()] or [0]})
            for pair in pairs
        ]
        return Encodings(rows, {"hits": 0})

    @hookimpl
    def postprocess(self, outputs: Tensors) -> Scores:
        scores: Scores = outputs["hits"].sum(axis=1).astype(np.float32) * np.float32(self.chosen["weight"])
        return scores


class ClosedForm(Session):
    """Computes ``sum(ids) * factor`` from a file of its own format."""

    input_names = ("input_ids",)
    shape_rule = ShapeRule()
    device_seconds = None

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        future: Future[Tensors] = Future()
        ids = inputs["input_ids"]
        future.set_result({"logits": (ids.sum(axis=1, keepdims=True) * self._factor).astype(np.float32)})
        return future

    def close(self) -> None: ...

    def __enter__(self) -> ClosedForm:
        return self

    def __exit__(self, *exc_info: object) -> None: ...


class Abacus:
    """A device whose file is made by a step that an outside plugin offers."""

    name, priority, aliases = "abacus", -100, ()
    precisions: Mapping[Precision, PrecisionInfo] = {"fp32": PrecisionInfo(offered=True)}
    options = (Option(name="beads", kind="integer", default="10", help="Beads a wire."),)

    def __init__(self) -> None:
        self.opened: list[tuple[Artifact, SessionOptions]] = []

    def probe(self) -> Availability:
        return Availability(ok=True)

    def recipe(self, precision: Precision, checkpoint: Checkpoint | None = None) -> tuple[str, ...]:
        return ("count",)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        self.opened.append((artifact, options))
        return ClosedForm(json.loads(artifact.model.read_text())["factor"])


def count(job: Job) -> dict[str, Any]:
    """The step: what the model file is worth, written as JSON."""
    assert job.model
    job.output.write_text(json.dumps({"factor": job.model.stat().st_size % 7 + 1}))
    return {"note": "counted"}


class Ids(Architecture):
    """A pair's ids are the lengths of its texts."""

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        return Encodings(
            [Encoding({"input_ids": [len(pair.query), len(pair.passage)]}) for pair in pairs], {"input_ids": 0}
        )

    @hookimpl
    def postprocess(self, outputs: Tensors) -> Scores:
        scores: Scores = outputs["logits"][:, 0]
        return scores


class Outside:
    """Everything an outside package may bring."""

    def __init__(self, folder: Path) -> None:
        self.device, self.folder = Abacus(), folder
        for name in ("lexical", "ids"):
            (folder / f"{name}-model.toml").write_text(CARD.format(architecture=name))

    @hookimpl
    def zoo_models(self) -> Iterable[Path]:
        return [self.folder]

    @hookimpl
    def zoo_architectures(self) -> Mapping[str, Any]:
        return {"lexical": Lexical, "ids": Ids}

    @hookimpl
    def zoo_devices(self) -> Iterable[Any]:
        return [self.device]

    @hookimpl
    def zoo_steps(self) -> Iterable[Step]:
        return [
            Step(name="count", version="1", summary="count", run="test_seams:count", needs=frozenset({"a model file"}))
        ]

    @hookimpl
    def zoo_commands(self) -> Mapping[str, CommandOffer]:
        return {"greet": CommandOffer(summary="Say hello.", command="test_seams:greet")}

    @hookimpl
    def zoo_caches(self) -> Iterable[CacheFolder]:
        return [CacheFolder(name="wires", holds="counted wires")]


@click.command()
@click.argument("whom")
def greet(whom: str) -> None:
    """Say hello."""
    click.echo(f"hello {whom}")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outside:
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return Outside(folder)


@pytest.fixture
def catalogue(outside: Outside) -> Catalogue:
    made = Catalogue.of(**{"outside": outside, "cpu": zoo_cpu, "onnx": zoo_onnx, "cross-encoder": zoo_cross_encoder})
    assert not [record.error for record in made.plugins if record.error]
    return made


def test_a_scorer_without_weights_needs_no_device_and_no_export(catalogue: Catalogue) -> None:
    with Reranker.open("lexical-model", catalogue=catalogue, model_options={"weight": "2"}) as reranker:
        assert reranker.device_name == "none"
        assert reranker.score([("a b", "b c b"), ("a b", "c"), ("a", "")]).tolist() == [4.0, 0.0, 0.0]
        assert [found.index for found in reranker.rank("panda", ["bear", "a panda bear"])] == [1, 0]


def test_an_unknown_model_option_is_refused_with_the_closest(catalogue: Catalogue) -> None:
    with pytest.raises(
        ZooError, match=r"no option of the architecture 'lexical' called 'wait'\. Did you mean 'weight'"
    ):
        Reranker.open("lexical-model", catalogue=catalogue, model_options={"wait": "2"})
    with pytest.raises(ZooError, match="weight=much of the architecture 'lexical': it takes a number"):
        Reranker.open("lexical-model", catalogue=catalogue, model_options={"weight": "much"})


def test_a_step_of_an_outside_plugin_makes_the_file_of_its_device(
    catalogue: Catalogue, outside: Outside, exported: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"device": "abacus", "catalogue": catalogue, "checkpoint": exported}
    with Reranker.open("ids-model", **settings) as reranker:
        [score] = reranker.score([("abc", "de")])
    artifact, options = outside.device.opened[0]
    factor = json.loads(artifact.model.read_text())["factor"]
    assert score == 5 * factor
    assert options.extra == {"beads": "10"}
    assert artifact.steps[0].name == "count"
    assert "UNPROVEN" in artifact.steps[0].note
    with Reranker.open("ids-model", ckpt=exported / "model.onnx", **settings):
        assert outside.device.opened[1][0].steps[0].note.startswith("counted")
    with pytest.raises(ZooError, match="beads=many of the device 'abacus': it takes a whole number"):
        Reranker.open("ids-model", device_options={"beads": "many"}, **settings)


def test_a_new_version_of_a_step_makes_its_artifacts_again_and_other_plugins_change_no_key(
    outside: Outside, exported: Path
) -> None:
    class Watcher:
        @hookimpl
        def export(self, request: object) -> None:
            return None

    class Newer(Outside):
        @hookimpl
        def zoo_steps(self) -> Iterable[Step]:
            [step] = super().zoo_steps()
            return [Step(**{**vars(step), "version": "2"})]

    def folder(plugin: Outside, **more: object) -> Path:
        plugins = {"outside": plugin, "onnx": zoo_onnx, **more}
        with Reranker.open("ids-model", device="abacus", catalogue=Catalogue.of(**plugins), checkpoint=exported):
            return plugin.device.opened[-1][0].model.parent

    first = folder(outside)
    assert folder(outside, watcher=Watcher()) == first
    assert folder(Newer(outside.folder)) != first


def test_a_plugins_command_stands_beside_zoos_own(
    zoo: Zoo, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Catalogue, "installed", lambda: catalogue)
    assert "Say hello." in zoo("--help").stdout
    assert zoo("greet", "panda").stdout == "hello panda\n"
    assert "Did you mean 'greet'?" in zoo("gret").stderr
    assert "--model-option" in zoo("run", "--help").stdout
    assert "beads=N" in " ".join(zoo("run", "--help").stdout.split())


def test_a_card_with_options_sets_them_and_the_user_overrules_them(
    catalogue: Catalogue, outside: Outside, zoo: Zoo
) -> None:
    card = outside.folder / "lexical-model.toml"
    card.write_text(card.read_text() + "[options]\nweight = 3\n")
    with Reranker.open("lexical-model", catalogue=catalogue) as reranker:
        assert reranker.score([("a", "a")]).tolist() == [3.0]
    with Reranker.open("lexical-model", catalogue=catalogue, model_options={"weight": "5"}) as reranker:
        assert reranker.score([("a", "a")]).tolist() == [5.0]


class Misspelt:
    @hookimpl
    def infre(self, session: object) -> None: ...


def test_a_misspelt_stage_on_an_object_is_an_error_with_the_right_name() -> None:
    with pytest.raises(
        PluginError, match=r"the plugin 'mine' \(x 1\) implements the hook 'infre'.*Did you mean 'infer'"
    ):
        Pipeline([Participant("device", Misspelt(), "'mine' (x 1)")])


def test_whoever_raises_is_named_a_wrapper_too() -> None:
    class Wrapper:
        @hookimpl(wrapper=True)
        def postprocess(self, outputs: object) -> Any:
            yield
            raise KeyError("logit")

    class Model:
        @hookimpl
        def postprocess(self, outputs: object) -> object:
            return np.zeros(1, np.float32)

        @hookimpl
        def preprocess(self, pairs: object) -> object:
            raise ValueError("no vocabulary")

    pipeline = Pipeline(
        [Participant("model", Model(), "'decoder' (my-models 2.1)")], [Participant("w", Wrapper(), "'watch' (spy 0.3)")]
    )
    with pytest.raises(
        PluginError, match=r"the plugin 'watch' \(spy 0\.3\) failed in the hook 'postprocess': KeyError"
    ):
        pipeline.postprocess({}, {}, BatchInfo(rows=1, tokens=1))
    with pytest.raises(
        PluginError, match=r"'decoder' \(my-models 2\.1\) failed in the hook 'preprocess': ValueError: no voc"
    ):
        pipeline.preprocess([])


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (type("PanicException", (BaseException,), {})("index out of bounds"), PluginError),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError),
    ],
)
@pytest.mark.parametrize("wraps", [False, True])
def test_wrappers_and_others_are_blamed_for_the_same(wraps: bool, raised: BaseException, seen: type[Exception]) -> None:
    class Model:
        @hookimpl
        def preprocess(self, pairs: object) -> object:
            if not wraps:
                raise raised
            return Encodings([], {})

    class Wrapper:
        @hookimpl(wrapper=True)
        def preprocess(self, pairs: object) -> Any:
            yield
            raise raised

    participants = [Participant("model", Model(), "'m' (m 1)")]
    pipeline = Pipeline(participants, [Participant("w", Wrapper(), "'w' (w 1)")] if wraps else [])
    with pytest.raises(seen) as caught:
        pipeline.preprocess([])
    if seen is PluginError:
        assert ("'w' (w 1)" if wraps else "'m' (m 1)") in str(caught.value)


def test_an_error_that_a_wrapper_passes_on_is_not_blamed_on_it() -> None:
    class Wrapper:
        @hookimpl(wrapper=True)
        def preprocess(self, pairs: object) -> Any:
            return (yield)

    class Model:
        @hookimpl
        def preprocess(self, pairs: object) -> object:
            raise ValueError("no vocabulary")

    pipeline = Pipeline([Participant("model", Model(), "'m' (m 1)")], [Participant("w", Wrapper(), "'w' (w 1)")])
    with pytest.raises(PluginError, match=r"'m' \(m 1\)"):
        pipeline.preprocess([])


def row(**features: Sequence[Any]) -> Encoding:
    return Encoding(features)


@pytest.mark.parametrize(
    ("encodings", "said"),
    [
        (Encodings([row(input_ids=[1, 2])], {}), "'input_ids' is not in Encodings.padding"),
        (
            Encodings([row(input_ids=[1, 2], other=[1])], {"input_ids": 0, "other": 0}),
            "unequal names or lengths in row 0",
        ),
        (Encodings([row(input_ids=[1])] * 2, {"input_ids": 0}), "gave 2 encodings for 1 pairs"),
        ([[1]], "gave list, which is not a zoo.api.Encodings"),
        (Encodings([{"input_ids": [1]}], {"input_ids": 0}), "gave a row {'input_ids': .*not a zoo.api.Encoding"),  # type: ignore[list-item]
        (Encodings([row(input_ids=[1])], {"input_ids": None}), "gave the padding None of the feature 'input_ids'"),  # type: ignore[dict-item]
        (Encodings([row(input_ids=[1])], {"input_ids": 0}, groups=[0, 1]), "gave 2 groups for 1 encodings"),
    ],
)
def test_encodings_that_cannot_be_right_are_refused(encodings: object, said: str) -> None:
    class Model:
        @hookimpl
        def preprocess(self, pairs: object) -> object:
            return encodings

    with pytest.raises(
        PluginError, match=rf"^preprocess of the plugin 'mine' \(x 1\) gave.*{said.removeprefix('gave')}"
    ):
        Pipeline([Participant("model", Model(), "'mine' (x 1)")]).preprocess([Pair("a", "b")])


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (np.zeros(3, np.float32), r"gave scores of shape \(3,\) for 1 pairs in 2 rows"),
        (np.zeros((1, 1), np.float32), r"gave scores of shape \(1, 1\)"),
        (np.zeros(1, np.int64), "gave scores of type int64; floating-point numbers are needed"),
        (["high"], "gave scores of type <U4"),
    ],
)
def test_scores_that_cannot_be_right_are_refused(scores: object, said: str) -> None:
    """A batch of one pair and a row that only fills the shape: one score, or two, and no third."""

    class Model:
        @hookimpl
        def postprocess(self, outputs: object) -> object:
            return scores

    pipeline = Pipeline([Participant("model", Model(), "'mine' (x 1)")])
    inputs = {"input_ids": np.zeros((2, 4), np.int64)}
    with pytest.raises(ScoreError, match=rf"^postprocess of the plugin 'mine' \(x 1\) {said}"):
        pipeline.postprocess({"logits": np.zeros((2, 1))}, inputs, BatchInfo(rows=1, tokens=1))


def test_a_wrapper_that_raises_in_infer_is_named_and_not_the_device() -> None:
    class Wrapper:
        @hookimpl(wrapper=True)
        def infer(self, session: object) -> Any:
            yield
            raise KeyError("clock")

    pipeline = Pipeline(
        [Participant("device", object(), "'cpu' (zoo-runner 1)"), Participant("model", Ids, "'ids' (x 1)")],
        [Participant("w", Wrapper(), "'watch' (spy 0.3)")],
    )
    batch = next(batches(Encodings([row(input_ids=[1])], {"input_ids": 0}), ShapeRule(), 1, ["input_ids"]))
    with pytest.raises(DeviceError, match=r"^the plugin 'watch' \(spy 0\.3\) failed in the hook 'infer': KeyError"):
        BatchRunner(pipeline, ClosedForm(1.0), 1).start(batch)


def test_values_that_are_no_integers_are_refused_and_not_cut() -> None:
    for values in ([1.7], ["a"], [None], [2**70]):
        encodings = Encodings([row(input_ids=values)], {"input_ids": 0})
        with pytest.raises(PluginError, match="for the feature 'input_ids'; token-level integers are needed"):
            next(batches(encodings, ShapeRule(), 1, ["input_ids"]))


def test_an_observer_that_exports_without_announcing_it_is_refused_for_the_key_would_not_name_it(
    outside: Outside, exported: Path
) -> None:
    class Quiet:
        @hookimpl
        def export(self, request: ExportRequest) -> Artifact:
            (request.folder / "model.json").write_text('{"factor": 1000}')
            return Artifact(model=request.folder / "model.json", precision=request.precision, origin="mine")

    class Announced(Quiet):
        @hookimpl
        def export_check(self, request: ExportRequest) -> bool:
            return True

    def score(**more: object) -> float:
        catalogue = Catalogue.of(outside=outside, onnx=zoo_onnx, **more)
        with Reranker.open("ids-model", device="abacus", catalogue=catalogue, checkpoint=exported) as reranker:
            return float(reranker.score([("abc", "de")])[0])

    with pytest.raises(PluginError, match="the plugin 'quiet' made a model file that it did not announce"):
        score(quiet=Quiet())
    ours = score()
    assert score(announced=Announced()) == 5000.0
    assert score() == ours != 5000.0


def test_a_plugin_written_for_another_version_is_reported_as_such() -> None:
    class Later:
        ZOO_API_VERSION = 99

    [record] = Catalogue.of(later=Later()).plugins
    assert record.error == "it was written for version 99 of zoo.api; this is version 1"


def test_an_optional_hook_of_a_later_version_breaks_nothing() -> None:
    class Later:
        @hookimpl(optionalhook=True)
        def zoo_telescopes(self) -> list[str]:
            return []

    assert not Catalogue.of(later=Later()).plugins[0].error


def test_a_device_whose_name_cannot_be_typed_is_refused() -> None:
    class Named(Abacus):
        name = "bad:name"

    class Plugin:
        @hookimpl
        def zoo_devices(self) -> Iterable[Any]:
            return [Named()]

    assert "'bad:name' cannot be typed as a `device`" in Catalogue.of(odd=Plugin()).plugins[0].error


def test_an_architecture_gets_its_card_its_limits_and_its_options() -> None:
    card = ModelCard(
        name="x", folder=Path(), description="d", architecture="lexical", license="MIT", languages=["en"], max_length=9
    )
    model = Lexical(
        card, Checkpoint(folder=Path(), served_by="x"), max_length=7, query_max_length=3, options={"weight": "1"}
    )
    assert (model.card, model.max_length, model.query_max_length, dict(model.chosen)) == (card, 7, 3, {"weight": "1"})


def test_an_architecture_of_one_output_has_its_scores_and_its_length_checked() -> None:
    logits = np.array([[1.5], [-2.0]], dtype=np.float16)
    for name in ("logits", "score"):
        scores = Architecture.one_logit({name: logits}, "Try another")
        assert (scores.dtype, scores.tolist()) == (np.float32, [1.5, -2.0])
    with pytest.raises(ScoreError, match=r"shape \(2, 3\).*Try another$"):
        Architecture.one_logit({"logits": np.zeros((2, 3))}, "Try another")
    card: Any = SimpleNamespace(name="short", max_length=512)
    checkpoint = Checkpoint(folder=Path(), served_by="a test")
    opened = Architecture(card, checkpoint, max_length=128, query_max_length=64)
    opened.check_length(128)
    with pytest.raises(
        ZooError, match=r"a length of 128 is more than 'short' can read \(64 tokens\): use a `max_length` of 64 or less"
    ):
        opened.check_length(64)
