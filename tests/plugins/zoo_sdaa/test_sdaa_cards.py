"""SDAA's cards: which are used, how many SPAs they have, and what teco-smi tells of them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Zoo
from sdaa_fixtures import Run, fails, lines, scores
from zoo_sdaa import cards
from zoo_sdaa.testing import Fake, Machine, fake_sdaa

pytest.importorskip("onnx")


@pytest.mark.parametrize("layout", ["1.15", "1.10"])
@pytest.mark.parametrize("rows", ["spa", "card"])
@pytest.mark.parametrize(
    "sick", [{"health": {"0": "DEVICE_LOST", "1": "HEARTBEAT_ERROR"}}, {"dropped": (0, 1)}], ids=["health", "dropped"]
)
def test_without_a_choice_the_first_healthy_card_is_used(
    run: Run, tmp_path: Path, rows: Any, layout: Any, sick: dict[str, Any]
) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=4, rows=rows, layout=layout, **sick)) as fake:
        result = run()
        assert len(scores(result)) == 2
        assert [call["card"] for call in fake.events("call")] == [2]
    reason = "DEVICE_LOST" if "health" in sick else "SPE-Util N/A (dropped out)"
    assert f"sdaa:2 is used: cards before it are not healthy: sdaa:0 ({reason})" in result.stderr


@pytest.mark.parametrize("rows", ["spa", "card"])
def test_a_card_that_is_not_healthy_is_not_used(run: Run, tmp_path: Path, rows: Any) -> None:
    with fake_sdaa(tmp_path / "one", Machine(rows=rows, health={"0": "FAULT"})):
        fails(run(), "no card is healthy (0:FAULT)")
    with fake_sdaa(tmp_path / "two", Machine(cards=3, rows=rows, health={"0": "FAULT"}, dropped=(2,))):
        fails(run(target="sdaa:0"), "sdaa:0 is not healthy: teco-smi says 'FAULT'")
        fails(run(target="sdaa:all"), "sdaa:0 is not healthy: teco-smi says 'FAULT'")
        fails(run(target="sdaa:1,2"), "sdaa:2 is not healthy: teco-smi says 'SPE-Util N/A")
        assert len(scores(run(target="sdaa:1"))) == 2


def test_four_cards_share_the_work_and_give_one_cards_scores_in_order(run: Run, tmp_path: Path) -> None:
    pairs = lines(60)
    arguments = ("--batch-size", 4, "--data-path", "-")
    with fake_sdaa(tmp_path / "one"):
        alone = run(*arguments, input=pairs)
    for target in ("sdaa:all", "sdaa:0,1,2,3"):
        with fake_sdaa(tmp_path / target[5:], Machine(cards=4, device_seconds=0.05)) as fake:
            together = run(*arguments, target=target, input=pairs)
            assert scores(together) == scores(alone)
            assert {call["card"] for call in fake.events("call")} == set(range(4))
            assert len({engine["pid"] for engine in fake.events("engine")} | {os.getpid()}) == 5
    assert together.stdout == alone.stdout


@pytest.mark.parametrize("rows", ["spa", "card"])
def test_a_target_picks_a_card_in_both_layouts_of_teco_smi(run: Run, tmp_path: Path, rows: Any) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=3, rows=rows)) as fake:
        assert len(scores(run(target="sdaa:1"))) == 2
        assert len(scores(run("--card-id", 2))) == 2
        assert [call["card"] for call in fake.events("call")] == [1, 2]
        fails(run("--card-id", 0, target="sdaa:1"), "--target sdaa:1", "card_id=0 differ")


@pytest.mark.parametrize("target", ["sdaa", "sdaa:0", "sdaa:all"])
def test_a_card_of_three_spas_is_used_whole_however_it_is_chosen(run: Run, tmp_path: Path, target: str) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=2, spas=3)) as fake:
        assert len(scores(run("--batch-size", 6, target=target))) == 2
        assert fake.events("call")[0]["rows"] == 6
        assert fake.events("build")[0]["shapes"] == {"input_ids": [2, 64], "attention_mask": [2, 64]}


@pytest.mark.parametrize("target", ["sdaa", "sdaa:0", "sdaa:all"])
def test_more_spas_than_a_card_has_are_refused_before_compiling(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=2, spas=3)) as fake:
        monkeypatch.setenv("MAX_ENGINE_NUMS", "4")
        fails(run(target=target), "MAX_ENGINE_NUMS is 4", "sdaa:0 has 3 SPAs")
        monkeypatch.setenv("MAX_ENGINE_NUMS", "2")
        assert len(scores(run("--batch-size", 6, target=target))) == 2
        assert [build["shapes"]["input_ids"] for build in fake.events("build")] == [[3, 64]]


def test_cards_with_different_numbers_of_spas_are_refused_before_compiling(
    run: Run, fake: Fake, tmp_path: Path
) -> None:
    table = OLDER.replace("| N/A ", "| OK  ").replace("                 N/A |", "                  0% |")
    (tmp_path / "fake" / "teco-smi.txt").write_text(table)
    fails(run(target="sdaa:all"), "same number of SPAs (sdaa:0 has 2, sdaa:1 has 1)")
    assert not fake.events("build")


def test_sdaa_visible_devices_of_the_users_own_is_kept_and_counted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=2)) as fake:
        monkeypatch.setenv("SDAA_VISIBLE_DEVICES", "4,5")
        assert len(scores(run("--batch-size", 8))) == 2
        assert [(call["card"], call["rows"]) for call in fake.events("call")] == [(1, 8)]
        assert fake.events("build")[0]["shapes"]["input_ids"] == [4, 64]
        monkeypatch.setenv("MAX_ENGINE_NUMS", "4")
        fails(run(), "MAX_ENGINE_NUMS is 4", "sdaa:1 has 2 SPAs")


def test_of_visible_devices_those_of_the_first_healthy_card_are_used(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=3, health={"1": "DEVICE_LOST"})) as fake:
        monkeypatch.setenv("SDAA_VISIBLE_DEVICES", "4,5,8,9,10")
        assert len(scores(run())) == 2
        assert [call["card"] for call in fake.events("call")] == [2]
        assert fake.events("build")[0]["shapes"]["input_ids"] == [1, 64]
        monkeypatch.setenv("SDAA_VISIBLE_DEVICES", "4,5")
        fails(run(), "no card is healthy (1:DEVICE_LOST)")


def test_a_choice_of_cards_and_sdaa_visible_devices_exclude_each_other(
    run: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDAA_VISIBLE_DEVICES", "0,1,2,3")
    fails(run(target="sdaa:0"), "SDAA_VISIBLE_DEVICES", "not by both")
    assert len(scores(run())) == 2


@pytest.mark.parametrize(
    ("how", "said"), [("error", "error 719, the device is lost"), ("exit", "has died: it was ended by SIGKILL")]
)
def test_a_card_that_dies_in_the_middle_is_named_and_the_others_are_released(
    run: Run, tmp_path: Path, how: Any, said: str
) -> None:
    machine = Machine(cards=4, lose=2, lose_at=2, lose_how=how)
    with fake_sdaa(tmp_path / "fake", machine, leaks=True) as fake:
        result = run("--batch-size", 4, "--data-path", "-", target="sdaa:all", input=lines(600))
        assert result.exit_code == 1
        assert "Error: sdaa:2 " in result.stderr
        assert said in result.stderr
        assert len(fake.leaks()) == (0 if how == "error" else 2)


def test_a_card_that_hangs_among_several_is_named(run: Run, tmp_path: Path) -> None:
    machine = Machine(cards=2, lose=1, lose_how="hang")
    with fake_sdaa(tmp_path / "fake", machine, leaks=True):
        result = run(
            "--batch-size", 4, "--data-path", "-", "--device-option", "timeout=1", target="sdaa:0,1", input=lines(600)
        )
    assert result.exit_code == 1
    assert "Error: sdaa:1 (process " in result.stderr
    assert "has not answered for 1 s" in result.stderr


def test_a_cards_fault_when_opening_is_named(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=2, without=("tvm.relay.build",))):
        fails(run(target="sdaa:1"), "sdaa:1: this runtime", "has no 'tvm.relay.build'")


# What zoo devices and teco-smi tell.


def test_zoo_devices_tells_cards_health_memory_and_versions(zoo: Zoo, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=2, health={"1": "ERR"})):
        result = zoo("devices", "--json")
    row = next(row for row in json.loads(result.stdout) if row["name"] == "sdaa")
    assert row["available"]
    assert row["precisions"] == ["fp16"]
    assert row["details"] == {
        "cards": "2",
        "health": "0:OK 1:ERR",
        "memory": "0MB of 15296MB in use",
        "driver": "3.2.0",
        "runtime": "3.2.0",
        "generation": "1 (installed: tvm)",
        "MAX_ENGINE_NUMS": "4",
    }


def test_zoo_devices_tells_the_generation_and_the_spas_that_a_run_would_use(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def details() -> Any:
        return next(row for row in json.loads(zoo("devices", "--json").stdout) if row["name"] == "sdaa")["details"]

    with fake_sdaa(tmp_path / "fake", Machine(generation=2, both=True, spas=3)):
        assert details()["generation"] == "2 (installed: tvm and tecoinference)"
        assert details()["MAX_ENGINE_NUMS"] == "3"
        monkeypatch.setenv("TECO_INFER_TVM_RUN", "yes")
        assert details()["generation"] == "1 (installed: tvm and tecoinference)"


def test_probing_does_not_import_the_runtime(zoo: Zoo, fake: Fake) -> None:
    assert zoo("devices").exit_code == 0
    assert "tvm" not in sys.modules


def test_zoo_doctor_shows_the_device(zoo: Zoo, fake: Fake) -> None:
    assert "sdaa" in zoo("doctor", "--offline").stdout


OLDER = """
Wed Jun  5 02:46:48 2024
+-----------------------------------------------------------------------------+
|  TCML: 1.10.0        SDAADriver: 1.1.2b1        SDAARuntime: 1.1.2b0        |
|-------------------------------+----------------------+----------------------|
| Index  Name                   | Bus-Id               | Health      Volatile |
|        Temp          Pwr Usage|          Memory-Usage|             SPE-Util |
|=============================================================================|
|   0    TECO_AICARD_01         | 00000000:01:00.0     | OK                   |
|        35C                90W |        0MB / 15296MB |                   0% |
|-------------------------------+----------------------+----------------------|
|   1    TECO_AICARD_01         | 00000000:01:00.0     | OK                   |
|        35C                90W |      165MB / 15296MB |                   0% |
|-------------------------------+----------------------+----------------------|
|   2    TECO_AICARD_01         | 00000000:02:00.0     | N/A                  |
|        41C               110W |      100MB / 15296MB |                  N/A |
+-------------------------------+----------------------+----------------------+
| Processes:                                                                  |
|  Device       PID      Process name                            Memory Usage |
|     0      2345        python                                       165 MB  |
"""


def test_the_published_output_of_an_older_teco_smi_is_read() -> None:
    listing = cards.parse(OLDER)
    assert listing.versions == {"driver": "1.1.2b1", "runtime": "1.1.2b0"}
    assert listing.rows_are_spas
    assert [(card.number, card.devices, card.health) for card in listing.cards] == [(0, "0,1", "OK"), (1, "2", "N/A")]
    assert [row.memory for row in listing.cards[0].rows] == ["0MB of 15296MB", "165MB of 15296MB"]


def test_n_a_means_a_lost_card_under_spe_util_and_nothing_elsewhere() -> None:
    lost = OLDER.replace("| N/A ", "| OK  ")
    assert [card.healthy for card in cards.parse(lost).cards] == [True, False]
    elsewhere = (
        lost.replace("                 N/A |", "                  0% |").replace("110W", " N/A").replace("41C", "N/A")
    )
    assert "N/A" in elsewhere
    assert [card.healthy for card in cards.parse(elsewhere).cards] == [True, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("no devices were found", []),
        ("2026-11-23 04:00:00", []),
        ("Card 0: T1 Health: OK memory 0MB / 15296MB\nCard 1: T1 Health: Fault", [(0, "OK"), (1, "Fault")]),
        ("0 TECO_AICARD_01 OK\n1 TECO_AICARD_01 OK", [(0, "OK"), (1, "OK")]),
        ("| 0 | TECO | 00000000:01:00.0 | OK | 35C | 0MB / 15296MB |", [(0, "OK")]),
        ("| 0 | TECO | 00000000:01:00.0 |", [(0, "unknown")]),
        ("Card 0: Health: OK SPE-Util: 3%\nCard 1: Health: HEARTBEAT_ERROR", [(0, "OK"), (1, "HEARTBEAT_ERROR")]),
        ("Card 0: Health: OK SPE-Util: N/A", [(0, "SPE-Util N/A (dropped out)")]),
        (
            "| Index | Bus-Id | Health | SPE-Util | Temp |\n| 0 | 00000000:01:00.0 | OK | 0% | N/A |\n"
            "| 1 | 00000000:02:00.0 | OK | N/A | 35C |",
            [(0, "OK"), (1, "SPE-Util N/A (dropped out)")],
        ),
    ],
)
def test_other_forms_of_the_list_are_read_by_what_they_contain(text: str, expected: list[tuple[int, str]]) -> None:
    assert [(card.number, card.health) for card in cards.parse(text).cards] == expected
