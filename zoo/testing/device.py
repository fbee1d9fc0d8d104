"""The contract of a device, as tests. A plugin subclasses ``DeviceContract`` and gives it a device::

    class TestMyDevice(DeviceContract):
        @pytest.fixture
        def device(self):
            return MyDevice()

The tests run a model of a few kilobytes on the device in every precision it lists, and compare with ONNX Runtime in float32.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.export.steps import Steps
from zoo.options import read_options
from zoo.registry.catalogue import Catalogue
from zoo.registry.participants import Offered, PluginRecord
from zoo.scoring.batching import batches
from zoo.testing.base import Contract, refused, threads_left, told, within
from zoo.testing.device_runs import (
    LENGTHS,
    artifact_of,
    collected,
    default_precision,
    reference,
    refuses_work,
    run,
    same,
    submit,
)
from zoo.testing.toy import toy_encodings, write_toy
from zoo.types import (
    Availability,
    Device,
    Precision,
    Scores,
    Session,
    SessionOptions,
    Step,
)

MAX_LENGTH = 64
PROBE_SECONDS = 2.0
"""A probe is part of every listing."""


class DeviceContract(Contract):
    """What every device must do. Override ``tolerance`` where a precision rounds differently, with the reason beside it.

    A device that opens another form of file overrides the fixture ``model``, and makes it of the ONNX file ``source``; the right
    scores are then still those of ``source``. Override ``expected`` as well if your file computes something else.
    """

    page = "docs/plugins.md, 'A device'"
    tolerance: Mapping[str, float] = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.1, "int8": 0.3}
    """Largest absolute difference of a score from ONNX Runtime in float32, by precision; the scores' own deviation is about 1."""
    options: Mapping[str, str] = {}
    """Device options that every session is opened with."""
    steps: Sequence[Step] = ()
    """Steps that the device's recipes name and that no installed plugin offers."""

    @pytest.fixture
    def device(self) -> Device:
        """The device under test: override it. Raises TypeError."""
        raise TypeError("give DeviceContract a fixture 'device'")

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        """The model of the tests as an ONNX file."""
        pytest.importorskip("onnx")
        return write_toy(tmp_path / "toy.onnx")

    @pytest.fixture
    def model(self, source: Path) -> Path:
        """The file that the device opens; override it for a device that takes no float32 ONNX.

        It is a folder for a device that opens the checkpoint itself; override ``expected`` too then.
        """
        return source

    @pytest.fixture
    def expected(self, model: Path, source: Path) -> Scores:
        """The right scores of ``LENGTHS``, one pair at a time: those of ``model`` or, if that is not ONNX, of ``source``."""
        return reference(model if model.suffix == ".onnx" else source, toy_encodings(LENGTHS))

    @pytest.fixture
    def session(self, device: Device, model: Path) -> Iterator[Session]:
        """A session on ``model``; closed after the test."""
        session = within(self.deadline, "open", lambda: self.open(device, model))
        yield session
        within(self.deadline, "close", session.close)

    def open(self, device: Device, model: Path, *, precision: Precision | None = None, batch_size: int = 4) -> Session:
        """A session as the runner opens it."""
        options = SessionOptions(
            precision=precision or default_precision(device),
            batch_size=batch_size,
            max_length=MAX_LENGTH,
            threads=1,
            extra=read_options(f"the device '{device.name}'", device.options, self.options),
        )
        return device.open(artifact_of(model), options)

    def known_steps(self) -> Steps:
        """The steps that installed plugins offer, and ``steps``."""
        offered = dict(Catalogue.installed().steps)
        return Steps({**offered, **{step.name: Offered(step, PluginRecord("under test")) for step in self.steps}})

    def test_it_is_a_device_with_a_name_that_a_target_can_hold(self, device: Device) -> None:
        """A device has the attributes of ``zoo.api.Device``, and a name in small letters without a colon or spaces."""
        assert isinstance(device, Device), told("an object with every attribute of zoo.api.Device", repr(device))
        name = device.name
        assert name and name == name.lower().strip() and ":" not in name, told(
            "a name that can be typed on the command line", repr(name)
        )

    def test_its_probe_says_yes_or_why_not(self, device: Device) -> None:
        """``probe`` never raises, and a device that is not available says why."""
        available = device.probe()
        assert isinstance(available, Availability), told("an Availability", repr(available))
        assert available.ok or available.reason, told("ok, or a reason", repr(available))

    def test_its_probe_is_quick(self, device: Device) -> None:
        """``probe`` is cheap: every listing asks it."""
        taken = []
        for _ in range(2):  # the faster of two: the first may find files and modules cold
            started = time.monotonic()
            device.probe()
            taken.append(time.monotonic() - started)
            if taken[-1] < PROBE_SECONDS:
                return
        raise AssertionError(told(f"an answer within {PROBE_SECONDS:g} s", f"{min(taken):.1f} s"))

    def test_its_default_precision_is_one_it_offers_and_others_say_what_they_cost(self, device: Device) -> None:
        """The first precision is the default, which is offered; one that is not offered says what it costs."""
        infos = dict(device.precisions)
        assert infos, told("at least one precision", "none")
        first = default_precision(device)
        assert infos[first].offered, told(f"the default precision {first} is offered", repr(infos[first]))
        silent = [name for name, info in infos.items() if not (info.offered or info.cost)]
        assert not silent, told("a cost of each precision that is not offered", f"none for {', '.join(silent)}")

    def test_its_recipes_are_of_steps_that_exist_in_an_order_that_can_work(self, device: Device) -> None:
        """A recipe leads from a checkpoint to the file that ``open`` wants, by steps that a plugin offers; or it is empty."""
        steps = self.known_steps()
        for precision in device.precisions:
            recipe = device.recipe(precision)
            if not recipe:
                continue
            assert recipe[0] == "export", told("a recipe that begins with 'export'", f"{recipe} for {precision}")
            try:
                steps.check(recipe)
            except ZooError as error:
                raise AssertionError(told(f"a recipe for {precision} that can work", error)) from error

    def test_its_sessions_name_the_inputs_in_graph_order(self, session: Session) -> None:
        """A session names the graph's inputs, in graph order."""
        assert isinstance(session, Session), told("an object with every attribute of zoo.api.Session", repr(session))
        names = list(session.input_names)
        assert names == ["input_ids", "attention_mask"], told("['input_ids', 'attention_mask']", names)

    def test_its_outputs_have_one_row_for_each_row_of_the_batch(self, session: Session) -> None:
        """Outputs come by name, batch first, with exactly as many rows as the inputs."""
        for batch in batches(toy_encodings(LENGTHS), session.shape_rule, 4, session.input_names):
            outputs = session.submit(batch.inputs).result()
            assert isinstance(outputs, Mapping), told("arrays by the outputs' names", repr(outputs))
            assert "logits" in outputs, told("the output 'logits'", list(outputs))
            rows = len(batch.inputs["input_ids"])
            assert len(outputs["logits"]) == rows, told(f"{rows} rows", f"{len(outputs['logits'])}")

    def test_its_outputs_are_floating_point_arrays(self, session: Session) -> None:
        """Outputs are numpy arrays of float32, or of float16 if the file's are."""
        batch = next(batches(toy_encodings(LENGTHS), session.shape_rule, 4, session.input_names))
        for name, array in session.submit(batch.inputs).result().items():
            assert isinstance(array, np.ndarray), told("a numpy array", f"{type(array).__name__} for '{name}'")
            assert array.dtype in (np.float32, np.float16), told("float32 or float16", f"{array.dtype} for '{name}'")

    def test_its_scores_are_those_of_onnx_runtime(self, device: Device, model: Path, expected: Scores) -> None:
        """In every precision it lists, a device computes what the model file says, up to that precision's rounding."""
        for precision in device.precisions:
            assert precision in self.tolerance, told("an entry in tolerance", f"none for {precision}")
            with self.open(device, model, precision=precision) as session:
                scores = run(session, toy_encodings(LENGTHS))
            same(scores, expected, self.tolerance[precision], precision)

    def test_a_precision_that_it_makes_itself_computes_what_it_says(
        self, device: Device, model: Path, expected: Scores
    ) -> None:
        """A precision is what the device computes in: a step of the recipe lowers the file to it, or the device rounds by itself."""
        steps = self.known_steps()
        for precision in device.precisions:
            named = [step for name in device.recipe(precision) if (step := steps.step(name)) is not None]
            lowered = {step.lowers_to for step in named if step.lowers_to}
            assert lowered <= {precision}, told(f"a recipe for {precision} lowers to {precision}", lowered)
            if precision == "fp32" or lowered:
                continue
            with self.open(device, model, precision=precision) as session:
                difference = np.abs(run(session, toy_encodings(LENGTHS)) - expected).max()
            assert not difference <= 1e-5, told(f"scores rounded to {precision}", f"those of fp32, to {difference:.1g}")

    def test_its_scores_do_not_depend_on_the_batch_size(self, device: Device, model: Path, expected: Scores) -> None:
        """Scores do not depend on the batch."""
        precision = default_precision(device)
        for batch_size in (1, 3, 8, 16):
            with self.open(device, model, batch_size=batch_size) as session:
                scores = run(session, toy_encodings(LENGTHS), batch_size)
            same(scores, expected, self.tolerance[precision], f"batches of {batch_size}")

    def test_submit_does_not_wait_for_the_result(self, session: Session) -> None:
        """``submit`` starts a batch and returns; several may be in flight."""
        futures = submit(session, toy_encodings(LENGTHS * 2), 1)
        open_when_returned = []
        for batch in batches(toy_encodings(LENGTHS * 3), session.shape_rule, 16, session.input_names):
            future = session.submit(batch.inputs)
            open_when_returned.append(not future.done())
            futures.append((tuple(batch.indices), future))
        for _, future in futures:
            future.result()
        assert any(open_when_returned), told(
            "futures that are not done when submit returns", f"all {len(open_when_returned)} were done"
        )

    def test_many_batches_may_be_in_flight(self, device: Device, model: Path, expected: Scores) -> None:
        """Several batches may be in flight, and each future gets its own result."""
        with self.open(device, model, batch_size=1) as session:
            rounds = [submit(session, toy_encodings(LENGTHS), 1) for _ in range(3)]
            for futures in rounds:
                same(collected(futures), expected, self.tolerance[default_precision(device)], "33 batches in flight")

    def test_two_sessions_may_be_open_at_once(self, device: Device, model: Path, expected: Scores) -> None:
        """A second session works beside the first or is refused with a ZooError, and leaves the first as it was."""
        bound = self.tolerance[default_precision(device)]
        with self.open(device, model) as first:
            try:
                second = self.open(device, model)
            except ZooError:
                second = None
            if second is not None:
                try:
                    same(run(second, toy_encodings(LENGTHS)), expected, bound, "the second session")
                    same(run(first, toy_encodings(LENGTHS)), expected, bound, "the first session beside it")
                finally:
                    second.close()
            same(run(first, toy_encodings(LENGTHS)), expected, bound, "the first session after the second")

    def test_results_belong_to_the_caller(self, session: Session) -> None:
        """The arrays of a result belong to the caller: later batches do not change them."""
        first = [future.result() for _, future in submit(session, toy_encodings(LENGTHS), 4)]
        copies = [{name: array.copy() for name, array in outputs.items()} for outputs in first]
        collected(submit(session, toy_encodings(LENGTHS, seed=1), 4))
        for outputs, copy in zip(first, copies, strict=True):
            for name, array in outputs.items():
                assert np.array_equal(array, copy[name]), told(f"'{name}' as it was", "another batch's values in it")

    def test_inputs_stay_as_they_were(self, session: Session) -> None:
        """Inputs are not changed."""
        batch = next(batches(toy_encodings(LENGTHS), session.shape_rule, 4, session.input_names))
        before = {name: array.copy() for name, array in batch.inputs.items()}
        session.submit(batch.inputs).result()
        for name, array in before.items():
            assert np.array_equal(batch.inputs[name], array), told(f"'{name}' as it was", "other values")

    def test_closing_twice_is_harmless(self, device: Device, model: Path) -> None:
        """``close`` may be called twice."""
        session = self.open(device, model)
        session.close()
        session.close()

    def test_the_end_of_a_with_block_closes(self, device: Device, model: Path) -> None:
        """A session is a context manager: it enters as itself, and the end of the block closes it."""
        session = self.open(device, model)
        batch = next(batches(toy_encodings(LENGTHS), session.shape_rule, 4, session.input_names))
        with session as entered:
            assert entered is session, told("the session itself", repr(entered))
        try:
            refuses_work(session, batch.inputs)
        finally:
            with contextlib.suppress(Exception):  # another test asks that closing twice is harmless
                session.close()

    def test_a_closed_session_refuses_work(self, device: Device, model: Path) -> None:
        """A closed session refuses work with an error."""
        session = self.open(device, model)
        batch = next(batches(toy_encodings(LENGTHS), session.shape_rule, 4, session.input_names))
        session.close()
        refuses_work(session, batch.inputs)

    def test_closing_ends_its_threads(self, device: Device, model: Path) -> None:
        """``close`` releases what is held: no thread outlives it."""
        before = set(threading.enumerate())
        session = self.open(device, model)
        run(session, toy_encodings(LENGTHS))
        session.close()
        left = threads_left(before)
        assert not left, told("no thread after close", ", ".join(left))

    def test_closing_with_work_under_way_ends_promptly(self, device: Device, model: Path) -> None:
        """``close`` ends what is in flight, whatever state it is in: every future is done when it returns."""
        session = self.open(device, model, batch_size=1)
        futures = submit(session, toy_encodings(LENGTHS), 1)
        session.close()
        left = sum(not future.done() for _, future in futures)
        assert not left, told("every future is done", f"{left} of {len(futures)} are not")

    def test_a_missing_file_is_an_error_for_the_user(self, device: Device, model: Path) -> None:
        """``open`` raises ZooError if it cannot open a file."""
        refused(lambda: self.open(device, model.with_name(f"nowhere{model.suffix}")), "nowhere", "a missing file")

    def test_a_damaged_file_is_an_error_for_the_user(self, device: Device, model: Path) -> None:
        """``open`` raises ZooError if a file is damaged."""
        damaged = model.with_name(f"damaged{model.suffix}")
        if model.is_dir():
            shutil.copytree(model, damaged)
            for weights in damaged.glob("*.safetensors"):
                weights.write_bytes(b"\xff" * 100)
        else:
            damaged.write_bytes(b"\xff" * 100)
        refused(lambda: self.open(device, damaged), "damaged", "a damaged file")

    def test_its_options_have_help_and_defaults_that_they_take(self, device: Device) -> None:
        """Each option is declared with help, and takes its own default."""
        silent = [option.name for option in device.options if not option.help]
        assert not silent, told("help for each option", f"none for {', '.join(silent)}")
        read_options(f"the device '{device.name}'", device.options, {})
        for option in device.options:
            if option.default:
                option.checked(option.default, device.name)

    def test_an_unknown_part_of_the_device_is_an_error_for_the_user(self, device: Device, model: Path) -> None:
        """``open`` raises ZooError for a part (``--target NAME:PART``) that the device does not have."""
        options = SessionOptions(
            precision=default_precision(device), batch_size=1, max_length=8, selector="no-such-part"
        )
        artifact = artifact_of(model)
        refused(lambda: device.open(artifact, options), "no-such-part", "an unknown part")
