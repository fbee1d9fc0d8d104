"""What comes with zoo keeps the contracts that plugin authors are given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from zoo.api import CommandOffer, hookimpl
from zoo.errors import ZooError
from zoo.evaluation.metrics import MetricHooks
from zoo.registry.catalogue import Catalogue
from zoo.testing.contract import ArchitectureContract, CommandContract, MetricContract, StepContract
from zoo.types import Checkpoint, Step
from zoo_cross_encoder.reranker import CrossEncoder

pytestmark = [pytest.mark.openvino]


class TestCrossEncoder(ArchitectureContract):
    factory = CrossEncoder


class TestCrossEncoderOnTheEmbeddedModel(ArchitectureContract):
    factory = CrossEncoder

    @pytest.fixture
    def checkpoint(self, tiny: Path) -> Checkpoint:
        return Checkpoint(folder=tiny, served_by="the card")


class TestDefaultMetrics(MetricContract):
    @pytest.fixture
    def metric(self) -> object:
        return MetricHooks()

    def test_its_names_are_its_own(self, metric: object) -> None:
        """They are zoo's own."""

    def test_equal_scores_do_not_make_it_depend_on_that_order(self, metric: object) -> None:
        """BEIR's two keep ties in order of appearance, as the reference does; trec_eval's do not."""
        whole = self.values

        def without_beir(*args: object) -> dict[str, float]:
            return {name: value for name, value in whole(*args).items() if not name.startswith(("mrr", "recall_cap"))}  # type: ignore[arg-type]

        self.values = without_beir  # type: ignore[method-assign,assignment]
        super().test_equal_scores_do_not_make_it_depend_on_that_order(metric)


class Bundled(StepContract):
    name = ""

    @pytest.fixture
    def step(self) -> Step:
        pytest.importorskip("onnx")
        return Catalogue.installed().steps[self.name].value


class TestHalf(Bundled):
    name = "half"


class TestWeightOnlyInt8(Bundled):
    name = "weight-only-int8"


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
def greet(name: str, as_json: bool) -> None:
    """Say hello to NAME."""
    if not name:
        raise ZooError("a name must not be empty")
    click.echo('{"hello": "x"}' if as_json else f"hello {name}")


class Greeter:
    @hookimpl
    def zoo_commands(self) -> Mapping[str, CommandOffer]:
        return {"greet": CommandOffer(summary="Say hello to NAME.", command=f"{__name__}:greet")}


class TestGreet(CommandContract):
    name = "greet"
    arguments = ("Ada",)
    wrong = ("",)

    @pytest.fixture
    def plugin(self) -> object:
        return Greeter()
