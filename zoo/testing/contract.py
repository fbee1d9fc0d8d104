"""The contract of a device, as tests. A plugin subclasses ``DeviceContract`` and gives it a device::

    class TestMyDevice(DeviceContract):
        @pytest.fixture
        def device(self):
            return MyDevice()

The tests run a model of a few kilobytes on the device in every precision it lists, and compare with ONNX Runtime in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.options import read_options
from zoo.quiet_imports import import_onnxruntime
from zoo.scoring.batching import batches
from zoo.testing.toy import toy_encodings, write_toy
from zoo.types import Artifact, Device, Encodings, Precision, Scores, Session, SessionOptions, Tensors

LENGTHS = (3, 17, 64, 5, 40, 12, 64, 29, 8, 33, 21)
"""Pairs of the tests: 11, so that no usual batch size divides them, and up to the length limit."""

MAX_LENGTH = 64


class DeviceContract:
    """What every device must do. Override ``tolerance`` where a precision rounds differently, with the reason beside it."""

    tolerance: Mapping[str, float] = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.1, "int8": 0.3}
    """Largest absolute difference of a score from ONNX Runtime in float32, by precision; the scores' own deviation is about 1."""
    options: Mapping[str, str] = {}
    """Device options that every session is opened with."""

    @pytest.fixture
    def device(self) -> Device:
        raise TypeError("give DeviceContract a fixture 'device'")

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        """The file that the device opens; override it for a device that takes no float32 ONNX."""
        pytest.importorskip("onnx")
        return write_toy(tmp_path / "toy.onnx")

    @pytest.fixture
    def expected(self, model: Path) -> Scores:
        """The right scores of ``LENGTHS``, one pair at a time."""
        return reference(model, toy_encodings(LENGTHS))

    @pytest.fixture
    def session(self, device: Device, model: Path) -> Iterator[Session]:
        with self.open(device, model) as session:
            yield session

    def open(self, device: Device, model: Path, *, precision: Precision | None = None, batch_size: int = 4) -> Session:
        """A session as the runner opens it."""
        options = SessionOptions(
            precision=precision or default_precision(device),
            batch_size=batch_size,
            max_length=MAX_LENGTH,
            threads=1,
            extra=read_options(f"the device '{device.name}'", device.options, self.options),
        )
        return device.open(Artifact(model=model, precision="fp32", origin="contract test"), options)

    def test_it_is_a_device_with_a_name_that_a_target_can_hold(self, device: Device) -> None:
        assert isinstance(device, Device)
        assert device.name
        assert device.name == device.name.lower().strip()
        assert ":" not in device.name

    def test_its_probe_says_yes_or_why_not(self, device: Device) -> None:
        available = device.probe()
        assert available.ok or available.reason

    def test_its_default_precision_is_one_it_offers_and_others_say_what_they_cost(self, device: Device) -> None:
        infos = list(device.precisions.values())
        assert infos[0].offered
        assert all(info.offered or info.cost for info in infos)

    def test_its_recipes_begin_with_the_export(self, device: Device) -> None:
        assert all(device.recipe(precision)[0] == "export" for precision in device.precisions)

    def test_its_sessions_name_the_inputs_in_graph_order(self, session: Session) -> None:
        assert isinstance(session, Session)
        assert list(session.input_names) == ["input_ids", "attention_mask"]

    def test_its_scores_are_those_of_onnx_runtime(self, device: Device, model: Path, expected: Scores) -> None:
        for precision in device.precisions:
            with self.open(device, model, precision=precision) as session:
                worst = np.abs(run(session, toy_encodings(LENGTHS)) - expected).max()
            assert worst <= self.tolerance[precision], f"{precision} is off by {worst}"

    def test_its_scores_do_not_depend_on_the_batch_size(self, device: Device, model: Path, expected: Scores) -> None:
        precision = default_precision(device)
        for batch_size in (1, 3, 8, 16):
            with self.open(device, model, batch_size=batch_size) as session:
                scores = run(session, toy_encodings(LENGTHS), batch_size)
            assert np.abs(scores - expected).max() <= self.tolerance[precision], f"batch size {batch_size}"

    def test_many_batches_may_be_in_flight(self, device: Device, model: Path, expected: Scores) -> None:
        with self.open(device, model, batch_size=1) as session:
            rounds = [submit(session, toy_encodings(LENGTHS), 1) for _ in range(3)]
            for futures in rounds:
                assert np.abs(collected(futures) - expected).max() <= self.tolerance[default_precision(device)]

    def test_results_belong_to_the_caller(self, session: Session) -> None:
        first = collected_outputs(submit(session, toy_encodings(LENGTHS), 4))
        copies = [{name: array.copy() for name, array in outputs.items()} for outputs in first]
        collected(submit(session, toy_encodings(LENGTHS, seed=1), 4))
        for outputs, copy in zip(first, copies, strict=True):
            for name, array in outputs.items():
                np.testing.assert_array_equal(array, copy[name])

    def test_inputs_stay_as_they_were(self, session: Session) -> None:
        batch = next(batches(toy_encodings(LENGTHS), session.shape_rule, 4, session.input_names))
        before = {name: array.copy() for name, array in batch.inputs.items()}
        session.submit(batch.inputs).result()
        for name, array in before.items():
            np.testing.assert_array_equal(batch.inputs[name], array)

    def test_closing_twice_is_harmless(self, device: Device, model: Path) -> None:
        session = self.open(device, model)
        session.close()
        session.close()

    def test_a_closed_session_refuses_work(self, device: Device, model: Path) -> None:
        session = self.open(device, model)
        batch = next(batches(toy_encodings(LENGTHS), session.shape_rule, 4, session.input_names))
        session.close()
        with pytest.raises((ZooError, RuntimeError)):
            session.submit(batch.inputs).result()

    def test_closing_with_work_under_way_ends_promptly(self, device: Device, model: Path) -> None:
        session = self.open(device, model, batch_size=1)
        futures = submit(session, toy_encodings(LENGTHS), 1)
        session.close()
        for _, future in futures:
            assert future.done()

    def test_a_missing_file_is_an_error_for_the_user(self, device: Device, model: Path) -> None:
        with pytest.raises(ZooError, match="nowhere"):
            self.open(device, model.with_name(f"nowhere{model.suffix}"))

    def test_a_damaged_file_is_an_error_for_the_user(self, device: Device, model: Path) -> None:
        damaged = model.with_name(f"damaged{model.suffix}")
        damaged.write_bytes(b"\xff" * 100)
        with pytest.raises(ZooError, match="damaged"):
            self.open(device, damaged)

    def test_its_options_have_help_and_defaults_that_they_take(self, device: Device) -> None:
        assert all(option.help for option in device.options)
        read_options(f"the device '{device.name}'", device.options, {})
        for option in device.options:
            if option.default:
                option.checked(option.default, device.name)

    def test_an_unknown_part_of_the_device_is_an_error_for_the_user(self, device: Device, model: Path) -> None:
        options = SessionOptions(
            precision=default_precision(device), batch_size=1, max_length=8, selector="no-such-part"
        )
        with pytest.raises(ZooError, match="no-such-part"):
            device.open(Artifact(model=model, precision="fp32", origin="contract test"), options)


def default_precision(device: Device) -> Precision:
    """The precision that a device takes by itself: the first it lists."""
    return next(iter(device.precisions))


Futures = list[tuple["tuple[int, ...]", "Future[Tensors]"]]


def submit(session: Session, encodings: Encodings, batch_size: int) -> Futures:
    """Start all batches of ``encodings``; each future with the rows that count."""
    made = batches(encodings, session.shape_rule, batch_size, session.input_names)
    return [(tuple(batch.indices), session.submit(batch.inputs)) for batch in made]


def collected(futures: Futures) -> Scores:
    """The scores, in the order of the encodings."""
    scores = np.full(sum(len(indices) for indices, _ in futures), np.nan, dtype=np.float32)
    for indices, future in futures:
        scores[list(indices)] = future.result()["logits"][: len(indices), 0]
    return scores


def collected_outputs(futures: Futures) -> list[Tensors]:
    return [future.result() for _, future in futures]


def run(session: Session, encodings: Encodings, batch_size: int = 4) -> Scores:
    """The scores of ``encodings`` through ``session``."""
    return collected(submit(session, encodings, batch_size))


def reference(model: Path, encodings: Encodings) -> Scores:
    """ONNX Runtime in float32, one unpadded row at a time."""
    onnxruntime = import_onnxruntime()

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    scores = []
    for row in encodings.rows:
        ids = np.array([row.features["input_ids"]], dtype=np.int64)
        scores.append(session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0, 0])
    return np.array(scores, dtype=np.float32)
