"""A device that raises or gives what it may not: the error names it and its plugin, and a listing goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import zoo_cross_encoder
import zoo_direct
import zoo_onnx
from conftest import Zoo
from zoo import Reranker, hookimpl
from zoo.errors import DeviceError, NotInstalledError, PluginError, ZooError
from zoo.registry.catalogue import Catalogue, PluginRecord
from zoo.types import Artifact, Availability, PrecisionInfo, SessionOptions
from zoo_cpu.device import CpuDevice

pytestmark = [pytest.mark.slow]

BLAMED = r"the device 'odd' of the plugin 'mine' \(my-devices 0\.3\)"


class Plugin:
    """One device."""

    def __init__(self, device: object) -> None:
        self._device = device

    @hookimpl
    def zoo_devices(self) -> Iterable[Any]:
        return [self._device]


def installed(**changed: Any) -> Catalogue:
    """A catalogue with the CPU's device under another name, in which ``changed`` replaces attributes."""
    device = type("Odd", (CpuDevice,), {"name": "odd", "aliases": (), **changed})()
    bundled = [PluginRecord(each.__name__, plugin=each) for each in (zoo_cross_encoder, zoo_direct, zoo_onnx)]
    return Catalogue([PluginRecord("mine", "my-devices", "0.3", Plugin(device)), *bundled])


def scores(**changed: Any) -> list[float]:
    with Reranker.open("zoo-reranker-tiny", device="odd", offline=True, catalogue=installed(**changed)) as reranker:
        found: list[float] = reranker.score([("a", "b")]).tolist()
        return found


def raises(*arguments: object) -> Any:
    raise RuntimeError("the driver exploded")


def gives(value: object) -> Callable[..., object]:
    return lambda *arguments: value


def with_rule(**changed: Any) -> Callable[..., object]:
    """``open`` of a session whose shape rule is changed."""

    def opened(self: CpuDevice, artifact: Artifact, options: SessionOptions) -> object:
        session = CpuDevice.open(self, artifact, options)
        session.shape_rule = replace(session.shape_rule, **changed)
        return session

    return opened


def test_a_sound_one_scores() -> None:
    assert len(scores()) == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"open": raises}, "failed to open .*RuntimeError: the driver exploded"),
        ({"open": gives(None)}, "opened a session that lacks input_names, shape_rule"),
        ({"open": gives(SimpleNamespace(close=lambda: None))}, "lacks .*submit"),
        ({"open": with_rule(rows=0)}, r"shape_rule\.rows 0; it must be 1 or more"),
        ({"open": with_rule(length_multiple=0)}, r"shape_rule\.length_multiple 0; it must be 1 or more"),
        ({"open": with_rule(parallel_batches=0)}, r"shape_rule\.parallel_batches 0; it must be 1 or more"),
        ({"recipe": raises}, "failed to give its recipe for fp32: RuntimeError"),
        ({"recipe": gives(None)}, "gave the recipe None for fp32"),
        ({"recipe": gives("export")}, "gave the recipe 'export' for fp32"),
        ({"precisions": property(raises)}, "failed to list its precisions: RuntimeError"),
        ({"precisions": {}}, "lists no precision"),
        ({"precisions": {"fp8": PrecisionInfo(offered=True)}}, "lists the precision 'fp8'; zoo knows fp32, fp16, bf16, int8"),
    ],
)  # fmt: skip
def test_what_it_may_not_do_is_an_error_that_names_its_plugin(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError, match=f"{BLAMED} .*{said}"):
        scores(**changed)


def test_an_error_of_its_own_reaches_the_user_as_it_is() -> None:
    def opened(*arguments: object) -> object:
        raise ZooError("the card is in use: wait for it")

    with pytest.raises(ZooError, match=r"^the card is in use: wait for it$"):
        scores(open=opened)


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        (raises, "its probe failed: RuntimeError: the driver exploded"),
        (gives(True), "its probe gave True, which is not a zoo.api.Availability"),
        (gives(None), "its probe gave None, which is not a zoo.api.Availability"),
        (gives(Availability(ok=False)), "its probe gives no reason"),
    ],
)
def test_a_probe_that_breaks_its_promise_makes_the_device_unavailable_and_a_listing_goes_on(
    probe: Any, reason: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = installed(probe=probe)
    with pytest.raises(NotInstalledError, match=f"'odd' is not available here: {reason}"):
        Reranker.open("zoo-reranker-tiny", device="odd", catalogue=catalogue)
    monkeypatch.setattr(Catalogue, "installed", lambda: catalogue)
    [row] = json.loads(zoo("devices", "--json").stdout)
    assert (row["available"], row["reason"]) == (False, reason)


def test_precisions_that_cannot_be_listed_are_the_reason_in_a_listing(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = installed(precisions=property(raises))
    monkeypatch.setattr(Catalogue, "installed", lambda: catalogue)
    [row] = json.loads(zoo("devices", "--json").stdout)
    assert not row["available"]
    assert "failed to list its precisions" in row["reason"]


def test_an_option_that_is_none_is_said_of_the_plugin() -> None:
    record = installed(options=("beads",)).plugins[0]
    assert "declares the option 'beads', which is not a zoo.api.Option" in record.error


def test_a_session_that_fails_in_a_batch_is_blamed_on_its_device() -> None:
    def opened(self: CpuDevice, artifact: Artifact, options: SessionOptions) -> object:
        session: Any = CpuDevice.open(self, artifact, options)
        session.submit = raises
        return session

    with pytest.raises(
        DeviceError, match=r"the device of the plugin 'mine' \(my-devices 0\.3\) failed in a batch of 1"
    ):
        scores(open=opened)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"logits": [[1.0]]}, "gave list for the output 'logits'"),
        ([1.0], "gave list; it gives arrays"),
        ({"logits": np.zeros((2, 1), np.float32)}, "gave 2 rows of the output 'logits' for a batch of 1"),
        ({}, "gave dict; it gives arrays"),
    ],
)
def test_a_result_that_is_none_is_blamed_on_its_device(given: object, said: str) -> None:
    future: Future[Any] = Future()
    future.set_result(given)

    def opened(self: CpuDevice, artifact: Artifact, options: SessionOptions) -> object:
        session: Any = CpuDevice.open(self, artifact, options)
        session.submit = gives(future)
        return session

    with pytest.raises(PluginError, match=rf"the device of the plugin 'mine' \(my-devices 0\.3\) {said}"):
        scores(open=opened)


def test_a_missing_module_of_a_plugins_own_is_not_to_be_had_from_a_package_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "half_installed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-installed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\nhalf = zoo_half_installed\n")
    package = tmp_path / "zoo_half_installed"
    package.mkdir()
    (package / "__init__.py").write_text("import zoo_half_installed.device\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    [record] = [record for record in Catalogue.installed().plugins if record.name == "half"]
    assert record.error == "its own module 'zoo_half_installed.device' is missing: install the plugin again"
