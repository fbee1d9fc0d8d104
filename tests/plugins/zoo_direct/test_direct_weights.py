"""The reader of safetensors headers: what is damaged is refused before anything is scored with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from direct_checkpoints import LABEL, ROBERTA, save, write
from zoo.errors import ZooError
from zoo_direct.build import write_graph
from zoo_direct.float8 import E4M3
from zoo_direct.weights import Weights

Damage = Callable[[bytes], bytes]


def header(content: bytes) -> tuple[dict[str, object], bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(entries: object, data: bytes) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def edited(change: Callable[[dict[str, dict[str, object]]], None]) -> Damage:
    def damage(content: bytes) -> bytes:
        entries, data = header(content)
        change(entries)  # type: ignore[arg-type]
        return with_header(entries, data)

    return damage


def with_length(content: bytes, more: int) -> bytes:
    return (int.from_bytes(content[:8], "little") + more).to_bytes(8, "little") + content[8:]


DAMAGES: dict[str, Damage] = {
    "cut short": lambda content: content[:-1],
    "longer than it says": lambda content: content + b"\0",
    "a header that is off by a byte": lambda content: with_length(content, 1) + b"\0",
    "only a length": lambda content: content[:8],
    "empty": lambda content: b"",
    "a length past the end": lambda content: (1 << 40).to_bytes(8, "little") + content[8:],
    "no JSON": lambda content: content[:8] + b"{" + content[8:],
    "a list": lambda content: with_header([1, 2], b""),
    "a pointer of git-lfs": lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "an entry without a shape": edited(lambda entries: entries["a"].pop("shape")),
    "an unknown type": edited(lambda entries: entries["a"].update(dtype="F8_E4M3")),
    "a shape that its bytes do not take": edited(lambda entries: entries["a"].update(shape=[3, 3])),
    "tensors that overlap": edited(lambda entries: entries["b"].update(data_offsets=[0, 12])),
    "a negative size": edited(lambda entries: entries["a"].update(shape=[-2, -3])),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "model.safetensors"
    save(file, {"a": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)})
    assert Weights(tmp_path).find("a").shape == (2, 3)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(ZooError, match=r"model\.safetensors"):
        Weights(tmp_path)


def test_a_tensor_that_two_shards_hold_is_refused(tmp_path: Path) -> None:
    for name in ("model-1.safetensors", "model-2.safetensors"):
        save(tmp_path / name, {"a": np.ones(2, np.float32)})
    with pytest.raises(ZooError, match=r"holds 'a', which model-1.safetensors holds too"):
        Weights(tmp_path)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ZooError, match=r"pickled \(pytorch_model.bin\)"):
        Weights(tmp_path)


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="has no weights"):
        Weights(tmp_path)


def test_a_type_that_no_graph_computes_with_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ROBERTA)
    file = tmp_path / "model.safetensors"
    entries, data = header(file.read_bytes())
    for entry in entries.values():
        if entry.get("dtype") == "F32":  # type: ignore[attr-defined]
            entry["dtype"] = "I32"  # type: ignore[index]
    file.write_bytes(with_header(entries, data))
    with pytest.raises(ZooError, match="is stored as I32; only F32, F16, BF16"):
        write_graph(tmp_path, form="onnxruntime", head=LABEL)


@pytest.mark.parametrize("content", ["", "[]", "{", None])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    write(tmp_path, ROBERTA)
    path = tmp_path / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ZooError, match=r"config\.json"):
        write_graph(tmp_path, form="onnxruntime", head=LABEL)


def test_every_8_bit_float_is_what_torch_makes_of_its_byte() -> None:
    torch = pytest.importorskip("torch")
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(np.array(E4M3, np.float32), values)
