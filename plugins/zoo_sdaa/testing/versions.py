"""What a version of the fake runtime lacks, or has otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from zoo_sdaa.testing.machine import machine


class Versioned:
    """An object that lacks what this version of the runtime lacks."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and f"{type(self).__name__}.{name}" in machine().without:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return super().__getattribute__(name)


@contextlib.contextmanager
def as_in(version: dict[str, Any], module: str) -> Iterator[None]:
    """Take from a module's names what this version lacks, and change what it has otherwise."""
    yield
    for name in [*machine().without, *machine().changed]:
        owner, _, attribute = name.rpartition(".")
        if owner == module and attribute in version:
            if name in machine().without:
                del version[attribute]
            else:
                version[attribute] = _changed


def _changed(*, something_new: object) -> None:
    """A function as another version has it."""
