"""What lies around a command: closed and full streams, other encodings, signals, users without a home, limits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import small_collection as small
from conftest import Zoo

pytestmark = [
    pytest.mark.lowest,
    pytest.mark.skipif(os.name != "posix", reason="streams are closed and signals are sent as POSIX has them"),
]

MODEL = "zoo-reranker-tiny"
RUN = ("run", MODEL, "-q")
LISTINGS: Sequence[tuple[str, ...]] = (
    ("models",), ("models", MODEL), ("devices",), ("plugins", "--json"), ("doctor", "--offline"), ("cache", "list"),
)  # fmt: skip


def shell(redirection: str, *words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """A zoo command with its streams redirected by a shell."""
    command = f'exec "$@" {redirection}'
    argv = ["bash", "-c", command, "bash", sys.executable, "-m", "zoo", *map(str, words)]
    return subprocess.run(argv, capture_output=True, env={**os.environ, **(env or {})}, timeout=120, check=False)


def no_blame(stderr: bytes) -> None:
    assert b"Traceback" not in stderr
    assert b"internal fault" not in stderr
    assert b"Exception ignored" not in stderr


# Closed and full streams


@pytest.mark.parametrize("words", [*LISTINGS, RUN], ids=lambda words: words[0])
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_output_that_cannot_be_written_is_an_error_of_one_line(redirection: str, words: tuple[str, ...]) -> None:
    if redirection == ">/dev/full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    done = shell(redirection, *words)
    assert done.returncode == 1
    no_blame(done.stderr)
    assert b"Error: " in done.stderr
    assert b"standard output" in done.stderr


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    Path("many.jsonl").write_text('["a", "b"]\n' * 3000)
    argv = f'"{sys.executable}" -m zoo run {MODEL} -q --batch-size auto --data-path many.jsonl --json | head -n 1'
    done = subprocess.run(["bash", "-c", argv], capture_output=True, timeout=120, check=False)
    assert json.loads(done.stdout)["query"] == "a"
    no_blame(done.stderr)


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "0<&- >&- 2>&-"])
def test_results_of_valid_mode_are_kept_where_they_cannot_be_printed(redirection: str, tmp_path: Path) -> None:
    data = small.mldr(tmp_path)
    done = shell(redirection, *RUN, "--mode", "valid", "--data-path", data, "--output", "out")
    assert done.returncode == 1
    no_blame(done.stderr)
    if "2>&-" not in redirection:
        assert b"whole in out" in done.stderr
    assert json.loads(Path("out/report.json").read_text(encoding="utf-8"))["results"]
    again = shell("", *RUN, "--mode", "valid", "--data-path", data, "--output", "out", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["timing"]["batches"] == 0  # all of it came from the journal


def test_a_closed_stdin_is_named_only_where_it_is_read() -> None:
    assert shell("<&-", *RUN).returncode == 0
    asked = shell("<&-", *RUN, "--data-path", "-")
    assert asked.returncode == 1
    assert b"<stdin>: is closed" in asked.stderr
    no_blame(asked.stderr)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_scores_do_not_depend_on_whether_somebody_reads_the_messages(redirection: str) -> None:
    if redirection == "2>/dev/full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    done = shell(redirection, *RUN[:2])
    assert done.returncode == 0
    assert done.stdout.count(b"\n") == 2


# Encodings


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "latin-1", "utf-16"])
def test_results_are_utf8_whatever_the_locale_says(encoding: str) -> None:
    pair = ("😀 панда 熊猫?", "a ال b \x85")
    Path("pairs.jsonl").write_text(json.dumps(pair), encoding="utf-8")
    for words in ((), ("--json",)):
        done = shell("", *RUN, "--data-path", "pairs.jsonl", *words, env={"PYTHONIOENCODING": encoding})
        assert done.returncode == 0, done.stderr
        printed = done.stdout.decode("utf-8")
        assert "熊猫" in printed
        assert "😀" in printed


def test_results_are_utf8_in_the_c_locale() -> None:
    done = shell("", *RUN, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert done.returncode == 0, done.stderr
    assert "相似度" in done.stdout.decode("utf-8")


def test_paths_that_are_not_utf8_can_be_used_and_printed() -> None:
    name = os.fsdecode(b"caf\xe9.jsonl")
    try:
        Path(name).write_text('["a", "b"]')
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    assert shell("", *RUN, "--data-path", name).returncode == 0
    missing = shell("", *RUN, "--data-path", os.fsdecode(b"no\xe9"))
    assert missing.returncode == 1
    no_blame(missing.stderr)


# Streams as input


@pytest.mark.parametrize(
    "words", ["--data-path /dev/stdin <pairs.jsonl", "--data-path <(cat pairs.jsonl)", "--data-path fifo"]
)
def test_streams_are_read_like_files(words: str) -> None:
    Path("pairs.jsonl").write_text('["a", "b"]\n["c", "d"]\n')
    os.mkfifo("fifo")
    feeding = subprocess.Popen(["bash", "-c", "cat pairs.jsonl > fifo"]) if words.endswith("fifo") else None
    line = f'"{sys.executable}" -m zoo run {MODEL} -q --json {words}'
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=120, check=False)
    if feeding:
        feeding.kill()
        feeding.wait()
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["query"] for line in done.stdout.splitlines()] == ["a", "c"]


def test_candidates_may_come_from_a_stream_too(tmp_path: Path) -> None:
    data = small.trec(tmp_path)
    (data / "run.txt").rename("elsewhere.trec")
    line = (
        f'"{sys.executable}" -m zoo run {MODEL} -q --mode valid --data-path {data} --candidates <(cat elsewhere.trec)'
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stream_without_an_end_of_line_is_refused_at_a_stated_length() -> None:
    done = shell("</dev/zero", *RUN, "--data-path", "-")
    assert done.returncode == 1
    assert b"is longer than 64 MB" in done.stderr


# Signals


def started(*words: object) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "zoo", *map(str, words)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes], number: signal.Signals) -> tuple[int, bytes]:
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signals_end_a_run_with_its_journal_kept(number: signal.Signals, code: int, tmp_path: Path) -> None:
    data = small.mldr(tmp_path)
    with (data / "en" / "corpus.jsonl").open("a") as corpus:
        corpus.writelines(json.dumps({"id": f"x{n}", "text": "word " * 400}) + "\n" for n in range(300))
    results = {query: {f"x{n}": 1.0 for n in range(100)} for query in small.QUERIES}
    small.write(tmp_path / "mldr" / "en-test.json", small.first_stage("mldr", "en", search_results=results))
    command = ("run", MODEL, "--mode", "valid", "--data-path", data, "--output", "out", "--batch-size", "1")
    process = started(*command)
    journal, deadline = Path("out/journal.jsonl"), time.monotonic() + 90
    while time.monotonic() < deadline and (not journal.is_file() or journal.read_bytes().count(b"\n") < 5):
        time.sleep(0.05)
    found, stderr = ended(process, number)
    assert found == code, stderr
    no_blame(stderr)
    assert b"the same command goes on from there" in stderr
    lines = journal.read_bytes().splitlines()
    assert len(lines) >= 5
    assert all(json.loads(line) for line in lines)


def test_sigterm_ends_a_command_that_waits_for_its_input() -> None:
    reading, writing = os.pipe()
    argv = [sys.executable, "-m", "zoo", *RUN, "--data-path", "-"]
    process = subprocess.Popen(argv, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(3)
    code, stderr = ended(process, signal.SIGTERM)
    os.close(reading)
    os.close(writing)
    assert (code, stderr.strip()) == (143, b"Terminated.")


INTERRUPTED_IMPORT = """
import os, time
try:
    os.kill(os.getpid(), {number})
    time.sleep(10)
except BaseException as error:
    raise ImportError("initialization failed") from error
"""


@pytest.mark.parametrize(("number", "code", "said"), [(15, 143, b"Terminated."), (2, 130, b"Interrupted.")])
def test_a_signal_that_a_library_takes_for_a_failure_of_its_own_ends_the_command_all_the_same(
    number: int, code: int, said: bytes, tmp_path: Path
) -> None:
    """pybind11 raises ImportError for whatever is raised while a module initialises: ONNX Runtime was said to be missing."""
    package = tmp_path / "site" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(INTERRUPTED_IMPORT.format(number=number))
    process = subprocess.run(
        [sys.executable, "-m", "zoo", *RUN, "-q"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == code, process.stderr
    assert process.stderr.splitlines()[-1] == said
    assert b"onnxruntime" not in process.stderr


def test_sigterm_leaves_no_worker_behind() -> None:
    Path("many.jsonl").write_text(json.dumps(["a", "word " * 400]) + "\n")
    Path("many.jsonl").write_text(Path("many.jsonl").read_text() * 2000)
    process = started(
        "run", MODEL, "--workers", "2", "--threads", "2", "--data-path", "many.jsonl", "--output", "out.txt"
    )
    time.sleep(8)
    children = subprocess.run(
        ["ps", "--no-headers", "-o", "pid", "--ppid", str(process.pid)], capture_output=True, check=False
    )
    code, stderr = ended(process, signal.SIGTERM)
    assert code == 143, stderr
    for child in children.stdout.split():
        assert not Path(f"/proc/{child.decode()}").exists()


# Users and limits

AS_ANOTHER_USER = """
import contextlib, io, os, sys
from pathlib import Path
from zoo.cli import main

words, home = sys.argv[2:], sys.argv[1]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(words)  # so that everything is imported: the interpreter's own folder may be closed to another user
for name in ("ZOO_HOME", "HF_HOME", "HOME", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
if home:
    os.environ["HOME"] = home
os.setgroups([])
os.setgid(54321)
os.setuid(54321)  # of whom the system's list of users knows nothing
main(words)
"""


def as_another_user(home: str, *words: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", textwrap.dedent(AS_ANOTHER_USER), home, *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


CLOSED = any(not folder.stat().st_mode & 0o001 for folder in (Path(sys.prefix), *Path(sys.prefix).parents))
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or CLOSED,
    reason="only root becomes another user, and only where others may enter the environment's folder",
)


@needs_root
@pytest.mark.parametrize("home", ["", "/nowhere", "closed"])
def test_a_user_without_a_home_scores_with_the_model_that_comes_with_zoo(home: str, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    done = as_another_user(str(closed) if home == "closed" else home, *RUN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("相似度") == 2
    assert "Traceback" not in done.stderr
    assert "what is made is kept until the end of this run. Set ZOO_HOME to keep it" in done.stderr


@needs_root
def test_folders_that_are_closed_to_the_user_are_named_with_the_way_out(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    listed = as_another_user(str(closed), "cache", "list")
    assert listed.returncode == 1
    assert "Permission denied. Set ZOO_HOME to another" in listed.stderr
    missing = as_another_user(str(closed), "run", "bge-reranker-v2-m3", "--offline")
    assert missing.returncode == 1
    assert "cannot be read: Permission denied" in missing.stderr
    assert "Ways out:" in missing.stderr
    for done in (listed, missing):
        assert "internal fault" not in done.stderr


def test_weights_of_another_user_are_an_error_that_names_them(
    zoo: Zoo, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root reads everything, so the system's answer is given in its place."""
    folder = Path("checkpoint")
    folder.mkdir()
    for path in tiny.iterdir():
        if path.is_file():
            (folder / path.name).symlink_to(path)
    opened = Path.open

    def refuse(path: Path, *args: object, **kwargs: object) -> object:
        if path.name == "model.safetensors":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    result = zoo("run", MODEL, "--config-path", folder)
    assert result.exit_code == 1
    assert "model.safetensors" in result.stderr
    assert "Permission denied" in result.stderr
    assert "internal fault" not in result.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "some/file"), "some/file: No space left on device. Free some space"),
        (OSError(24, "Too many open files"), "Too many open files. Raise the limit on open files (ulimit -n)"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("can't start new thread"), "no more threads"),
        (type("PanicException", (BaseException,), {})("index out of bounds"), "a library broke off"),
        (RuntimeError("a mistake of ours"), "internal fault, please report it"),
    ],
)
def test_each_kind_of_fault_is_told_as_what_it_is(
    error: BaseException, said: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("zoo.cli.devices.describe", fail)
    result = zoo("devices")
    assert result.exit_code == 1
    assert said in result.stderr
    assert ("internal fault" in result.stderr) is ("internal" in said)


def test_a_limit_on_the_size_of_files_ends_with_the_journal_and_goes_on_without_it(tmp_path: Path) -> None:
    data = small.mldr(tmp_path)
    words = " ".join(map(str, ("run", MODEL, "-q", "--mode", "valid", "--data-path", data, "--output", "out")))
    assert shell("", "run", MODEL, "-q").returncode == 0  # which leaves the model file
    limited = subprocess.run(
        ["bash", "-c", f'ulimit -f 2; "{sys.executable}" -m zoo {words}'], capture_output=True, timeout=120, check=False
    )
    assert limited.returncode == 1
    no_blame(limited.stderr)
    assert b"File too large" in limited.stderr
    again = shell("", *words.split(), "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["timing"]["recalled_batches"] > 0
    assert not list(Path("out").rglob("*.partial"))
