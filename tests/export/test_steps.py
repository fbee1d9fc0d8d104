"""Recipes: orders that would do harm are refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from zoo_cpu.features import flags, has_int8_dot_product

from zoo.errors import PluginError
from zoo.export import steps
from zoo.registry.stages import Pipeline
from zoo.types import Device, ExportRequest
from zoo_cpu.device import CpuDevice
from zoo_openvino.device import OpenVinoDevice

pytestmark = [pytest.mark.export, pytest.mark.openvino]


@pytest.mark.parametrize(
    "recipe", [("export", "simplify", "fuse"), ("export", "half", "fuse"), ("export", "fuse", "fuse")]
)
def test_nothing_may_come_between_the_export_and_the_fusion(recipe: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(
        PluginError, match=r"'fuse' needs the nodes as they were exported, and '.*' before it has taken"
    ):
        Pipeline([]).export(ExportRequest(recipe=recipe, precision="fp32", folder=tmp_path / "x"))
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
def test_a_step_without_what_it_needs_is_refused(recipe: tuple[str, ...]) -> None:
    with pytest.raises(PluginError, match="cannot work"):
        steps.check(recipe)


def test_steps_of_an_outside_exporter_are_let_through() -> None:
    steps.check(("export", "compile-for-my-card"))


@pytest.mark.parametrize("dot_product", [True, False])
@pytest.mark.parametrize("device", [CpuDevice(), OpenVinoDevice()], ids=lambda device: device.name)
def test_the_cpus_own_recipes_make_sense(device: Device, dot_product: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo_cpu.device.has_int8_dot_product", lambda: dot_product)
    for precision in device.precisions:
        recipe = device.recipe(precision)
        steps.check(recipe)
        steps.check(steps.for_file(recipe), from_file=True)


def test_a_file_that_is_handed_over_gets_only_the_steps_its_precision_needs() -> None:
    assert steps.for_file(("export", "simplify")) == ()
    assert steps.for_file(("export", "fuse", "quantise")) == ("fuse", "quantise")


def test_a_file_made_without_lowering_steps_is_float32_whatever_the_device_computes_in() -> None:
    assert steps.precision_made(("export", "simplify"), "fp16") == "fp32"
    assert steps.precision_made(("export", "half"), "fp16") == "fp16"
    assert steps.precision_made(("fuse", "quantise"), "int8") == "int8"
    assert steps.precision_made(("export", "trim", "compress"), "int8") == "int8"
    assert steps.precision_made(("export", "trim"), "bf16") == "fp32"
    assert steps.precision_made(("export", "of-my-own"), "fp16") == "fp16"


def test_signed_int8_weights_are_made_only_where_they_do_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo_cpu.device.has_int8_dot_product", lambda: True)
    assert CpuDevice().recipe("int8") == ("export", "fuse", "quantise")
    monkeypatch.setattr("zoo_cpu.device.has_int8_dot_product", lambda: False)
    assert CpuDevice().recipe("int8") == ("export", "fuse", "quantise-unsigned")
    assert steps.precision_made(CpuDevice().recipe("int8"), "int8") == "int8"


def test_the_disk_needed_grows_with_the_recipe() -> None:
    large = 3_000_000_000
    assert steps.space_needed(("export",), large) >= 2 * large, (
        "torch writes each tensor by itself before they are joined"
    )
    assert steps.space_needed(("export",), 1000) < 2000
    assert steps.space_needed(("export", "fuse"), 1000) >= 2000, "a step's input lies beside its output"


def test_int8_is_offered_where_the_cpu_multiplies_in_int8(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor : 1\nflags : fpu\n")
    assert has_int8_dot_product(cpuinfo)
    cpuinfo.write_text("processor : 0\nFeatures : fp asimd\n")
    assert flags(cpuinfo) == {"fp", "asimd"}
    assert not has_int8_dot_product(cpuinfo)
    assert not has_int8_dot_product(tmp_path / "absent")
