"""Model files that not every node has, sent through Ray's object store."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from zoo.checkpoints.digests import sha256
from zoo.checkpoints.files import model_files
from zoo.files import make_folder
from zoo.paths import RECEIVED, zoo_home
from zoo.ray.imports import import_ray
from zoo.settings import RunSettings

PART = 256 << 20
"""Bytes of an object: a node that fetches one holds it in memory."""


@dataclass(frozen=True)
class SentFiles:
    """The files of a folder as objects. ``key`` is a digest of their names and contents."""

    key: str
    parts: Mapping[str, Sequence[Any]] = field(repr=False)

    @classmethod
    def put(cls, files: Mapping[str, Path]) -> SentFiles:
        """Put ``files``, by their names in the folder, into the object store of this node."""
        ray = import_ray()
        names = sorted(files)
        digest = hashlib.sha256(" ".join(f"{name} {sha256(files[name])}" for name in names).encode()).hexdigest()
        return cls(digest[:32], {name: [ray.put(part) for part in _parts(files[name])] for name in names})

    def received(self) -> Path:
        """The folder with the files on this node; the first process that asks fetches them."""
        ray = import_ray()
        home = make_folder(zoo_home() / RECEIVED.name)
        folder = home / self.key
        with FileLock(home / f"{self.key}.lock"):
            if folder.is_dir():
                return folder
            aside = Path(tempfile.mkdtemp(prefix=f"{self.key}.", dir=home))
            try:
                for name, parts in self.parts.items():
                    (aside / name).parent.mkdir(parents=True, exist_ok=True)
                    with (aside / name).open("wb") as handle:
                        for part in parts:
                            handle.write(ray.get(part))
                os.replace(aside, folder)  # noqa: PTH105  # a folder that is complete gets its name
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
        return folder


@dataclass(frozen=True, kw_only=True)
class SentModel:
    """What of a model's files is sent: its folder, its model file, both or none. Every node finds by itself what is None."""

    folder: SentFiles | None = None
    model: SentFiles | None = None

    @classmethod
    def of(cls, settings: RunSettings, missing: frozenset[Path]) -> SentModel:
        """Send what the settings name if it is ``missing`` on a node."""
        folder = model = None
        if settings.config_path in missing and settings.config_path is not None:
            below = (path for path in sorted(settings.config_path.rglob("*")) if path.is_file())
            folder = SentFiles.put({path.relative_to(settings.config_path).as_posix(): path for path in below})
        if settings.ckpt in missing and settings.ckpt is not None:
            beside = model_files(settings.ckpt) if settings.ckpt.suffix == ".onnx" else [settings.ckpt]
            model = SentFiles.put({path.relative_to(settings.ckpt.parent).as_posix(): path for path in beside})
        return cls(folder=folder, model=model)

    def settings(self, settings: RunSettings) -> RunSettings:
        """``settings`` with the places that the files have on this node."""
        if self.folder is not None:
            settings = replace(settings, config_path=self.folder.received())
        if self.model is not None and settings.ckpt is not None:
            settings = replace(settings, ckpt=self.model.received() / settings.ckpt.name)
        return settings


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        while part := handle.read(PART):
            yield part
