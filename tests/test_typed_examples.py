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


@pytest.mark.parametrize("page", ["python.md", "plugins.md"])
def test_examples_pass_strict_type_checks(page: str, tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    files = []
    for number, example in enumerate(examples):
        files.append(tmp_path / f"example_{number}.py")
        files[-1].write_text(example, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", *map(str, files)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_outside_package_of_the_tests_passes_them_too() -> None:
    package = ROOT / "tests" / "external" / "zoo-example" / "zoo_example"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(package)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
