"""Packages of each kind by somebody else, installed as packages are: they keep the contracts, and the command line finds them.

Run by ``tox -e outsiders``, which installs them into a fresh environment.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

from zoo.testing.contract import ArchitectureContract, CommandContract, DeviceContract, MetricContract, StepContract

pytestmark = [pytest.mark.outsiders]

try:
    importlib.metadata.distribution("zoo-packed")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("the packages of tests/external are not installed (tox -e outsiders)", allow_module_level=True)

import zoo_hits
import zoo_overlap
import zoo_packed
import zoo_words
import zoo_yes_no


class TestOverlap(ArchitectureContract):
    factory = zoo_overlap.Overlap


class TestYesNo(ArchitectureContract):
    factory = zoo_yes_no.YesNo


class TestYesNoWithAnInstruction(TestYesNo):
    options = {"instruction": "find what explains "}


class TestPackedDevice(DeviceContract):
    @pytest.fixture
    def device(self):
        return zoo_packed.PackedDevice()

    @pytest.fixture
    def model(self, source, tmp_path):
        from zoo_packed_steps import pack

        from zoo.api import Job

        job = Job(
            name="pack",
            model=source,
            target=tmp_path / "packed",
            reference=tmp_path / "none",
            options={"file_name": "toy.packed"},
        )
        job.target.mkdir()
        pack(job)
        return job.output


class TestPack(StepContract):
    @pytest.fixture
    def step(self):
        return zoo_packed.STEP


class TestHits(MetricContract):
    @pytest.fixture
    def metric(self):
        return zoo_hits

    @pytest.fixture
    def expected(self):
        return {"hits@1": 0.5}


class TestWords(CommandContract):
    name = "words"
    arguments = ("two words",)
    wrong = ("",)

    @pytest.fixture
    def plugin(self):
        return zoo_words


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "zoo", *arguments], capture_output=True, text=True, check=False)


def logits(*arguments: str) -> list[float]:
    done = run("run", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["logit"] for line in done.stdout.splitlines()]


def test_every_package_is_listed_and_the_broken_one_says_why() -> None:
    listed = {record["name"]: record for record in json.loads(run("plugins", "--json").stdout)["plugins"]}
    assert listed["packed"]["offers"] == ["device packed", "step pack"]
    assert listed["overlap"]["offers"] == ["model overlap", "architecture overlap"]
    assert listed["words"]["offers"] == ["command words"]
    assert listed["watch"]["offers"] == ["stage preprocess"]
    assert "the licence server does not answer" in listed["broken"]["error"]
    assert {name for name, record in listed.items() if not record["ok"]} == {"broken"}


def test_a_device_with_a_format_of_its_own_scores_as_the_cpu_does() -> None:
    packed = logits("zoo-reranker-tiny", "--target", "packed")
    assert packed == pytest.approx(logits("zoo-reranker-tiny", "--target", "cpu"), abs=1e-4)


def test_a_reranker_without_weights_runs_by_its_name() -> None:
    hi, sentence = logits("overlap")
    assert hi == 0.0
    assert sentence == pytest.approx(2 / 3), "'is' and 'panda', and not 'what'"


def test_an_observer_sees_every_run() -> None:
    assert "watch: 2 pairs" in run("run", "zoo-reranker-tiny").stderr


def test_a_command_stands_beside_zoos_own() -> None:
    assert run("words", "two words", "--json").stdout == '{"words": 2}\n'
    assert "Count the words of TEXT." in run("--help").stdout
