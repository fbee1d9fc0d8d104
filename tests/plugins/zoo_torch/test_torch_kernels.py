"""The forms of attention and of fused kernels are chosen by trial: one that is missing or wrong is not taken."""

# ruff: noqa: E402  # the modules under test import torch, and without it this file skips before they do

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.errors import ZooError

torch = pytest.importorskip("torch", reason="the device 'torch' needs torch")

from zoo_torch import attention
from zoo_torch.attention import choose_attention
from zoo_torch.kernels import Plain, choose_kernels
from zoo_torch.widths import Widths

pytestmark = [pytest.mark.torch]

CPU = torch.device("cpu")
MODEL: dict[str, Any] = {"heads": 4, "size": 8, "dtype": torch.float32, "device": CPU}


def flash(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int,
    *, window_size: tuple[int, int] = (-1, -1), scale: float | None = None,
) -> Any:  # fmt: skip
    """What torch documents of varlen_attn, row by row. As in FlashAttention, windows are aligned to the last query and the last key."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    parts = []
    for row in range(len(cu_seq_q) - 1):
        q, k, v = (
            x[borders[row] : borders[row + 1]].transpose(0, 1).double()
            for x, borders in ((query, cu_seq_q), (key, cu_seq_k), (value, cu_seq_k))
        )
        assert q.shape[1] <= max_q
        assert k.shape[1] <= max_k
        weights = q @ k.transpose(1, 2) * (scale or q.shape[-1] ** -0.5)
        away = torch.arange(k.shape[1]) - (torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1])
        left, right = window_size
        hidden = torch.zeros_like(away, dtype=torch.bool)
        hidden |= (away < -left) if left >= 0 else False
        hidden |= (away > right) if right >= 0 else False
        parts.append((weights.masked_fill(hidden, float("-inf")).softmax(-1) @ v).transpose(0, 1).to(query.dtype))
    return torch.cat(parts)


@pytest.fixture
def varlen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """``varlen(function)`` is torch.nn.attention.varlen.varlen_attn from here on; None: a torch that has no such module."""

    def put(function: Any) -> None:
        module = None if function is None else types.SimpleNamespace(varlen_attn=function)
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)

    return put


@pytest.mark.parametrize("reach", [None, 3])
@pytest.mark.parametrize("form", ["varlen", "padded"])
def test_each_form_sees_the_row_or_its_window_and_nothing_else(form: str, reach: int | None, varlen: Any) -> None:
    varlen(flash)
    chosen = choose_attention(form, reach=reach, **MODEL)
    assert chosen.name == form


def test_jagged_attention_sees_the_row(varlen: Any) -> None:
    assert choose_attention("nested", reach=None, **MODEL).name == "nested"


def test_a_torch_without_varlen_falls_back(varlen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    varlen(None)
    pretended = types.SimpleNamespace(type="cuda")
    real = attention._trial
    monkeypatch.setattr(attention, "_trial", lambda *a: real(*a[:-1], CPU))
    assert choose_attention("auto", reach=None, **{**MODEL, "device": pretended}).name == "nested"
    assert choose_attention("auto", reach=5, **{**MODEL, "device": pretended}).name == "padded"
    varlen(flash)
    assert choose_attention("auto", reach=5, **{**MODEL, "device": pretended}).name == "varlen"


def test_a_cpu_takes_the_padded_form(varlen: Any) -> None:
    varlen(flash)
    assert choose_attention("auto", reach=None, **MODEL).name == "padded"


def test_a_kernel_that_refuses_is_named_with_its_reason(varlen: Any) -> None:
    def refuses(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nException raised from mha_varlen_fwd")

    varlen(refuses)
    with pytest.raises(ZooError, match=r"4 heads of 8: varlen: FlashAttention only supports Ampere GPUs or newer.$"):
        choose_attention("varlen", reach=None, **MODEL)


def test_a_torch_whose_varlen_has_no_windows_is_not_asked_for_them(varlen: Any) -> None:
    def old(
        query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, is_causal: bool = False
    ) -> Any:
        assert not is_causal
        return flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)

    varlen(old)
    assert choose_attention("varlen", reach=None, **MODEL).name == "varlen"
    with pytest.raises(ZooError, match=r"varlen: .*window_size"):
        choose_attention("varlen", reach=4, **MODEL)


@pytest.mark.parametrize("fault", ["windows are ignored", "rows see each other", "NaN", "keys are shifted"])
def test_a_kernel_that_gives_something_else_is_not_taken(fault: str, varlen: Any) -> None:
    def wrong(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, **window: Any) -> Any:
        if fault == "rows see each other":
            whole = torch.tensor([0, len(q)], dtype=torch.int32)
            return flash(q, k, v, whole, torch.tensor([0, len(k)], dtype=torch.int32), len(q), len(k))
        if fault == "windows are ignored":
            return flash(q, k, v, cu_q, cu_k, max_q, max_k)
        result = flash(q, k.roll(1, 0) if fault == "keys are shifted" else k, v, cu_q, cu_k, max_q, max_k, **window)
        return result * float("nan") if fault == "NaN" else result

    varlen(wrong)
    with pytest.raises(ZooError, match="varlen: it is off by"):
        choose_attention("varlen", reach=4, **MODEL)


def test_a_whole_model_by_varlen_scores_as_by_padding(varlen: Any, tmp_path: Any) -> None:
    import numpy as np

    from torch_checkpoints import make, make_batch, open_session, row_by_row, score
    from zoo_torch.device import TorchDevice

    varlen(flash)
    model = make("xlm-roberta", tmp_path)
    inputs = make_batch((30, 11, 11, 2, 1), padding=1)
    with open_session(TorchDevice(), tmp_path, attention="varlen") as session:
        expected = row_by_row(model, inputs, session.input_names)
        np.testing.assert_allclose(score(session, inputs), expected, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning"
)  # torch's compiler, which transformers' ModernBERT imports
@pytest.mark.parametrize("name", ["modernbert, last layer global", "modernbert, last layer local", "modernbert, mean"])
def test_a_model_with_windows_by_varlen_scores_as_by_padding(name: str, varlen: Any, tmp_path: Any) -> None:
    import numpy as np

    from torch_checkpoints import make, make_batch, open_session, row_by_row, score
    from zoo_torch.device import TorchDevice

    model = make(name, tmp_path)
    inputs = make_batch((60, 31, 9, 2, 1))
    varlen(flash)
    with open_session(TorchDevice(), tmp_path, attention="varlen") as session:
        expected = row_by_row(model, inputs, session.input_names)
        np.testing.assert_allclose(score(session, inputs), expected, atol=1e-5, rtol=0)


WIDTHS = (Widths(heads=4, hidden=32, inner=64, eps=1e-5), Widths(heads=3, hidden=1026, inner=1500, eps=1e-12))
INTERPRETED = """
import sys
import torch
sys.path[:0] = {path!r}
from test_torch_kernels import WIDTHS
from torch_checkpoints import make, make_batch, open_session, padding_of, row_by_row, score
from zoo_torch.device import TorchDevice
from zoo_torch.kernels import Plain, choose_kernels
from pathlib import Path
for widths in WIDTHS:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        kernels = choose_kernels("auto", "on", widths=widths, reach=None, dtype=dtype, device=torch.device("cpu"))
        assert "fused" in kernels.described, kernels.described
for name in ("xlm-roberta", "modernbert, last layer global"):
    folder = Path({folder!r}) / name.replace(", ", "-")
    model = make(name, folder, num_hidden_layers=3)
    with open_session(TorchDevice(), folder, compile="on") as session:
        assert "fused" in session._model.described
        for lengths in ((9, 4, 1), (1,)):
            inputs = make_batch(lengths, padding=padding_of(model))
            apart = abs(score(session, inputs) - row_by_row(model, inputs, session.input_names)).max()
            assert apart < 2e-5, apart
"""


def test_fused_kernels_compute_what_the_plain_ones_do(python: str, tmp_path: Path) -> None:
    """By Triton's interpreter, which is chosen by a variable that is read when Triton is imported."""
    pytest.importorskip("triton", reason="the kernels are written in Triton")
    here = Path(__file__).parent
    code = INTERPRETED.format(path=[str(here), str(here.parents[1])], folder=str(tmp_path))
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fault", ["raises", "is wrong", "gives NaN"])
def test_kernels_that_do_not_work_are_done_without(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(Plain):
        def __init__(self, widths: Widths) -> None:
            if fault == "raises":
                raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")
            super().__init__(widths)

        def rotate(self, x: Any, cosine: Any, sine: Any) -> Any:
            return x * (float("nan") if fault == "gives NaN" else cosine)

    monkeypatch.setitem(sys.modules, "zoo_torch.fused", types.SimpleNamespace(Fused=Faulty))
    kernels = choose_kernels("auto", "on", widths=WIDTHS[0], reach=None, dtype=torch.float32, device=CPU)
    assert "fused" not in kernels.described
    assert {"raises": "Failed to find C compiler", "is wrong": "off by", "gives NaN": "off by inf"}[
        fault
    ] in caplog.text
    x = torch.randn(3, 32)
    weight = torch.ones(32)
    right = torch.nn.functional.layer_norm(x + x, (32,), weight, None, 1e-5)
    torch.testing.assert_close(kernels.elementwise.add_norm(x, x, weight, None), right)


def test_without_triton_nothing_is_fused(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "zoo_torch.fused", None)  # importing it raises ImportError
    kernels = choose_kernels("auto", "on", widths=WIDTHS[0], reach=None, dtype=torch.float32, device=CPU)
    assert isinstance(kernels.elementwise, Plain)
    assert "not fused" in caplog.text


def test_the_epilogue_is_for_half_precision_on_a_card_alone() -> None:
    widths = Widths(heads=4, hidden=32, inner=64, eps=1e-5)
    for dtype in (torch.float32, torch.float16):
        assert not choose_kernels("auto", "off", widths=widths, reach=None, dtype=dtype, device=CPU).epilogue
