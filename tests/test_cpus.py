"""A process uses the threads it is given, not those the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zoo.cli.threads import bound_tokenizer
from zoo.cpus import cgroup_quota, usable_threads


def cgroup(tmp_path: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    root = tmp_path / "cgroup"
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    own = tmp_path / "self"
    own.write_text(membership)
    return root, own


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/pod/box\n", {"pod/box/cpu.max": "max 100000\n", "pod/cpu.max": "50000 100000\n"}, 0.5),
        (
            "4:cpu,cpuacct:/box\n",
            {"cpu/box/cpu.cfs_quota_us": "200000\n", "cpu/box/cpu.cfs_period_us": "100000\n"},
            2.0,
        ),
        ("4:cpu,cpuacct:/box\n", {"cpu/box/cpu.cfs_quota_us": "-1\n", "cpu/box/cpu.cfs_period_us": "100000\n"}, None),
        ("3:memory:/box\n", {"memory/box/cpu.max": "1 100000\n"}, None),
        ("0::/\n", {"cpu.max": "not numbers at all"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_the_tightest_quota_of_either_cgroup_version_counts(
    tmp_path: Path, membership: str, files: dict[str, str], expected: float | None
) -> None:
    assert cgroup_quota(*cgroup(tmp_path, membership, files)) == expected


def test_a_quota_is_rounded_up_and_never_exceeds_the_affinity(tmp_path: Path) -> None:
    own = len(os.sched_getaffinity(0))
    assert usable_threads(*cgroup(tmp_path / "small", "0::/\n", {"cpu.max": "20000 100000"})) == 1
    assert usable_threads(*cgroup(tmp_path / "large", "0::/\n", {"cpu.max": "99900000 100000"})) == own
    assert usable_threads(tmp_path / "none", tmp_path / "none") == own


def test_affinity_is_honoured() -> None:
    whole = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(whole)})
        assert usable_threads() == 1
    finally:
        os.sched_setaffinity(0, whole)


def test_the_tokenizer_is_bound_to_the_threads_asked_for_unless_the_user_has_said_otherwise() -> None:
    environment: dict[str, str] = {}
    bound_tokenizer(3, environment)
    assert environment == {"RAYON_NUM_THREADS": "3", "TOKENIZERS_PARALLELISM": "true"}
    bound_tokenizer(5, environment)
    assert environment["RAYON_NUM_THREADS"] == "3"
    chosen_by_user = {"TOKENIZERS_PARALLELISM": "false"}
    bound_tokenizer(None, chosen_by_user)
    assert chosen_by_user["TOKENIZERS_PARALLELISM"] == "false"
    assert int(chosen_by_user["RAYON_NUM_THREADS"]) >= 1
