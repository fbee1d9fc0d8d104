"""The tokenizers package's own threads, which only a program that owns its process may set."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from zoo.cpus import usable_threads


def bound_tokenizer(threads: int | None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Have the tokenizers package use so many threads (None: what this process may use), unless the user has told it otherwise.

    Its thread pool reads the environment once, when it is first used, and takes the whole machine if nothing is set.
    """
    environment.setdefault("RAYON_NUM_THREADS", str(threads or usable_threads()))
    environment.setdefault("TOKENIZERS_PARALLELISM", "true")
