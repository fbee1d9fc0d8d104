"""Recipes: orders that would do harm are refused before anything is made."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from zoo.cpus import cpu_flags
from zoo.errors import PluginError
from zoo.export.run_steps import DefaultExport
from zoo.export.steps import EXPORT, Steps, space_needed
from zoo.registry.catalogue import Catalogue
from zoo.types import Device, ExportRequest, Step
from zoo_cpu.device import CpuDevice
from zoo_openvino.device import OpenVinoDevice

pytestmark = [pytest.mark.export, pytest.mark.openvino]


@pytest.fixture(scope="module")
def steps() -> Steps:
    """What the bundled plugins offer."""
    return Steps(Catalogue.installed().steps)


@pytest.mark.parametrize(
    "recipe", [("export", "simplify", "fuse"), ("export", "half", "fuse"), ("export", "fuse", "fuse")]
)
def test_nothing_may_come_between_the_export_and_the_fusion(
    recipe: tuple[str, ...], steps: Steps, tmp_path: Path
) -> None:
    with pytest.raises(
        PluginError, match=r"'fuse' needs the nodes as they were exported, and the step '.*' before it removes them"
    ):
        DefaultExport(steps).export(ExportRequest(recipe=recipe, precision="fp32", folder=tmp_path / "x"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "recipe",
    [
        ("simplify",),
        ("half", "export"),
        ("export", "half", "quantise"),
        ("export", "quantise", "compress"),
        ("export", "compress", "quantise"),
        ("export", "fuse", "compress"),
    ],
)
def test_a_step_without_what_it_needs_is_refused(recipe: tuple[str, ...], steps: Steps) -> None:
    with pytest.raises(PluginError, match="cannot work"):
        steps.check(recipe)


def test_a_step_that_nobody_offers_is_refused_with_the_closest_one(steps: Steps) -> None:
    with pytest.raises(PluginError, match=r"no installed plugin offers the step 'quantize'\. Did you mean 'quantise'"):
        steps.check(("export", "quantize"))


def test_older_names_of_steps_still_work(steps: Steps) -> None:
    assert steps.named(("export", "trim", "compress")) == ("export", "first-token-only", "weight-only-int8")
    steps.check(("export", "trim", "compress"))


@pytest.mark.parametrize("dot_product", [True, False])
@pytest.mark.parametrize("device", [CpuDevice(), OpenVinoDevice()], ids=lambda device: device.name)
def test_the_cpus_own_recipes_make_sense(
    device: Device, dot_product: bool, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo_cpu.device._multiplies_int8", lambda: dot_product)
    for precision in device.precisions:
        recipe = device.recipe(precision)
        steps.check(recipe)
        steps.check(steps.for_file(recipe), from_file=True)


def test_a_file_that_is_handed_over_gets_only_the_steps_its_precision_needs(steps: Steps) -> None:
    assert steps.for_file(("export", "simplify")) == ()
    assert steps.for_file(("export", "fuse", "quantise")) == ("fuse", "quantise")


def test_a_file_made_without_lowering_steps_is_float32_whatever_the_device_computes_in(steps: Steps) -> None:
    assert steps.precision_made(("export", "simplify"), "fp16") == "fp32"
    assert steps.precision_made(("export", "half"), "fp16") == "fp16"
    assert steps.precision_made(("fuse", "quantise"), "int8") == "int8"
    assert steps.precision_made(("export", "trim", "compress"), "int8") == "int8"
    assert steps.precision_made(("export", "trim"), "bf16") == "fp32"
    assert steps.precision_made(("export", "of-my-own"), "fp16") == "fp16"


def test_signed_int8_weights_are_made_only_where_they_do_not_overflow(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo_cpu.device._multiplies_int8", lambda: True)
    assert CpuDevice().recipe("int8") == ("export", "fuse", "quantise")
    monkeypatch.setattr("zoo_cpu.device._multiplies_int8", lambda: False)
    assert CpuDevice().recipe("int8") == ("export", "fuse", "quantise-unsigned")
    assert steps.precision_made(CpuDevice().recipe("int8"), "int8") == "int8"


def test_the_disk_needed_grows_with_the_recipe(steps: Steps) -> None:
    large = 3_000_000_000
    export = Catalogue.installed().steps["export/optimum"].value
    fuse = steps.step("fuse")
    assert fuse
    assert space_needed([export], large) >= 2 * large, "torch writes each tensor by itself before they are joined"
    assert space_needed([export], 1000) < 2000
    assert space_needed([export, fuse], 1000) >= 2000, "a step's input lies beside its output"


def test_the_system_says_what_the_cpu_offers(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor : 1\nflags : fpu\n")
    assert cpu_flags(cpuinfo) == {"fpu", "avx2", "avx512_vnni"}
    cpuinfo.write_text("processor : 0\nFeatures : fp asimd\n")
    assert cpu_flags(cpuinfo) == {"fp", "asimd"}
    assert cpu_flags(tmp_path / "absent") == frozenset()


@pytest.mark.parametrize("name", sorted(Catalogue.installed().steps))
def test_every_step_names_functions_that_exist_and_says_what_it_does(name: str) -> None:
    """The functions are not imported: they need packages that may be missing here."""
    step: Step = Catalogue.installed().steps[name].value
    assert step.summary
    assert step.version
    assert bool(step.exporter) == (step.name == EXPORT)
    for place in filter(None, (step.run, step.reference, step.evaluate)):
        module, _, function = place.partition(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        assert f"def {function}(" in Path(spec.origin).read_text(encoding="utf-8")
