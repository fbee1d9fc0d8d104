"""The marks of hook specifications and of their implementations."""

from __future__ import annotations

import pluggy

PROJECT = "zoo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

API_VERSION = 1
"""Version of ``zoo.api``; raised when a plugin written for the one before would not work."""

STAGES = ("export", "preprocess", "infer", "postprocess", "evaluate")
