"""Devices with one fault each, and the test of ``DeviceContract`` that is meant to find it. Run by ``test_broken.py``."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.api import Artifact, Availability, Option, PrecisionInfo, SessionOptions, ShapeRule, Tensors, ZooError
from zoo.testing.contract import DeviceContract
from zoo.testing.device_runs import LENGTHS
from zoo.testing.toy import toy_encodings

COMPARED = (
    "test_its_scores_are_those_of_onnx_runtime",
    "test_its_scores_do_not_depend_on_the_batch_size",
    "test_many_batches_may_be_in_flight",
    "test_two_sessions_may_be_open_at_once",
)
"""The tests that compare with the right scores."""


def compute(weights: Mapping[str, Any], inputs: Tensors) -> Any:
    """A weighted mean over the tokens that count."""
    mask = inputs["attention_mask"][..., None].astype(np.float32)
    return (weights["table"][inputs["input_ids"] % 97] * mask).sum(1) / mask.sum(1) @ weights["head"]


class GoodSession:
    input_names: Sequence[str] = ("input_ids", "attention_mask")
    shape_rule = ShapeRule(tokens=4096)
    device_seconds: float | None = None

    def __init__(self, weights: Mapping[str, Any], precision: str) -> None:
        self.weights, self.precision = weights, precision
        self.closed = False
        self.pending = 0
        self.worker = ThreadPoolExecutor(max_workers=1)

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Any]:
        self.pending += 1
        return self.worker.submit(self.run, inputs)

    def run(self, inputs: Tensors) -> Any:
        try:
            return self.result(compute(self.weights, inputs), inputs)
        finally:
            self.pending -= 1

    def result(self, logits: Any, inputs: Tensors) -> Any:
        return {"logits": logits.astype(np.float32)}

    def close(self) -> None:
        self.closed = True
        self.worker.shutdown(cancel_futures=True)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class WithoutPriority:
    """All that a device needs but a priority."""

    name = "broken"
    aliases: Sequence[str] = ()
    precisions: Any = {"fp32": PrecisionInfo(offered=True)}
    options: Sequence[Option] = ()
    session: type[GoodSession] = GoodSession
    meant = ""
    also: tuple[str, ...] = ()
    deadline = 30.0

    def probe(self) -> Availability:
        return Availability(ok=True)

    def recipe(self, precision: str, checkpoint: object = None) -> tuple[str, ...]:
        return ("export",)

    def open(self, artifact: Artifact, options: SessionOptions) -> Any:
        if options.selector:
            raise ZooError(f"there is no part {options.selector}")
        if not artifact.model.is_file():
            raise ZooError(f"there is no file {artifact.model}")
        return self.session(self.load(artifact.model), options.precision)

    def load(self, model: Path) -> dict[str, Any]:
        try:
            return dict(np.load(model))
        except Exception as error:
            raise ZooError(f"cannot read {model}: {error}") from error


class GoodDevice(WithoutPriority):
    priority = -10


class ColonInName(GoodDevice):
    meant = "test_it_is_a_device_with_a_name_that_a_target_can_hold"
    name = "bad:name"


class CapitalsInName(ColonInName):
    name = "Broken"


class NoPriority(WithoutPriority):
    meant = ColonInName.meant


class ProbeWithoutReason(GoodDevice):
    meant = "test_its_probe_says_yes_or_why_not"

    def probe(self) -> Availability:
        return Availability(ok=False)


class ProbeGivesTrue(ProbeWithoutReason):
    def probe(self) -> Any:
        return True


class ProbeRaises(ProbeWithoutReason):
    also = ("test_its_probe_is_quick",)

    def probe(self) -> Availability:
        raise RuntimeError("no driver")


class SlowProbe(GoodDevice):
    meant = "test_its_probe_is_quick"

    def probe(self) -> Availability:
        time.sleep(2.1)
        return Availability(ok=True)


class HangingProbe(SlowProbe):
    also = ("test_its_probe_says_yes_or_why_not",)
    deadline = 3.0

    def probe(self) -> Availability:
        threading.Event().wait()
        raise AssertionError


class DefaultIsNotOffered(GoodDevice):
    meant = "test_its_default_precision_is_one_it_offers_and_others_say_what_they_cost"
    precisions = {"fp32": PrecisionInfo(offered=False, cost="slow")}


class CostIsNotSaid(DefaultIsNotOffered):
    precisions = {"fp32": PrecisionInfo(offered=True), "fp16": PrecisionInfo(offered=False)}

    def recipe(self, precision: str, checkpoint: object = None) -> tuple[str, ...]:
        return ("export", "half") if precision == "fp16" else ("export",)


class UnknownStep(GoodDevice):
    meant = "test_its_recipes_are_of_steps_that_exist_in_an_order_that_can_work"

    def recipe(self, precision: str, checkpoint: object = None) -> tuple[str, ...]:
        return ("export", "shrnk")


class StepsInTheWrongOrder(UnknownStep):
    def recipe(self, precision: str, checkpoint: object = None) -> tuple[str, ...]:
        return ("export", "simplify", "fuse")


class RecipeWithoutExport(UnknownStep):
    def recipe(self, precision: str, checkpoint: object = None) -> tuple[str, ...]:
        return ("first-token-only",)


class InputsInAnotherOrder(GoodDevice):
    meant = "test_its_sessions_name_the_inputs_in_graph_order"

    class session(GoodSession):
        input_names = ("attention_mask", "input_ids")


class ExtraRows(GoodDevice):
    meant = "test_its_outputs_have_one_row_for_each_row_of_the_batch"

    class session(GoodSession):
        def result(self, logits: Any, inputs: Tensors) -> Any:
            return {"logits": np.concatenate([logits, logits]).astype(np.float32)}


class MissingRow(ExtraRows):
    also = COMPARED

    class session(GoodSession):
        def result(self, logits: Any, inputs: Tensors) -> Any:
            return {"logits": logits[:-1].astype(np.float32)}


class Float64Outputs(GoodDevice):
    meant = "test_its_outputs_are_floating_point_arrays"

    class session(GoodSession):
        def result(self, logits: Any, inputs: Tensors) -> Any:
            return {"logits": logits.astype(np.float64)}


class ListsAsOutputs(Float64Outputs):
    class session(GoodSession):
        def result(self, logits: Any, inputs: Tensors) -> Any:
            return {"logits": logits.astype(np.float32).tolist()}


class WrongScores(GoodDevice):
    meant = "test_its_scores_are_those_of_onnx_runtime"
    also = COMPARED[1:]

    class session(GoodSession):
        def result(self, logits: Any, inputs: Tensors) -> Any:
            return {"logits": (logits + 0.001).astype(np.float32)}


class PaddingCounts(WrongScores):
    class session(GoodSession):
        def run(self, inputs: Tensors) -> Any:
            return super().run({**inputs, "attention_mask": np.ones_like(inputs["input_ids"])})

    also = ("test_its_scores_do_not_depend_on_the_batch_size", "test_two_sessions_may_be_open_at_once")


class NotANumberInFp16(WrongScores):
    also = ()
    precisions = {"fp32": PrecisionInfo(offered=True), "fp16": PrecisionInfo(offered=True)}

    class session(GoodSession):
        def result(self, logits: Any, inputs: Tensors) -> Any:
            return {"logits": (logits * np.nan if self.precision == "fp16" else logits).astype(np.float32)}


class DependsOnTheBatch(GoodDevice):
    meant = "test_its_scores_do_not_depend_on_the_batch_size"

    class session(GoodSession):
        def result(self, logits: Any, inputs: Tensors) -> Any:
            return {"logits": (logits + 0.001 * (len(logits) > 4)).astype(np.float32)}


class BlocksInSubmit(GoodDevice):
    meant = "test_submit_does_not_wait_for_the_result"

    class session(GoodSession):
        def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Any]:
            future = super().submit(inputs)
            future.exception()
            return future


class MixesUpManyBatches(GoodDevice):
    meant = "test_many_batches_may_be_in_flight"

    class session(GoodSession):
        count = 0

        def result(self, logits: Any, inputs: Tensors) -> Any:
            self.count += 1
            return super().result(logits + (self.count > 20 and len(logits) == 1), inputs)


class LosesABatch(GoodDevice):
    meant = "test_many_batches_may_be_in_flight"
    deadline = 3.0

    class session(GoodSession):
        count = 0

        def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Any]:
            self.count += len(inputs["input_ids"]) == 1
            return Future() if self.count == 30 else super().submit(inputs)


class SecondSessionEndsTheFirst(GoodDevice):
    meant = "test_two_sessions_may_be_open_at_once"
    last: GoodSession | None = None

    def open(self, artifact: Artifact, options: SessionOptions) -> Any:
        if self.last is not None:
            self.last.close()
        self.last = super().open(artifact, options)
        return self.last


class SessionsShareTheirState(GoodDevice):
    meant = "test_two_sessions_may_be_open_at_once"

    class session(GoodSession):
        opened = 0

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            type(self).opened += 1

        def close(self) -> None:
            type(self).opened -= not self.closed
            super().close()

        def result(self, logits: Any, inputs: Tensors) -> Any:
            return super().result(logits + (type(self).opened > 1), inputs)


class ReusesOutputs(GoodDevice):
    meant = "test_results_belong_to_the_caller"
    also = ("test_its_scores_do_not_depend_on_the_batch_size",)

    class session(GoodSession):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.kept = np.zeros((3, 1), dtype=np.float32)

        def result(self, logits: Any, inputs: Tensors) -> Any:
            if len(logits) != 3:
                return super().result(logits, inputs)
            self.kept[:] = logits
            return {"logits": self.kept}


class ChangesInputs(GoodDevice):
    meant = "test_inputs_stay_as_they_were"

    class session(GoodSession):
        def result(self, logits: Any, inputs: Tensors) -> Any:
            inputs["attention_mask"][:] = 1
            return super().result(logits, inputs)


class ClosingTwiceRaises(GoodDevice):
    meant = "test_closing_twice_is_harmless"

    class session(GoodSession):
        def close(self) -> None:
            if self.closed:
                raise RuntimeError("it is closed")
            super().close()


class WithDoesNotClose(GoodDevice):
    meant = "test_the_end_of_a_with_block_closes"

    class session(GoodSession):
        def __exit__(self, *exc_info: object) -> None:
            pass


class EntersAsAnother(WithDoesNotClose):
    class session(GoodSession):
        def __enter__(self) -> Any:
            return type(self)(self.weights, self.precision)


class WorksWhenClosed(GoodDevice):
    meant = "test_a_closed_session_refuses_work"
    also = ("test_the_end_of_a_with_block_closes",)

    class session(GoodSession):
        def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Any]:
            if not self.closed:
                return super().submit(inputs)
            future: Future[Any] = Future()
            future.set_result(self.run(inputs))
            return future


class LeavesAThread(GoodDevice):
    meant = "test_closing_ends_its_threads"

    class session(GoodSession):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            threading.Thread(target=time.sleep, args=(10,), name="heartbeat", daemon=True).start()


class CloseNeverReturns(GoodDevice):
    meant = "test_closing_with_work_under_way_ends_promptly"
    deadline = 3.0

    class session(GoodSession):
        def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Any]:
            future = super().submit(inputs)
            self.lost = len(inputs["input_ids"]) == 1 and self.pending > 3
            return future

        def run(self, inputs: Tensors) -> Any:
            time.sleep(0.02)
            return super().run(inputs)

        def close(self) -> None:
            if self.pending > 5:
                threading.Event().wait()
            super().close()


class LeavesFuturesOpen(CloseNeverReturns):
    deadline = 30.0

    class session(CloseNeverReturns.session):
        def close(self) -> None:
            self.closed = True
            self.worker.shutdown(wait=False)


class MissingFileIsAnOSError(GoodDevice):
    meant = "test_a_missing_file_is_an_error_for_the_user"

    def open(self, artifact: Artifact, options: SessionOptions) -> Any:
        if not artifact.model.is_file():
            raise FileNotFoundError(artifact.model)
        return super().open(artifact, options)


class DamagedFileIsAValueError(GoodDevice):
    meant = "test_a_damaged_file_is_an_error_for_the_user"

    def load(self, model: Path) -> dict[str, Any]:
        try:
            return super().load(model)
        except ZooError as error:
            raise ValueError(str(error)) from error


class DamagedFileIsNotNamed(DamagedFileIsAValueError):
    def load(self, model: Path) -> dict[str, Any]:
        try:
            return super().load(model)
        except ValueError as error:
            raise ZooError("cannot read the model") from error


class DamagedFileIsOpened(DamagedFileIsAValueError):
    def load(self, model: Path) -> dict[str, Any]:
        try:
            return super().load(model)
        except ValueError:
            return {}


class OptionWithoutHelp(GoodDevice):
    meant = "test_its_options_have_help_and_defaults_that_they_take"
    options = (Option(name="stream", help=""),)


class DefaultIsNotTaken(OptionWithoutHelp):
    options = (Option(name="stream", kind="integer", default="many", help="Streams."),)


class TakesAnyPart(GoodDevice):
    meant = "test_an_unknown_part_of_the_device_is_an_error_for_the_user"

    def open(self, artifact: Artifact, options: SessionOptions) -> Any:
        return (
            self.session(self.load(artifact.model), options.precision)
            if options.selector
            else super().open(artifact, options)
        )


class Int8IsFloat32(GoodDevice):
    meant = "test_a_precision_that_it_makes_itself_computes_what_it_says"
    precisions = {"fp32": PrecisionInfo(offered=True), "int8": PrecisionInfo(offered=True)}


class RecipeLowersToAnother(Int8IsFloat32):
    precisions = {"fp32": PrecisionInfo(offered=True), "fp16": PrecisionInfo(offered=True)}

    def recipe(self, precision: str, checkpoint: object = None) -> tuple[str, ...]:
        return ("export", "quantise") if precision == "fp16" else ("export",)


class Suite(DeviceContract):
    broken: type[GoodDevice] = GoodDevice

    @pytest.fixture
    def device(self) -> Any:
        return self.broken()

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        random = np.random.default_rng(7)
        path = tmp_path / "toy.npz"
        np.savez(path, table=random.normal(size=(97, 16)).astype("f"), head=random.normal(size=(16, 1)).astype("f") * 5)
        return path

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return tmp_path / "there is none"

    @pytest.fixture
    def expected(self, model: Path) -> Any:
        weights = np.load(model)
        rows = [np.array([row.features["input_ids"]]) for row in toy_encodings(LENGTHS).rows]
        return np.array(
            [compute(weights, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0, 0] for ids in rows],
            dtype=np.float32,
        )


BROKEN = [found for found in list(globals().values()) if isinstance(found, type) and issubclass(found, GoodDevice)]
for _broken in BROKEN:
    _name = f"Test{_broken.__name__}"
    globals()[_name] = type(_name, (Suite,), {"broken": _broken, "deadline": _broken.deadline, "__module__": __name__})
del _broken
