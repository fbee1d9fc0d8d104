"""Where a model's files are found: an ordered list of sources, tried one after another.

Each source answers with a folder or with the reason why it cannot serve, so that a failure lists everything that was tried.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.checkpoints import download
from zoo.checkpoints.download import hub_endpoint
from zoo.checkpoints.files import (
    TOKENIZER_FILES,
    TOKENIZER_PATTERNS,
    has_pickled,
    has_safetensors,
    onnx_file,
    weight_files,
)
from zoo.errors import ZooError
from zoo.paths import zoo_home
from zoo.registry.card import ModelCard
from zoo.types import Checkpoint

logger = logging.getLogger(__name__)

WEIGHT_PATTERNS = ["*.safetensors", "*.safetensors.index.json"]
PICKLED_PATTERNS = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a run needs of a checkpoint: its tokenizer alone, or something to compute with as well."""

    weights: bool
    offline: bool = False
    pickled: bool = False
    """Accept ``pytorch_model.bin`` too (read without executing what is in it)."""
    before_download: Callable[[], None] = lambda: None
    """Called before weights are fetched from afar; raises ZooError where they could not be used."""

    def lacks(self, folder: Path) -> str:
        """What ``folder`` is missing, or an empty string."""
        if not folder.is_dir():
            return "no such folder" if not folder.exists() else "not a folder"
        missing = [name for name in TOKENIZER_FILES if not (folder / name).is_file()]
        if missing:
            return f"has no {' and no '.join(missing)}"
        if not self.weights or onnx_file(folder) or has_safetensors(folder):
            return ""
        if has_pickled(folder):
            return "" if self.pickled else "has only pickled weights (pytorch_model.bin); --allow-pickle reads them"
        return "has neither model.onnx nor *.safetensors"


Source = Callable[[ModelCard, Requirements], "Path | str"]
"""Gives the folder it can serve, or the reason why it cannot."""


def find_checkpoint(card: ModelCard, want: Requirements, config_path: Path | None = None) -> Checkpoint:
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


def _folder(folder: Path, want: Requirements) -> Path | str:
    return f"{folder} {lacks}" if (lacks := want.lacks(folder)) else folder


def is_offline(asked: bool) -> bool:
    """Whether the network must not be touched: asked for, or ``HF_HUB_OFFLINE`` is set."""
    return asked or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}


def _patterns(want: Requirements) -> list[str]:
    weights = [*WEIGHT_PATTERNS, *(PICKLED_PATTERNS if want.pickled else [])]
    return TOKENIZER_PATTERNS + (weights if want.weights else [])


def _hub_cache(card: ModelCard, want: Requirements) -> Path | str:
    return _complete(download.from_hub_cache(card), want)


def _hub(card: ModelCard, want: Requirements) -> Path | str:
    if is_offline(want.offline):
        return "not asked (offline)"
    if want.weights:
        want.before_download()
    return _safest(want, lambda patterns: download.from_hub(card, patterns))


def _modelscope(card: ModelCard, want: Requirements) -> Path | str:
    if is_offline(want.offline):
        return "not asked (offline)"
    if want.weights:
        want.before_download()
    return _safest(want, lambda patterns: download.from_modelscope(card, patterns))


def _safest(want: Requirements, fetch: Callable[[list[str]], Path | str]) -> Path | str:
    """Fetch pickled weights only where they are accepted and the repository has no others."""
    answer = _complete(fetch(_patterns(replace(want, pickled=False))), want)
    if isinstance(answer, str) and want.pickled:
        return _complete(fetch(_patterns(want)), want)
    return answer


def _complete(folder: Path | str, want: Requirements) -> Path | str:
    """``folder`` unless something is missing: a snapshot exists from its first file on."""
    if isinstance(folder, str):
        return folder
    if lacks := want.lacks(folder):
        return f"{folder} {lacks}"
    if want.weights and not onnx_file(folder):
        try:
            weight_files(folder)
        except ZooError as error:
            return str(error)
    return folder


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
