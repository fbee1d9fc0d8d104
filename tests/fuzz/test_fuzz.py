"""Damaged files end in a result or in a ZooError, whoever reads them: no traceback, no hang, no crash.

Seed and number of cases are fixed here; ``tests/fuzz/fuzzing.py`` runs by hand for as long as there is time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzzing import attacked
from readers import READERS

pytestmark = pytest.mark.lowest

SHARE = 3
"""A third of the cases that a reader names: all readers together take about a minute."""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of memory are those of POSIX")
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_in_words(name: str) -> None:
    cases = READERS[name]().cases // SHARE
    found, failures = attacked(name, seed=14, cases=cases)
    assert failures == []
    assert found == cases
