"""The commands that tell: models, devices, plugins, doctor; help and its promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from command_line import commands
from conftest import ROOT, Zoo
from zoo import __version__
from zoo.cli import COMMANDS, SUMMARIES
from zoo.errors import suggestion

pytestmark = [pytest.mark.lowest, pytest.mark.any_device]

HEAVY = {
    "torch",
    "transformers",
    "optimum",
    "onnx",
    "onnxruntime",
    "onnxsim",
    "tvm",
    "numpy",
    "tokenizers",
    "huggingface_hub",
    "openvino",
}


LIGHT = ["--help", "--version", "run --help", "models", "devices", "plugins", "doctor --offline"]
FAULTY = ["run", "run zoo-reranker-tiny --batch-size x", "rnu", "models --jsno"]


@pytest.mark.parametrize("args", LIGHT + FAULTY)
def test_help_lists_and_usage_errors_import_nothing_heavy(args: str) -> None:
    code = f"import sys; from zoo.cli import main; main({args.split()!r}, standalone_mode=False)"
    finder = f"import sys\ntry:\n    exec({code!r})\nexcept BaseException: pass\nprint(*(m for m in {HEAVY!r} if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", finder], capture_output=True, text=True, check=True)
    imported = result.stdout.splitlines()[-1].split()
    assert imported == []


def test_python_dash_m_zoo_is_the_same_command() -> None:
    result = subprocess.run([sys.executable, "-m", "zoo", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"zoo, version {__version__}\n"


def test_every_command_and_option_has_help() -> None:
    for name, command in commands():
        assert command.help, name
        if name in SUMMARIES:
            assert command.help.splitlines()[0] == SUMMARIES[name], "zoo --help and the command's own help must agree"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_every_command_and_option_appears_in_a_test() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name, command in commands():
        called = ", ".join(f'"{word}"' for word in name.split())
        assert called in tests, f"no test calls zoo {name}"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                spellings = [*parameter.opts, *parameter.secondary_opts]
                assert any(re.search(rf'["\s]{re.escape(s)}["\s=]', tests) for s in spellings), f"{name} {spellings}"


def test_every_command_has_a_module_of_its_own() -> None:
    assert set(COMMANDS) == set(SUMMARIES)
    for name, module in COMMANDS.items():
        assert module == f"zoo.cli.{name}"


@pytest.mark.parametrize(
    ("typed", "meant"), [("rnu", "run"), ("modles", "models"), ("doktor", "doctor"), ("device", "devices")]
)
def test_a_misspelt_command_gets_a_suggestion(zoo: Zoo, typed: str, meant: str) -> None:
    result = zoo(typed)
    assert result.exit_code == 2
    assert f"Did you mean '{meant}'?" in result.stderr


def test_nothing_close_gets_no_suggestion() -> None:
    assert suggestion("zzz", ["run", "models"]) is None


def test_models_lists_cards_with_their_facts(zoo: Zoo) -> None:
    rows = {row["name"]: row for row in json.loads(zoo("models", "--json").stdout)}
    assert rows["bge-reranker-v2-m3"]["max_length"] == 8192
    assert rows["bge-reranker-v2-m3"]["weights"] == "BAAI/bge-reranker-v2-m3"
    assert rows["zoo-reranker-tiny"]["weights"] == "bundled"
    table = zoo("models").stdout
    assert all(name in table for name in rows)
    assert "miniature" in table.lower()


def test_devices_tells_what_is_available_and_in_which_precisions(zoo: Zoo) -> None:
    rows = {row["name"]: row for row in json.loads(zoo("devices", "--json").stdout)}
    assert rows["cpu"]["available"] is True
    assert rows["cpu"]["aliases"] == ["onnx"]
    assert rows["cpu"]["precisions"][0] == "fp32"
    assert "fp16" in rows["cpu"]["on_request"]
    assert re.search(r"^cpu +yes +fp32", zoo("devices").stdout, re.MULTILINE)


def test_plugins_tells_who_brings_what(zoo: Zoo) -> None:
    rows = {row["name"]: row for row in json.loads(zoo("plugins", "--json").stdout)["plugins"]}
    assert rows["cpu"] | {"version": "", "offers": []} == {
        "name": "cpu", "distribution": "zoo-runner", "version": "", "ok": True, "error": "", "offers": [],
    }  # fmt: skip
    assert "architecture cross-encoder" in zoo("plugins").stdout


def test_doctor_is_one_page_about_this_machine(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", "/nowhere/at/all")
    sections = json.loads(zoo("doctor", "--offline", "--json").stdout)
    assert sections["versions"]["zoo"] == __version__
    assert sections["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert sections["devices"]["cpu"].startswith("available")
    assert sections["folders"]["ZOO_HOME"].startswith("/nowhere/at/all (not made yet")
    assert sections["network"]["hub"].endswith("not asked (offline)")
    page = zoo("doctor", "--offline").stdout
    assert len(page.splitlines()) <= 60
    for section, facts in sections.items():
        assert section in page
        assert all(fact in page for fact in facts)


def test_doctor_looks_at_the_cache_that_the_hubs_client_uses(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    sections = json.loads(zoo("doctor", "--offline", "--json").stdout)
    assert sections["folders"]["Hugging Face cache"].startswith(str(tmp_path / "elsewhere"))


def test_doctor_says_when_the_hub_cannot_be_reached(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    hub = json.loads(zoo("doctor", "--json").stdout)["network"]["hub"]
    assert hub.startswith("http://127.0.0.1:9 cannot be reached")


def test_a_fault_of_ours_is_reported_without_a_traceback(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.cli.doctor.examine", lambda *a, **k: 1 / 0)
    result = zoo("doctor")
    assert result.exit_code == 1
    assert "Error: internal fault, please report it: ZeroDivisionError" in result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c_ends_with_the_shells_code_for_it(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.cli.doctor.examine", interrupted)
    result = zoo("doctor", "-v")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted.\n"


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path) -> None:
    script = f"{sys.executable} -m zoo models --json | head -c 1"
    result = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True, env=os.environ | {"ZOO_HOME": str(tmp_path)}
    )
    assert result.stdout == "["
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("run", "--duration"),
        ("serve", "--cors-origin"),
        ("serve", "--max-batch-tokens"),
        ("serve", "--max-queued-tokens"),
        ("serve", "--max-documents"),
        ("serve", "--max-body"),
        ("serve", "--device-timeout"),
        ("serve", "--drain-timeout"),
        ("serve", "--otlp-endpoint"),
    ],
)
def test_help_names_it_and_a_value_is_asked_for(zoo: Zoo, command: str, option: str) -> None:
    assert option in zoo(command, "--help").stdout
    lacking = zoo(command, "zoo-reranker-tiny", option)
    assert lacking.exit_code == 2
    assert "requires an argument" in lacking.stderr
