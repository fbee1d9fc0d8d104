"""The scripts in benchmarks/ that no other test runs: they start, and what they calculate is right where the answer is known."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

from conftest import ROOT

FOLDER = ROOT / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_a_script_can_be_compiled(name: str) -> None:
    path = FOLDER / f"{name}.py"
    compile(path.read_text(encoding="utf-8"), str(path), "exec")


def test_the_shared_beginning_is_measured_and_changes_no_score() -> None:
    sizes = ["--layers", "1", "--width", "64", "--rows", "4", "--prefix", "40", "--document", "8", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "shared_prefix.py"), *sizes], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.rpartition("differ by ")[2]) < 1e-5


def test_requests_in_order_wait_for_those_before_them() -> None:
    load = script("load")
    assert load.in_order([0.0, 0.5, 5.0], 1.0) == [1.0, 1.0, 1.5]
    assert load.at([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0


def test_simulated_nodes_need_the_time_that_can_be_calculated() -> None:
    simulation = script("cluster_simulation")
    even = {"gigabits": 1000.0, "spread": [1.0], "lose": False}
    found = simulation.simulate(1024 * 600, 3, 10.0, **even)
    assert found.hours == pytest.approx(200 * 102.4 / 3600, rel=0.01)
    assert found.of_ideal == pytest.approx(1, abs=0.01)
    # A hundred fast nodes give more than the driver takes, which then is the bound.
    fast = simulation.simulate(10_000_000, 100, 10_000.0, **even)
    assert fast.hours == pytest.approx(10_000_000 / simulation.TAKE / 3600, abs=0.02)
    assert fast.driver_busy > 0.9
    # One of four nodes lost half way: the others do its half of the work, too.
    one = simulation.simulate(1024 * 4000, 4, 10.0, **even)
    less = simulation.simulate(1024 * 4000, 4, 10.0, **{**even, "lose": True})
    assert less.hours / one.hours == pytest.approx(0.5 + 0.5 * 4 / 3, rel=0.01)
    # Blocks of 4.9 Mbit over network cards of 4 Mbit/s, four at a time.
    slow = simulation.simulate(1024 * 400, 4, 1000.0, **{**even, "gigabits": 0.004})
    assert slow.busiest_link == pytest.approx(1, abs=0.05)
    assert slow.hours == pytest.approx(100 * 1024 * 600 * 8 / 4e6 / 3600, abs=0.01)
