"""Where a model's files are found: an ordered list of sources, tried one after another.

Each source answers with a folder or with the reason why it cannot serve, so that a failure lists everything that was tried.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.card import ModelCard
from zoo.errors import InputError, ZooError
from zoo.resources import zoo_home
from zoo.types import Checkpoint

logger = logging.getLogger(__name__)

TOKENIZER_FILES = ("config.json", "tokenizer.json")
TOKENIZER_PATTERNS = [*TOKENIZER_FILES, "tokenizer_config.json", "special_tokens_map.json"]
WEIGHT_PATTERNS = ["*.safetensors", "*.safetensors.index.json"]
ONNX_PLACES = ("model.onnx", "onnx/model.onnx")


@dataclass(frozen=True, kw_only=True)
class Want:
    """What a run needs of a checkpoint: its tokenizer alone, or something to compute with as well."""

    weights: bool
    offline: bool = False
    pickled: bool = False
    """Accept ``pytorch_model.bin`` too (read without executing what is in it)."""
    exported: bool = True
    """Accept a model file in place of weights."""
    before_download: Callable[[], None] = lambda: None
    """Called before weights are fetched from afar; raises ZooError where they could not be used."""

    def lacks(self, folder: Path) -> str:
        """What ``folder`` is missing, or an empty string."""
        if not folder.is_dir():
            return "no such folder" if not folder.exists() else "not a folder"
        missing = [name for name in TOKENIZER_FILES if not (folder / name).is_file()]
        if missing:
            return f"has no {' and no '.join(missing)}"
        if not self.weights or (self.exported and onnx_file(folder)) or any(folder.glob("*.safetensors")):
            return ""
        if any(folder.glob("pytorch_model*.bin")):
            return "" if self.pickled else "has only pickled weights (pytorch_model.bin); --allow-pickle reads them"
        return "has neither model.onnx nor *.safetensors" if self.exported else "has no *.safetensors"


def onnx_file(folder: Path) -> Path | None:
    """The exported model inside a checkpoint folder, where there is one."""
    return next((folder / place for place in ONNX_PLACES if (folder / place).is_file()), None)


def has_weights(folder: Path) -> bool:
    """Whether there are weights to export, in whatever form."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def weight_files(folder: Path) -> list[Path]:
    """The files a checkpoint's weights are read from: safetensors where there are any, else pickled ones; one or all shards."""
    for single, index, pattern in (
        ("model.safetensors", "model.safetensors.index.json", "*.safetensors"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model*.bin"),
    ):
        if (folder / single).is_file():
            return [folder / single]
        if files := sorted(folder.glob(pattern)):
            return [*files, *([folder / index] if (folder / index).is_file() else [])]
    raise ZooError(f"{folder} has no weights: neither *.safetensors nor pytorch_model.bin")


def float32_bytes(folder: Path) -> int:
    """Bytes the checkpoint's weights take in float32."""
    total = 0
    for path in weight_files(folder):
        total += _safetensors_float32(path) if path.suffix == ".safetensors" else path.stat().st_size
    return total


def _safetensors_float32(path: Path) -> int:
    """4 bytes an element, counted from the header (8 bytes of length, then JSON)."""
    try:
        with path.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        shapes = [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]
    except (ValueError, OverflowError, MemoryError, KeyError, TypeError) as error:
        raise InputError(path, None, f"is no safetensors file: {type(error).__name__}") from error
    return sum(4 * math.prod(shape) for shape in shapes)


def model_files(model: Path) -> list[Path]:
    """A model file and those beside it that hold its weights."""
    try:
        import onnx
    except ImportError:  # exporters name external data after the file
        return [model, *sorted(path for path in model.parent.glob(f"{model.name}*") if path != model)]
    try:
        proto = onnx.load(model, load_external_data=False)
    except Exception as error:  # protobuf's classes differ between its versions
        raise InputError(model, None, f"is no ONNX file: {error}") from error
    tensors = [*proto.graph.initializer, *(a.t for node in proto.graph.node for a in node.attribute if a.HasField("t"))]
    places = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    files = [model, *sorted(model.parent / place for place in places)]
    absent = [path.name for path in files if not path.is_file()]
    if absent:
        raise InputError(model, None, f"keeps its weights in {', '.join(absent)}, which must lie beside it")
    return files


Source = Callable[[ModelCard, Want], "Path | str"]
"""Gives the folder it can serve, or the reason why it cannot."""


def find_checkpoint(card: ModelCard, want: Want, config_path: Path | None = None) -> Checkpoint:
    """The first source that has what ``want`` says. A ``config_path`` is used or refused, never passed over."""
    if config_path is not None:
        lacks = want.lacks(config_path)
        if lacks:
            raise ZooError(
                f"--config-path {config_path}: {lacks}. It takes a folder with config.json and tokenizer.json"
                + (", and model.onnx or *.safetensors." if want.weights else ".")
            )
        return _served(config_path, "--config-path", None)
    tried: list[str] = []
    for name, source in _sources(card):
        answer = source(card, want)
        if isinstance(answer, Path):
            pinned = name.startswith(("Hugging Face", "hub"))
            return _served(answer, name, card.revision if pinned else None)
        tried.append(f"  {name}: {answer}")
    raise ZooError(
        "\n".join([f"the weights of '{card.name}' were not found. Tried, in this order:", *tried, *_ways_out(card)])
    )


def _served(folder: Path, source: str, revision: str | None) -> Checkpoint:
    logger.info("checkpoint: %s (%s)", folder, source)
    return Checkpoint(folder=folder, served_by=source, revision=revision)


def _sources(card: ModelCard) -> Iterator[tuple[str, Source]]:
    if card.bundled:
        yield "bundled with its card", lambda card, want: _folder(card.folder / str(card.bundled), want)
    repository = card.hub or card.modelscope
    if repository:
        yield f"./{repository}", lambda card, want: _folder(Path(repository), want)
        yield "$ZOO_HOME/checkpoints", lambda card, want: _folder(zoo_home() / "checkpoints" / repository, want)
    if card.hub:
        yield "Hugging Face cache", _hub_cache
        yield f"hub ({hub_endpoint()})", _hub
    if card.modelscope:
        yield "ModelScope", _modelscope


def _folder(folder: Path, want: Want) -> Path | str:
    return f"{folder} {lacks}" if (lacks := want.lacks(folder)) else folder


def hub_endpoint() -> str:
    """The hub or the mirror that ``HF_ENDPOINT`` names."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def is_offline(asked: bool) -> bool:
    """Whether the network must not be touched: asked for, or ``HF_HUB_OFFLINE`` is set."""
    return asked or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}


def _patterns(want: Want) -> list[str]:
    weights = [*WEIGHT_PATTERNS, *(["pytorch_model*.bin*"] if want.pickled else [])]
    return TOKENIZER_PATTERNS + (weights if want.weights else [])


def _hub_cache(card: ModelCard, want: Want) -> Path | str:
    from huggingface_hub import snapshot_download

    assert card.hub
    try:
        folder = Path(snapshot_download(card.hub, revision=card.revision, local_files_only=True))
    except Exception as error:  # the hub client's exceptions differ between its major versions
        return f"holds no {card.hub} at revision {card.revision} ({type(error).__name__})"
    return _complete(folder, want)


def _hub(card: ModelCard, want: Want) -> Path | str:
    if is_offline(want.offline):
        return "not asked (offline)"
    want.before_download()
    from huggingface_hub import snapshot_download

    assert card.hub
    logger.info("downloading %s at %s from %s", card.hub, card.revision, hub_endpoint())
    try:
        folder = snapshot_download(card.hub, revision=card.revision, allow_patterns=_patterns(want))
    except Exception as error:  # network faults come as requests', httpx' or the hub client's own classes
        return f"{type(error).__name__}: {_first_line(error)}"
    return _complete(Path(folder), want)


def _modelscope(card: ModelCard, want: Want) -> Path | str:
    if is_offline(want.offline):
        return "not asked (offline)"
    if importlib.util.find_spec("modelscope") is None:
        return "its package is not installed (pip install modelscope)"
    want.before_download()
    from modelscope import snapshot_download

    logger.info("downloading %s from ModelScope", card.modelscope)
    try:
        folder = snapshot_download(card.modelscope, allow_patterns=_patterns(want))
    except Exception as error:  # the package documents no exception classes of its own
        return f"{type(error).__name__}: {_first_line(error)}"
    return _complete(Path(folder), want)


def _complete(folder: Path, want: Want) -> Path | str:
    """``folder`` unless a file is missing: a hub snapshot exists from its first file on."""
    lacks = want.lacks(folder)
    if lacks:
        return f"{folder} {lacks}"
    for index in folder.glob("*.safetensors.index.json") if want.weights else ():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        absent = sorted(shard for shard in shards if not (folder / shard).is_file())
        if absent:
            return f"{folder} lacks {', '.join(absent)}, which {index.name} names"
    return folder


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _ways_out(card: ModelCard) -> list[str]:
    repository = card.hub or card.modelscope
    ways = ["Ways out:"]
    if repository:
        ways += [
            f"  - put the files of {repository} into ./{repository}, or name their folder with --config-path DIR",
            "  - behind a mirror: set HF_ENDPOINT to its address",
            "  - with an ONNX file: --ckpt FILE.onnx --config-path DIR (tokenizer.json and config.json)",
        ]
    return [*ways, "  - to see the program work without weights: zoo run zoo-reranker-tiny --mode single"]
