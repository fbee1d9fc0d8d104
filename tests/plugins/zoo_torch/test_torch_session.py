"""A torch session under what goes wrong: no memory, no number, closing in the middle, a device that fails."""

# ruff: noqa: E402  # the modules under test import torch, and without it this file skips before they do

from __future__ import annotations

import contextlib
import json
import threading
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import families
from torch_checkpoints import make, make_batch, open_session, row_by_row, score
from zoo.errors import ZooError
from zoo.strict_json import read_object
from zoo.types import Artifact, SessionOptions, Tensors

torch = pytest.importorskip("torch", reason="the device 'torch' needs torch")
pytest.importorskip("safetensors", reason="the device 'torch' needs safetensors")

from zoo_torch.budget import Budget
from zoo_torch.device import TorchDevice
from zoo_torch.executors import CpuExecutor, CudaExecutor, Done
from zoo_torch.model import Check, Cost
from zoo_torch.packing import HostBatch, pack
from zoo_torch.session import TorchSession

pytestmark = [pytest.mark.torch]


class FirstId:
    """A model whose score of a row is its first token's id. ``work`` is called between layers, of which there are ``layers``."""

    input_names = ("input_ids", "attention_mask")
    described = "a test's"
    cost = Cost(operations=1.0, bytes=1.0, longest=1000)

    def __init__(self, layers: int = 1, work: Any = lambda: None) -> None:
        self._layers, self._work = layers, work

    def prepare(self, inputs: Tensors) -> HostBatch:
        return pack(inputs)

    def forward(self, tensors: Mapping[str, Any], batch: HostBatch, between_layers: Check) -> Any:
        for _ in range(self._layers):
            between_layers()
            self._work()
        return tensors["input_ids"][tensors["borders"][:-1].long()].float()


class TightExecutor(CpuExecutor):
    """A device whose memory holds ``room`` slots of a batch. What a failed batch had allocated must be gone when the next one comes."""

    def __init__(self, model: Any, room: int, message: str = "") -> None:
        super().__init__(model)
        self.room, self.message = room, message
        self.computed: list[int] = []
        self._held: weakref.ref[Any] | None = None

    def start(self, batch: HostBatch, between_layers: Check) -> Done:
        assert self._held is None or self._held() is None, "the tensors of the batch that failed are still held"
        slots = batch.rows * batch.longest
        if slots > self.room:
            activations = torch.zeros(slots)
            self._held = weakref.ref(activations)
            raise RuntimeError(self.message) if self.message else torch.OutOfMemoryError("CUDA out of memory.")
        self.computed.append(slots)
        return super().start(batch, between_layers)


def session_of(executor: CpuExecutor, model: Any, tokens: int = 4096) -> TorchSession:
    return TorchSession("card", model, executor, Budget(wanted=tokens, limit=tokens, rows=32))


def tight(room: int, message: str = "") -> tuple[TorchSession, TightExecutor]:
    model = FirstId()
    executor = TightExecutor(model, room, message)
    return session_of(executor, model), executor


@pytest.mark.parametrize(
    "message", ["", "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", "can't allocate memory: you tried"]
)
def test_a_batch_that_the_memory_does_not_hold_is_computed_in_parts(
    message: str, caplog: pytest.LogCaptureFixture
) -> None:
    session, executor = tight(room=100, message=message)
    inputs = make_batch((40, 30, 30, 20, 20, 10, 5, 5, 1))
    with session:
        assert session.shape_rule.tokens == 4096
        np.testing.assert_array_equal(score(session, inputs), inputs["input_ids"][:, 0])
        tokens = session.shape_rule.tokens
        assert tokens is not None
        assert 50 <= tokens <= 100
        assert sum("does not hold a batch" in record.message for record in caplog.records) >= 1
        caplog.clear()
        np.testing.assert_array_equal(score(session, inputs), inputs["input_ids"][:, 0])
        assert not caplog.records, "the smaller batches were forgotten"
    assert max(executor.computed) <= 100


def test_a_row_that_the_memory_does_not_hold_is_an_error_and_the_session_goes_on() -> None:
    session, _ = tight(room=30)
    with session:
        with pytest.raises(ZooError, match=r"card: a pair of 40 tokens does not fit the memory.*`max_length`"):
            score(session, make_batch((40, 4)))
        inputs = make_batch((20, 20, 7))
        np.testing.assert_array_equal(score(session, inputs), inputs["input_ids"][:, 0])


def test_more_rows_than_the_limit_are_computed_in_parts_without_running_out() -> None:
    model = FirstId()
    executor = TightExecutor(model, room=64)
    inputs = make_batch([16] * 50)
    with session_of(executor, model, tokens=64) as session:
        np.testing.assert_array_equal(score(session, inputs), inputs["input_ids"][:, 0])
    assert executor.computed == [64] * 12 + [32]


def test_a_score_that_is_not_a_number_names_the_row_and_what_to_try(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make("xlm-roberta", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["roberta.embeddings.word_embeddings.weight"][77] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    inputs = make_batch((12, 9, 6), padding=1)
    inputs["input_ids"][inputs["input_ids"] == 77] = 76
    inputs["input_ids"][1, 4] = 77
    with open_session(TorchDevice(), tmp_path, "fp16") as session:
        np.testing.assert_array_equal(np.isfinite(score(session, inputs)), [True, False, True])
        inputs["input_ids"][1, 4] = 76
        assert np.isfinite(score(session, inputs)).all()


def test_a_model_that_overflows_in_float16_gives_no_finite_score_and_runs_in_bfloat16(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make("bert", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for kind in ("weight", "bias"):
        tensors[f"bert.encoder.layer.1.output.dense.{kind}"] *= 1e6
    save_file(tensors, tmp_path / "model.safetensors")
    inputs = make_batch((12, 9, 6))
    with open_session(TorchDevice(), tmp_path, "fp16") as session:
        assert not np.isfinite(score(session, inputs)).any()
    with open_session(TorchDevice(), tmp_path, "bf16") as session:
        assert np.isfinite(score(session, inputs)).all()


def test_an_id_that_the_model_does_not_know_is_an_error_and_not_the_end_of_the_session(tmp_path: Path) -> None:
    make("bert", tmp_path)
    inputs = make_batch((12, 9))
    with open_session(TorchDevice(), tmp_path) as session:
        wrong = {name: array.copy() for name, array in inputs.items()}
        wrong["input_ids"][1, 3] = 120
        with pytest.raises(ZooError, match="token id 120; the model knows 0 to 119"):
            score(session, wrong)
        with pytest.raises(ZooError, match="a token at position 100"):
            score(session, make_batch((101,)))
        assert np.isfinite(score(session, inputs)).all()


def test_a_device_that_fails_is_named_and_the_next_batch_is_computed() -> None:
    class Once(CpuExecutor):
        failed = False

        def start(self, batch: HostBatch, between_layers: Check) -> Done:
            if not self.failed:
                self.failed = True
                raise RuntimeError(
                    "CUDA error: an illegal instruction was encountered\nCompile with TORCH_USE_CUDA_DSA"
                )
            return super().start(batch, between_layers)

    model = FirstId()
    inputs = make_batch((4, 3))
    with session_of(Once(model), model) as session:
        with pytest.raises(
            ZooError, match="card failed in a batch of 2 rows of 4 tokens: CUDA error: an illegal instruction"
        ) as caught:
            score(session, inputs)
        assert "TORCH_USE_CUDA_DSA" not in str(caught.value)
        np.testing.assert_array_equal(score(session, inputs), inputs["input_ids"][:, 0])


def test_closing_with_batches_waiting_ends_promptly_and_settles_each() -> None:
    model = FirstId(layers=200, work=lambda: time.sleep(0.05))
    session = session_of(CpuExecutor(model), model)
    futures = [session.submit(make_batch((4, 3))) for _ in range(20)]
    time.sleep(0.2)
    started = time.monotonic()
    session.close()
    assert time.monotonic() - started < 2, "a batch of ten seconds was waited for"
    for future in futures:
        with pytest.raises(ZooError, match="closed"):
            future.result(0)
    with pytest.raises(ZooError, match="closed"):
        session.submit(make_batch((4, 3)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("zoo-card")]


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning"
)  # torch's compiler, which transformers' ModernBERT imports
@pytest.mark.parametrize("name", ["xlm-roberta", "modernbert, mean", "qwen3"])
def test_closing_leaves_a_model_between_its_layers(name: str, tmp_path: Path) -> None:
    make(name, tmp_path, num_hidden_layers=24)
    session = open_session(TorchDevice(), tmp_path, batch_tokens="100000")
    inputs = make_batch([90] * 300)
    future = session.submit({each: inputs[each] for each in session.input_names})
    deadline = time.monotonic() + 60
    while not future.running():
        assert time.monotonic() < deadline, "the batch does not begin"
        time.sleep(0.01)
    time.sleep(0.2)
    session.close()
    with pytest.raises(ZooError, match="closed"):  # it would have its scores if it had been computed to the end
        future.result(0)


def test_submitting_does_not_wait_for_the_device() -> None:
    model = FirstId(work=lambda: time.sleep(0.3))
    with session_of(CpuExecutor(model), model) as session:
        started = time.monotonic()
        futures = [session.submit(make_batch((4, 3))) for _ in range(3)]
        assert time.monotonic() - started < 0.2
        assert all(future.result(10) for future in futures)


def test_a_batch_that_is_cancelled_before_its_turn_is_not_computed() -> None:
    counted: list[int] = []

    def work() -> None:
        counted.append(1)
        time.sleep(0.2)

    model = FirstId(work=work)
    with session_of(CpuExecutor(model), model) as session:
        first, second, third = [session.submit(make_batch((4, 3))) for _ in range(3)]
        assert second.cancel()
        assert first.result(10)
        assert third.result(10)
        with pytest.raises(CancelledError):
            second.result(0)
    assert len(counted) == 2


def test_device_time_is_that_of_the_batches_and_not_of_the_host() -> None:
    model = FirstId(work=lambda: time.sleep(0.1))
    with session_of(CpuExecutor(model), model) as session:
        assert session.device_seconds == 0.0
        time.sleep(0.2)
        for _ in range(3):
            score(session, make_batch((4, 3)))
        assert 0.3 <= session.device_seconds < 0.45
    assert session.device_seconds >= 0.3, "the time is asked for after closing too"


def test_loading_and_warming_up_are_not_device_time(tmp_path: Path) -> None:
    make("bert", tmp_path)
    with open_session(TorchDevice(), tmp_path) as session:
        assert session.device_seconds == 0.0  # type: ignore[attr-defined]


def test_an_output_that_there_is_not_is_an_error() -> None:
    model = FirstId()
    with session_of(CpuExecutor(model), model) as session:
        assert set(session.submit(make_batch((4, 3)), outputs=["logits"]).result(10)) == {"logits"}
        with pytest.raises(ZooError, match="has no output 'hidden'; it has 'logits'"):
            session.submit(make_batch((4, 3)), outputs=["hidden"])


def test_many_threads_may_submit_at_once(tmp_path: Path) -> None:
    model = make("distilbert", tmp_path)
    batches = [make_batch((9, 7, 2), seed=seed) for seed in range(24)]
    with open_session(TorchDevice(), tmp_path) as session:
        results: dict[int, Any] = {}

        def run(numbers: range) -> None:
            for number in numbers:
                results[number] = score(session, batches[number])

        threads = [threading.Thread(target=run, args=(range(start, 24, 4),)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for number, inputs in enumerate(batches):
            expected = row_by_row(model, inputs, session.input_names)
            np.testing.assert_allclose(results[number], expected, atol=1e-5, rtol=0)


class PretendedCuda:
    """Acts like torch.cuda on the CPU, and keeps what was asked of it, in order. Work is done when it is asked for."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._current = ["default"]
        self._streams = iter(("copying", "computing"))

    def Stream(self) -> Any:  # torch's name
        name, calls = next(self._streams), self.calls

        class Stream:
            def wait_event(self, event: Any) -> None:
                calls.append(f"{name} waits for {event.number}")

            def __str__(self) -> str:
                return name

        return Stream()

    def Event(self, enable_timing: bool = False) -> Any:  # torch's name
        cuda = self

        class Event:
            number = -1

            def record(self) -> None:
                self.number = len(cuda.calls)
                cuda.calls.append(f"{cuda._current[-1]} records {self.number}")

            def synchronize(self) -> None:
                cuda.calls.append(f"the host waits for {self.number}")

            def elapsed_time(self, end: Any) -> float:
                assert enable_timing
                return float(end.number - self.number)

        return Event()

    def stream(self, stream: Any) -> Any:
        @contextlib.contextmanager
        def entered() -> Any:
            self._current.append(str(stream))
            yield
            self._current.pop()

        return entered()

    def device(self, device: Any) -> Any:
        return contextlib.nullcontext()

    def synchronize(self, device: Any) -> None:
        self.calls.append("synchronize")

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")

    def mem_get_info(self, device: Any) -> tuple[int, int]:
        return 1 << 30, 2 << 30


def test_a_card_gets_a_batch_by_one_copy_and_is_waited_for_by_events() -> None:
    cuda, model = PretendedCuda(), FirstId()
    executor = CudaExecutor(model, torch.device("cpu"), cuda)  # type: ignore[arg-type]
    cuda.calls.clear()
    inputs = {name: make_batch((4, 3))[name] for name in model.input_names}
    pending = executor.start(model.prepare(inputs), lambda: None)
    assert cuda.calls == ["copying records 0", "computing waits for 0", "computing records 2", "computing records 3"]
    logits, seconds = pending.wait()
    assert cuda.calls[4:] == ["the host waits for 3"]
    np.testing.assert_array_equal(logits, inputs["input_ids"][:, 0])
    assert seconds == pytest.approx(0.001)


def test_memory_of_a_batch_on_a_card_is_not_used_again_before_it_has_come_back() -> None:
    model = FirstId()
    executor = CudaExecutor(model, torch.device("cpu"), PretendedCuda())  # type: ignore[arg-type]
    batches = [{name: make_batch((40 - n, 3), seed=n)[name] for name in model.input_names} for n in range(9)]
    pending, results = [], []
    for inputs in batches:
        if len(pending) == executor.in_flight:
            results.append(pending.pop(0).wait()[0])
        pending.append(executor.start(model.prepare(inputs), lambda: None))
    results += [each.wait()[0] for each in pending]
    for logits, inputs in zip(results, batches, strict=True):
        np.testing.assert_array_equal(logits, inputs["input_ids"][:, 0])


def test_a_card_that_fails_in_a_batch_takes_the_next_one() -> None:
    class Failing(FirstId):
        fails = True

        def forward(self, tensors: Mapping[str, Any], batch: HostBatch, between_layers: Check) -> Any:
            if self.fails:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(tensors, batch, between_layers)

    model = Failing()
    executor = CudaExecutor(model, torch.device("cpu"), PretendedCuda())  # type: ignore[arg-type]
    inputs = {name: make_batch((4, 3))[name] for name in model.input_names}
    for _ in range(5):
        with pytest.raises(torch.OutOfMemoryError):
            executor.start(model.prepare(inputs), lambda: None)
    model.fails = False
    np.testing.assert_array_equal(
        executor.start(model.prepare(inputs), lambda: None).wait()[0], inputs["input_ids"][:, 0]
    )


def test_what_is_asked_of_torch_cuda_is_there() -> None:
    for name in ("Stream", "Event", "stream", "device", "synchronize", "empty_cache", "mem_get_info", "set_device",
                 "get_device_properties", "get_device_name"):  # fmt: skip
        assert hasattr(torch.cuda, name)


def test_a_session_on_a_pretended_card_scores_as_on_the_cpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from zoo_torch.families import build, shape_of
    from zoo_torch.kernels import choose_kernels
    from zoo_torch.weights import Weights

    reference = make("xlm-roberta", tmp_path)
    config = read_object(tmp_path / "config.json")
    cpu = torch.device("cpu")
    with Weights([tmp_path / "model.safetensors"], cpu, torch.float32) as weights:
        kernels = choose_kernels(
            "auto", "off", widths=shape_of(config).widths, reach=None, dtype=torch.float32, device=cpu
        )
        model = build(config, weights, kernels)
    executor = CudaExecutor(model, cpu, PretendedCuda())  # type: ignore[arg-type]
    with TorchSession("cuda:0", model, executor, Budget(wanted=64, limit=200, rows=32)) as session:
        assert session.shape_rule.parallel_batches == 2
        batches = [make_batch((30, 20, 20, 11, 3, 1), padding=1, seed=seed) for seed in range(12)]
        futures = [session.submit(inputs) for inputs in batches]
        for inputs, future in zip(batches, futures, strict=True):
            expected = row_by_row(reference, inputs, session.input_names)
            np.testing.assert_allclose(future.result(60)["logits"][:, 0], expected, atol=1e-5, rtol=0)
    assert not caplog.records


@families.TORCH_JIT
@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("xlm-roberta", {"num_attention_heads": 0}),
        ("xlm-roberta", {"vocab_size": None}),
        ("modernbert", {"global_attn_every_n_layers": 0, "layer_types": None}),
        ("modernbert", {"rope_parameters": ["full_attention"]}),
        ("bert", {"num_hidden_layers": float("inf")}),
    ],
)
def test_a_config_that_makes_no_sense_is_named(tmp_path: Path, family: str, change: dict[str, Any]) -> None:
    families.make(tmp_path, family)
    path = tmp_path / "config.json"
    changed = {**json.loads(path.read_text(encoding="utf-8")), **change}
    path.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}), encoding="utf-8")
    artifact = Artifact(model=tmp_path, precision="fp32", origin="a test", is_checkpoint=True)
    options = SessionOptions(precision="fp32", batch_size=None, max_length=32)
    with pytest.raises(ZooError, match=r"config\.json"):
        TorchDevice().open(artifact, options)
