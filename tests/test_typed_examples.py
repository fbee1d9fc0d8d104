"""What users write to the documentation passes mypy's strict checks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = [pytest.mark.types]

pytest.importorskip("mypy", reason="checks types (tox -e types)")

SECONDS = 600
"""One cold run of mypy over all that zoo imports takes a minute on two cores; one that hangs must not hold up the rest."""
PAGES = {"python.md": None, "plugins.md": None, "tutorials/reranker.md": 1, "tutorials/device.md": 1}
"""Pages, and how many of their examples stand alone; a tutorial's others import the first."""


def mypy(*arguments: str, cwd: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail(f"mypy has not ended after {SECONDS} s")
    assert done.returncode == 0, done.stdout + done.stderr


def test_examples_and_the_outside_package_pass_strict_type_checks(tmp_path: Path) -> None:
    """In one run, because reading zoo and what it imports is what takes the time."""
    files = []
    for page, count in PAGES.items():
        examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
        assert examples, page
        for number, example in enumerate(examples[:count]):
            files.append(tmp_path / f"{Path(page).stem.replace('-', '_')}_{number}.py")
            files[-1].write_text(example, encoding="utf-8")
    package = ROOT / "tests" / "external" / "zoo-example" / "zoo_example"
    mypy(*map(str, files), str(package), cwd=tmp_path)
