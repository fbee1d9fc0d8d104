"""Options of a device that a model's card sets: a pass module belongs to a model, for example."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.registry.architecture import Architecture
from zoo.registry.card import ModelCard, load_card
from zoo.registry.choose import device_options, model_options
from zoo_cpu.device import CpuDevice
from zoo_sdaa.device import SdaaDevice

CARD = """
description = "a model"
architecture = "cross-encoder"
license = "MIT"
languages = ["en"]
max_length = 512
bundled = "m"

[options.sdaa]
pass_path = "{passes}"
"""


def card(folder: Path, passes: str) -> ModelCard:
    (folder / "m.toml").write_text(CARD.format(passes=passes), encoding="utf-8")
    return load_card(folder / "m.toml")


def test_a_cards_pass_module_is_found_beside_the_card(tmp_path: Path) -> None:
    (tmp_path / "m_passes.py").write_text("def use_passes(ir_module):\n    return ir_module\n")
    made = card(tmp_path, "m_passes.py")
    assert device_options(SdaaDevice(), made, {})["pass_path"] == str(tmp_path / "m_passes.py")
    assert device_options(SdaaDevice(), card(tmp_path, "mixed"), {})["pass_path"] == "mixed"


def test_the_users_own_choice_comes_first(tmp_path: Path) -> None:
    made = card(tmp_path, "mixed")
    for spelling in ("pass_path", "pass-path"):
        assert device_options(SdaaDevice(), made, {spelling: "default"})["pass_path"] == "default"


def test_it_concerns_neither_other_devices_nor_the_architecture(tmp_path: Path) -> None:
    made = card(tmp_path, "mixed")
    assert "pass_path" not in device_options(CpuDevice(), made, {})
    assert model_options(made, Architecture, {}) == {}


@pytest.mark.parametrize("wrong", ["nowhere.py", ""])
def test_a_value_that_the_device_does_not_take_names_the_card(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ZooError, match="the device 'sdaa', in the card 'm',"):
        device_options(SdaaDevice(), card(tmp_path, wrong), {})
