"""Where a model's files are found: an ordered list of sources, tried one after another.

Each source answers with a folder or with the reason why it cannot serve, so that a failure lists everything that was tried.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from msgspec import structs

from zoo.checkpoints import download
from zoo.checkpoints.download import hub_endpoint
from zoo.checkpoints.files import has_pickled, has_safetensors, onnx_file, weight_files
from zoo.errors import ZooError
from zoo.files import reason, system_faults
from zoo.paths import zoo_home
from zoo.registry.architecture import Requirements
from zoo.registry.card import COMMIT, ModelCard
from zoo.types import Checkpoint

logger = logging.getLogger(__name__)

WEIGHT_PATTERNS = ["*.safetensors", "*.safetensors.index.json"]
PICKLED_PATTERNS = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]


@dataclass(frozen=True, kw_only=True)
class CheckpointRequest:
    """What a run needs of a checkpoint: the files its architecture names, and perhaps something to compute with."""

    requires: Requirements = field(default_factory=Requirements)
    weights: bool
    offline: bool = False
    pickled: bool = False
    """Accept ``pytorch_model.bin`` too (read without executing what is in it)."""
    before_download: Callable[[Path], None] = lambda folder: None
    """Called with the folder of the small files before weights are fetched; raises ZooError if they could not be used."""

    def lacks(self, folder: Path) -> str:
        """What ``folder`` is missing, or an empty string."""
        if not folder.is_dir():
            return "no such folder" if not folder.exists() else "not a folder"
        missing = [name for name in self.requires.files if not (folder / name).is_file()]
        if missing:
            return f"has no {' and no '.join(missing)}"
        if not self.weights or onnx_file(folder) or has_safetensors(folder):
            return ""
        if has_pickled(folder):
            return "" if self.pickled else "has only pickled weights (pytorch_model.bin), which `allow_pickle` reads"
        return "has neither model.onnx nor *.safetensors"


Source = Callable[[ModelCard, CheckpointRequest], "Path | str"]
"""Gives the folder it can serve, or the reason why it cannot."""


def find_checkpoint(card: ModelCard, request: CheckpointRequest, config_path: Path | None = None) -> Checkpoint:
    """The first source that has what ``request`` says. A ``config_path`` is used or refused, never passed over."""
    if config_path is not None:
        with system_faults():
            lacks = request.lacks(config_path)
        if lacks:
            wanted = " and ".join(request.requires.files) or "any files"
            raise ZooError(
                f"the checkpoint folder {config_path}: {lacks}. It needs {wanted}"
                + (", and model.onnx or *.safetensors." if request.weights else ".")
            )
        return _served(config_path, "the folder given", None)
    if not (request.requires.files or request.weights):
        return _served(card.folder, "its card", None)
    tried: list[str] = []
    for name, source in _sources(card):
        answer = source(card, request)
        if isinstance(answer, Path):
            # A snapshot's folder is called by its commit.
            return _served(answer, name, answer.name if COMMIT.fullmatch(answer.name) else None)
        tried.append(f"  {name}: {answer}")
    if not tried:
        raise ZooError(
            f"the card of '{card.name}' says nowhere to get weights from: set 'hub', 'modelscope' or 'bundled' in it"
        )
    raise ZooError(
        "\n".join([f"the weights of '{card.name}' were not found. Tried, in this order:", *tried, *_ways_out(card)])
    )


def found_here(card: ModelCard) -> Path | None:
    """The folder on this machine that has the card's weights; nothing is fetched, and the hub's client is not imported."""
    request = CheckpointRequest(weights=True)
    repository = card.hub or card.modelscope
    places = [Path(repository), zoo_home() / "checkpoints" / repository] if repository else []
    if card.bundled_folder:
        places.insert(0, card.bundled_folder)
    if card.hub:
        snapshots = download.cached_repository(card.hub) / "snapshots"
        places += [snapshots / card.revision] if card.revision else sorted(snapshots.glob("*"))
    return next((place for place in places if not request.lacks(place)), None)


def _served(folder: Path, source: str, revision: str | None) -> Checkpoint:
    logger.info("checkpoint: %s (%s)%s", folder, source, f" at revision {revision}" if revision else "")
    return Checkpoint(folder=folder, served_by=source, revision=revision)


def _sources(card: ModelCard) -> Iterator[tuple[str, Source]]:
    if card.bundled:
        yield "bundled with its card", lambda card, request: _folder(card.folder / str(card.bundled), request)
    repository = card.hub or card.modelscope
    if repository:
        yield f"./{repository}", lambda card, request: _folder(Path(repository), request)
        yield "$ZOO_HOME/checkpoints", lambda card, request: _folder(zoo_home() / "checkpoints" / repository, request)
    if card.hub:
        yield "Hugging Face cache", _hub_cache
        yield f"hub ({hub_endpoint()})", _hub
    if card.modelscope:
        yield "ModelScope", _modelscope


def _folder(folder: Path, request: CheckpointRequest) -> Path | str:
    try:
        lacks = request.lacks(folder)
    except OSError as error:  # another user's folder
        return f"{folder} cannot be read: {reason(error)}"
    return f"{folder} {lacks}" if lacks else folder


def is_offline(asked: bool) -> bool:
    """Whether the network must not be touched: asked for, or ``HF_HUB_OFFLINE`` is set."""
    return asked or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}


def _hub_cache(card: ModelCard, request: CheckpointRequest) -> Path | str:
    return _complete(download.from_hub_cache(card), request)


def _hub(card: ModelCard, request: CheckpointRequest) -> Path | str:
    def fetch(patterns: list[str], before: Path | None) -> Path | str:
        # Without a pinned revision the second part must be of the commit that the first one was of.
        pinned = card if card.revision or before is None else structs.replace(card, revision=before.name)
        return download.from_hub(pinned, patterns)

    return _fetched(request, fetch)


def _modelscope(card: ModelCard, request: CheckpointRequest) -> Path | str:
    return _fetched(request, lambda patterns, before: download.from_modelscope(card, patterns))


def _fetched(request: CheckpointRequest, fetch: Callable[[list[str], Path | None], Path | str]) -> Path | str:
    """The small files first, so that the request can be refused before gigabytes are fetched.

    Pickled weights are fetched only if they are accepted and the repository has no others. ``fetch`` gets the patterns, and the folder
    of the first fetch once there is one.
    """
    if is_offline(request.offline):
        return "not asked (offline)"
    patterns = [*request.requires.files, *request.requires.optional_files]
    small = replace(request, weights=False)
    answer = _complete(fetch(patterns, None), small)
    if isinstance(answer, str) or not request.weights:
        return answer
    request.before_download(answer)
    first = answer
    answer = _complete(fetch([*patterns, *WEIGHT_PATTERNS], first), request)
    if isinstance(answer, str) and request.pickled:
        return _complete(fetch([*patterns, *WEIGHT_PATTERNS, *PICKLED_PATTERNS], first), request)
    return answer


def _complete(folder: Path | str, request: CheckpointRequest) -> Path | str:
    """``folder`` unless something is missing: a snapshot exists from its first file on."""
    if isinstance(folder, str):
        return folder
    answer = _folder(folder, request)
    if isinstance(answer, str):
        return answer
    if request.weights and not onnx_file(folder):
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
            f"  - put the files of {repository} into ./{repository}, or name their folder as the checkpoint folder",
            "  - behind a mirror: set HF_ENDPOINT to its address",
            "  - with an ONNX file: name it as the model file, and a folder with tokenizer.json and config.json as the checkpoint folder",
        ]
    return [*ways, "  - to see the program work without weights: run the model zoo-reranker-tiny"]
