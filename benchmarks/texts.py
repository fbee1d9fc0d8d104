"""Passages to measure with: real sentences, put together anew so that no two passages are equal."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zoo.paths import bundled

SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？\n]*\s*")


def corpora(given: Sequence[Path]) -> list[Path]:
    """JSON-lines files with a ``text`` a line: those given, else the bundled miniature's, English and Chinese."""
    files = list(given) or sorted(bundled("datas").glob("mldr-mini/data/*/corpus.jsonl"))
    if not files:
        raise SystemExit("no texts: name JSON-lines files that have a 'text' in each line with --corpus")
    return files


def sentences(file: Path) -> list[str]:
    """Sentences of one corpus, at most a few ten thousand."""
    found: list[str] = []
    with file.open(encoding="utf-8") as handle:
        for line in handle:
            found += SENTENCE.findall(json.loads(line)["text"])
            if len(found) > 50_000:
                break
    return found


def passages(files: Iterable[Path], count: int, characters: int, seed: int = 0) -> Iterator[str]:
    """``count`` different passages of about ``characters`` on average (half to twice that), each from one corpus, by turns."""
    pools = [sentences(file) for file in files]
    choose = random.Random(seed)
    for number in range(count):
        pool = pools[number % len(pools)]
        wanted = characters * choose.triangular(0.5, 2.0, 0.5)
        parts: list[str] = []
        length = 0
        while length < wanted:
            parts.append(choose.choice(pool))
            length += len(parts[-1])
        yield "".join(parts)
