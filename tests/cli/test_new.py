"""``zoo new`` writes packages that work as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, Zoo
from zoo.cli.new import SUMMARIES

KINDS = sorted(SUMMARIES)


def written(zoo: Zoo, kind: str, into: Path) -> Path:
    done = zoo("new", kind, f"my-{kind}", "--into", into)
    assert done.exit_code == 0, done.stderr
    folder = into / f"my-{kind}"
    printed = [Path(line) for line in done.stdout.splitlines()]
    assert folder / "pyproject.toml" in printed
    assert all(path.is_file() for path in printed)
    return folder


def run(folder: Path, *module: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])}
    done = subprocess.run(
        [sys.executable, "-m", *module], cwd=folder, capture_output=True, text=True, check=False, env=environment,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_a_new_package_pass_as_they_are_written(kind: str, zoo: Zoo, tmp_path: Path) -> None:
    if kind in ("device", "step"):
        pytest.importorskip("onnx", reason="the model of these contracts is written with it")
    printed = run(written(zoo, kind, tmp_path), "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    assert " passed" in printed
    assert "failed" not in printed


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_is_clean_by_ruff(kind: str, zoo: Zoo, tmp_path: Path) -> None:
    pytest.importorskip("ruff", reason="checks style")
    folder = written(zoo, kind, tmp_path)
    run(folder, "ruff", "check", "--no-cache")
    run(folder, "ruff", "format", "--check", "--no-cache")


@pytest.mark.types
def test_new_packages_pass_strict_type_checks(zoo: Zoo, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="checks types (tox -e types)")
    folders = [written(zoo, kind, tmp_path) for kind in KINDS]
    files = [str(path.relative_to(tmp_path)) for folder in folders for path in folder.rglob("*.py")]
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = True\nmypy_path = {':'.join(map(str, folders))}\n")
    run(tmp_path, "mypy", "--explicit-package-bases", *files)


def test_a_name_that_would_hide_another_package_is_refused(zoo: Zoo) -> None:
    for name in ("json", "class", "zoo", "My-Device", "1st", "a--b"):
        done = zoo("new", "metric", name)
        assert done.exit_code == 1
        assert f"'{name}'" in done.stderr


def test_a_folder_that_exists_is_left_as_it_is(zoo: Zoo, tmp_path: Path) -> None:
    folder = tmp_path / "hit-rate"
    folder.mkdir()
    done = zoo("new", "metric", "hit-rate", "--into", tmp_path)
    assert done.exit_code == 1
    assert "exists already" in done.stderr
    assert list(folder.iterdir()) == []


def test_a_kind_that_does_not_exist_is_an_error_of_usage(zoo: Zoo) -> None:
    assert zoo("new", "tokenizer", "mine").exit_code == 2


def test_a_package_is_whole_though_its_files_cannot_be_listed(tmp_path: Path) -> None:
    argv = f'"{sys.executable}" -m zoo new metric my-metric --into "{tmp_path}" >&-'
    done = subprocess.run(["bash", "-c", argv], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "standard output is closed" in done.stderr
    assert {"pyproject.toml", "README.md", "my_metric", "tests"} <= {
        path.name for path in (tmp_path / "my-metric").iterdir()
    }
