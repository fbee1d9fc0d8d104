"""The folder of artifacts: one folder a key, made beside and renamed when its manifest is written.

Whoever makes an artifact holds the key's lock, which the system releases when its process dies. So a temporary folder whose key's
lock is free belongs to nobody and is swept away.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from zoo.checkpoints.digests import Digests
from zoo.errors import InputError, ZooError
from zoo.export import manifest
from zoo.export.manifest import Manifest
from zoo.files import make_folder, reason, size_of
from zoo.paths import zoo_home

logger = logging.getLogger(__name__)

MAKING = ".making-"
"""Between a key and a random ending in the name of a folder that is being filled."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One artifact. ``damage`` says why it cannot be used."""

    key: str
    folder: Path
    manifest: Manifest | None
    damage: str = ""

    @property
    def used_at(self) -> float:
        """When a run last opened it, in seconds since the epoch."""
        try:
            return (self.folder / manifest.NAME).stat().st_mtime
        except OSError:
            return 0.0

    def touch(self) -> None:
        """A run opens it now."""
        with suppress(OSError):  # a cache that can only be read is a cache all the same
            os.utime(self.folder / manifest.NAME)


class Store:
    """Artifacts under ``root`` (``$ZOO_HOME/artifacts``)."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or zoo_home() / "artifacts"
        self.locks = self.root.parent / "locks"
        self.digests = Digests(self.root.parent / "digests.json")

    def find(self, key: str) -> Entry | None:
        """The artifact of ``key`` as it is on disk, whole or damaged; None where there is none."""
        folder = self.root / key
        with self._usable():
            there = folder.is_dir()
        return self._entry(folder, fresh=False) if there else None

    def is_writable(self) -> bool:
        """Whether something can be made in it."""
        try:
            self._prepare()
        except ZooError:
            return False
        return all(os.access(folder, os.W_OK | os.X_OK) for folder in (self.root, self.locks))

    def entries(self, *, fresh: bool = False) -> Iterator[Entry]:
        """Every finished artifact by name; ``fresh`` reads every byte again instead of trusting times and sizes."""
        for folder in self.folders():
            yield self._entry(folder, fresh=fresh)

    def folders(self) -> list[Path]:
        """Folders of finished artifacts, by name."""
        with self._usable():
            here = sorted(self.root.iterdir()) if self.root.is_dir() else []
            return [folder for folder in here if folder.is_dir() and MAKING not in folder.name]

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ZooError(f"cannot use the folder {self.root}: {reason(error)}. Set ZOO_HOME to another") from error

    def _entry(self, folder: Path, *, fresh: bool) -> Entry:
        try:
            found = manifest.read(folder)
        except InputError as error:
            return Entry(key=folder.name, folder=folder, manifest=None, damage=f"its manifest {error.problem}")
        damage = manifest.damage(found, folder, self.digests, fresh=fresh)
        if not damage and found.key != folder.name:
            damage = f"its manifest is that of {found.key}"
        return Entry(key=folder.name, folder=folder, manifest=found, damage=damage)

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Hold ``key`` for this process; if another process holds it, that is logged and waited for."""
        self._prepare()
        lock = FileLock(self.locks / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("another process is making %s; waiting for it", key)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def filling(self, key: str, needed: int) -> Iterator[Path]:
        """An empty folder to make ``key`` in, by the holder of its lock. It is gone after the block unless ``publish`` took it.

        Raises ZooError before anything is written where fewer than ``needed`` bytes are free.
        """
        self._sweep(held=key)
        shutil.rmtree(self.root / key, ignore_errors=True)
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise ZooError(_too_full(self.root, needed, free))
        folder = Path(tempfile.mkdtemp(prefix=f"{key}{MAKING}", dir=self.root))
        try:
            yield folder
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ZooError(_too_full(self.root, needed, shutil.disk_usage(self.root).free)) from error
            raise ZooError(f"cannot write to {self.root}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, made: Manifest, folder: Path) -> Path:
        """Write the manifest, then give the folder its name."""
        manifest.write(made, folder)
        folder.chmod(0o755)
        place = folder.rename(self.root / made.key)
        self.digests.moved({folder / name: place / name for name in made.files})
        return place

    def remove(self, key: str) -> None:
        """Delete one artifact, waiting for whoever is making it."""
        with self.locked(key):
            shutil.rmtree(self.root / key, ignore_errors=True)

    def sweep(self) -> int:
        """Delete temporary folders of processes that are gone; how many bytes that gave back."""
        return self._sweep(held=None)

    def leftovers(self) -> int:
        """How many bytes ``sweep`` would give back."""
        return self._sweep(held=None, delete=False)

    def _sweep(self, held: str | None, *, delete: bool = True) -> int:
        freed = 0
        if self.root.is_dir():
            self._prepare()
        for folder in self.root.glob(f"*{MAKING}*"):
            key = folder.name.rpartition(MAKING)[0]
            if key == held:
                freed += _clear(folder, delete)
                continue
            try:
                with FileLock(self.locks / f"{key}.lock").acquire(timeout=0):
                    freed += _clear(folder, delete)
            except Timeout:
                continue  # its maker lives
        return freed

    def _prepare(self) -> None:
        for folder in (self.root, self.locks):
            make_folder(folder, "Set ZOO_HOME to another")


def _clear(folder: Path, delete: bool) -> int:
    size = size_of(folder)
    if delete:
        shutil.rmtree(folder, ignore_errors=True)
    return size


def _too_full(place: Path, needed: int, free: int) -> str:
    return (
        f"making the model file takes about {needed / 1e9:.2f} GB of disk in {place}, and {free / 1e9:.2f} GB are free. "
        "Free some (zoo cache prune), or set ZOO_HOME to a folder on a larger disk"
    )
