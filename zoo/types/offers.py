"""What a plugin may bring beside models, devices and steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CommandOffer:
    """A command that a plugin adds to ``zoo``: its one-line summary, and the click command as ``package.module:attribute``."""

    summary: str
    command: str


@dataclass(frozen=True, kw_only=True)
class CacheFolder:
    """A folder below ZOO_HOME, called ``name``, in which a plugin keeps what can be made again; ``zoo cache`` shows and empties it."""

    name: str
    holds: str
    """What lies there, in words: 'compiled engines'."""
