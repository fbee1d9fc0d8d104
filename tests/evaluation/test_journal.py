"""Scores that were computed are kept: the journal, and runs that are killed."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from click.testing import Result

import small_collection as small
from conftest import Zoo
from zoo import hookimpl
from zoo.errors import ScoreError, ZooError
from zoo.evaluation.journal import Journal
from zoo.registry.stages import Pipeline
from zoo.scoring.batching import digest
from zoo.scoring.scorer import Scorer
from zoo.types import Encoding, Encodings, Pair, Scores, ShapeRule, Tensors

HEADER = {"model": "m", "batch size": 2}
SCORES = np.asarray([1.5, -3.25e-7], dtype=np.float32)


def journal(path: Path, header: dict[str, object] | None = None, *, overwrite: bool = False) -> Journal:
    return Journal.open(path, header or HEADER, overwrite=overwrite)


def test_scores_come_back_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.jsonl"
    with journal(path) as first:
        first.append("a", SCORES)
        assert path.read_text().count("\n") == 2  # the header, and the batch at once
    with journal(path) as second:
        found = second.recall("a")
        assert found is not None
        assert found.dtype == np.float32
        assert found.tobytes() == SCORES.tobytes()
        assert second.recall("b") is None


@pytest.mark.parametrize("torn", [1, 5, 30])
def test_a_torn_last_line_is_dropped_and_written_anew(torn: int, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with journal(path) as first:
        first.append("a", SCORES)
        first.append("b", SCORES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-torn])
    with journal(path) as second:
        assert len(second) == 1
        assert second.recall("b") is None
        second.append("b", SCORES)
    assert path.read_bytes() == whole


def test_a_torn_header_is_a_new_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"zoo_jour')
    with journal(path) as made:
        assert len(made) == 0
    assert json.loads(path.read_text())["model"] == "m"


def test_a_journal_of_other_settings_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with journal(path) as first:
        first.append("a", SCORES)
    before = path.read_bytes()
    with pytest.raises(ZooError, match=r"batch size: 2 in the journal, 4 now\n.*`overwrite`.*`output`") as caught:
        journal(path, {"model": "m", "batch size": 4})
    assert "model" not in str(caught.value)
    assert path.read_bytes() == before
    with journal(path, {"model": "m", "batch size": 4}, overwrite=True) as anew:
        assert len(anew) == 0


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        '{"batch": 1, "logits": "x", "crc": 1}',
        '{"batch": "c"}',
        '{"batch": "c", "logits": "AADAPw==", "crc": 7}',
    ],
)
def test_damage_before_the_last_line_is_an_error_with_its_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with journal(path) as first:
        first.append("a", SCORES)
        first.append("b", SCORES)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:1], line + "\n", *lines[2:]]))
    with pytest.raises(ZooError, match=r"line 2: .*`overwrite`"):
        journal(path)


def test_a_full_disk_is_an_error_and_what_was_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"

    class Full:
        """Takes ten bytes, then nothing."""

        def __init__(self, handle: IO[bytes]) -> None:
            self.handle, self.room = handle, 10

        def __getattr__(self, name: str) -> object:
            return getattr(self.handle, name)

        def write(self, line: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            taken = self.handle.write(line[: self.room])
            self.room -= taken
            return taken

    with journal(path) as kept:
        kept.append("a", SCORES)
        kept._handle = Full(kept._handle)  # type: ignore[assignment]
        with pytest.raises(ZooError, match=r"No space left on device.*kept"):
            kept.append("b", SCORES)
    with journal(path) as again:
        assert again.recall("a") is not None
        assert again.recall("b") is None


def test_a_header_that_the_disk_takes_a_part_of_is_an_error_before_anything_is_scored(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="no limit on the size of files on this platform")
    path = tmp_path / "journal.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(ZooError, match="cannot write"):
            journal(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with journal(path) as kept:
        kept.append("a", SCORES)
    with journal(path) as again:
        assert again.recall("a") is not None


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match="cannot make the folder"):
        journal(tmp_path / "file" / "journal.jsonl")


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="no file locks on this platform")
    path = tmp_path / "journal.jsonl"
    with journal(path), pytest.raises(ZooError, match="another run is writing"):
        journal(path)
    journal(path).close()


def test_a_batch_is_known_by_names_shapes_and_values() -> None:
    ids = np.arange(6, dtype=np.int64).reshape(2, 3)
    mask = np.ones_like(ids)
    assert digest({"ids": ids, "mask": mask}) == digest({"mask": mask, "ids": ids.copy()})
    others = [
        {"ids": ids},
        {"ids": ids.reshape(3, 2), "mask": mask},
        {"ids": ids + 1, "mask": mask},
        {"ids": mask, "mask": ids},
    ]
    assert digest({"ids": ids, "mask": mask}) not in {digest(other) for other in others}


# The journal among a run's participants


class Reranked:
    """A whole model and device in one: tokens are words, a score is the sum of a row's ids over its padded length."""

    input_names: Sequence[str] = ("input_ids", "attention_mask")
    shape_rule = ShapeRule()

    def __init__(self) -> None:
        self.computed: list[str] = []

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        return Encodings(
            [Encoding({"input_ids": [len(word) for word in p.passage.split()]}) for p in pairs], {"input_ids": 0}
        )

    @hookimpl
    def postprocess(self, outputs: Tensors) -> Scores:
        scores: Scores = outputs["logits"]
        return scores

    device_seconds = None

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        self.computed.append(digest(inputs))
        future: Future[Tensors] = Future()
        future.set_result(
            {"logits": (inputs["input_ids"].sum(axis=1) / inputs["input_ids"].shape[1]).astype(np.float32)}
        )
        return future

    def close(self) -> None: ...

    def __enter__(self) -> Reranked:
        return self

    def __exit__(self, *exc_info: object) -> None: ...


STREAM = [Pair("q", "word " * (1 + number * 37 % 91)) for number in range(3000)]
"""Long enough for many windows. Scores depend on the padding, so they show how batches were put together."""


def scored(path: Path, stop_after: int | None = None) -> tuple[list[float], Reranked]:
    model = Reranked()
    pipeline = Pipeline([("model", model)])
    with Journal.open(path, HEADER) as kept:
        results = Scorer(pipeline, model, 4, repeatable=True, recall=kept).score(STREAM)
        scores = [score for _, score in islice(results, stop_after)]
        results.close()  # type: ignore[attr-defined]  # a generator
    return scores, model


class RacingClock:
    """Every look at it is ten seconds later than the one before."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 10.0
        return self._now


def test_a_run_cut_anywhere_ends_as_if_it_had_not_been_whatever_the_clock_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, whole = scored(tmp_path / "whole.jsonl")
    monkeypatch.setattr("time.monotonic", RacingClock())
    computed: list[str] = []
    for stop_after in (1, 700, 1500):
        computed += scored(tmp_path / "cut.jsonl", stop_after)[1].computed
    found, last = scored(tmp_path / "cut.jsonl")
    computed += last.computed
    assert found == expected
    assert sorted(set(computed)) == sorted(set(whole.computed))
    assert len(computed) <= len(whole.computed) * 1.1  # but for the batches in flight, nothing is computed twice


@pytest.mark.parametrize(
    "outcome", [ScoreError("the card is lost"), np.full(4, np.nan, np.float32)], ids=["error", "NaN"]
)
def test_a_batch_that_fails_is_not_kept(outcome: Any, tmp_path: Path) -> None:
    class Failing(Reranked):
        def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
            future: Future[Tensors] = Future()
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result({"logits": outcome[: len(inputs["input_ids"])]})
            return future

    model = Failing()
    with Journal.open(tmp_path / "journal.jsonl", HEADER) as kept:
        with pytest.raises(ScoreError):
            list(Scorer(Pipeline([("model", model)]), model, 4, recall=kept).score(STREAM[:8]))
        assert len(kept) == 0


# Killed runs

KILLED = """
import os, signal, sys
from zoo.cli import main
from zoo.evaluation.journal import Journal

class Dying:
    '''The journal's file, on which the process is killed while it writes its n-th line.'''
    def __init__(self, handle, left, torn):
        self.handle, self.left, self.torn = handle, left, torn
    def __getattr__(self, name):
        return getattr(self.handle, name)
    def write(self, line):
        self.left -= 1
        if self.left < 0:
            self.handle.write(line[: self.torn])
            os.kill(os.getpid(), signal.SIGKILL)
        return self.handle.write(line)

append = Journal.append
def dying_append(self, key, scores):
    if not isinstance(self._handle, Dying):
        self._handle = Dying(self._handle, int(sys.argv[1]), int(sys.argv[2]))
    append(self, key, scores)
Journal.append = dying_append
main(sys.argv[3:], prog_name="zoo")
"""


def command(data: Path, output: Path) -> list[str]:
    return [
        "run", "zoo-reranker-tiny", "--mode", "valid", "--data-path", str(data), "--batch-size", "2", "--output", str(output),
        "--target", "cpu",
    ]  # fmt: skip


def metric_files(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.suffix in (".json", ".trec") and path.name != "report.json"
    }


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(zoo: Zoo, tmp_path: Path) -> None:
    data = small.mldr(tmp_path)
    whole = zoo(*command(data, tmp_path / "whole"))
    assert whole.exit_code == 0, whole.stderr
    cut = tmp_path / "cut"
    for lines, torn in ((1, 0), (1, 17), (2, 40)):
        args = [sys.executable, "-c", KILLED, str(lines), str(torn), *command(data, cut)]
        died = subprocess.run(args, capture_output=True, text=True, check=False)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert not (cut / "report.json").exists()
    done = zoo(*command(data, cut))
    assert done.exit_code == 0, done.stderr
    assert "continuing from" in done.stderr
    assert "4 of 7 batches came from the journal" in done.stderr
    assert metric_files(cut) == metric_files(tmp_path / "whole")
    assert len(metric_files(cut)) == 5
    # Batches computed side by side may come in in another order.
    lines, expected = ((path / "journal.jsonl").read_text().splitlines() for path in (cut, tmp_path / "whole"))
    assert lines[0] == expected[0]
    assert sorted(lines) == sorted(expected)


def test_a_finished_run_repeats_its_figures_without_the_device(zoo: Zoo, tmp_path: Path) -> None:
    data = small.mldr(tmp_path)
    first = zoo(*command(data, tmp_path / "out"))
    files = metric_files(tmp_path / "out")
    second = zoo(*command(data, tmp_path / "out"))
    assert second.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    assert "7 of 7 batches came from the journal" in second.stderr
    assert metric_files(tmp_path / "out") == files
    third = zoo(*command(data, tmp_path / "out"), "--overwrite")
    assert "came from the journal" not in third.stderr
    assert metric_files(tmp_path / "out") == files


def change_settings(data: Path, output: Path) -> list[str]:
    return ["--top-k", "2"]


def change_inputs(data: Path, output: Path) -> list[str]:
    corpus = data / "en" / "corpus.jsonl"
    corpus.write_bytes(corpus.read_bytes().replace(b"waggle", b"wiggle"))
    return []


OBSERVER = """
from zoo import hookimpl

@hookimpl(wrapper=True)
def postprocess(outputs):
    return (yield) {change}
"""


def install_observer(folder: Path, version: str, change: str = "") -> None:
    """A distribution that changes every score, as pip installs one."""
    for info in folder.glob("*.dist-info"):
        shutil.rmtree(info)
    info = folder / f"score_shifter-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: score-shifter\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[zoo]\nshifter = zoo_score_shifter\n")
    (folder / "zoo_score_shifter.py").write_text(OBSERVER.format(change=change))


def test_after_a_plugin_has_changed_old_and_new_scores_are_not_put_into_one_ranking(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, output, site = small.mldr(tmp_path), tmp_path / "out", tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def run(version: str, change: str, *more: str) -> Result:
        install_observer(site, version, change)
        sys.modules.pop("zoo_score_shifter", None)
        importlib.invalidate_caches()
        return zoo(*command(data, output), *more)

    assert run("0.1", "+ 1").exit_code == 0
    before = metric_files(output)
    assert "7 of 7 batches came from the journal" in run("0.1", "+ 1").stderr
    refused = run("0.2", "- 1")
    assert refused.exit_code == 1
    named = "plugin (shifter): 'shifter' (score-shifter 0.1) in the journal, 'shifter' (score-shifter 0.2) now"
    assert named in refused.stderr
    assert metric_files(output) == before
    assert run("0.2", "- 1", "--overwrite").exit_code == 0
    gone = zoo(*command(data, output)) if shutil.rmtree(site) is None else None
    assert gone is not None
    assert "'shifter' (score-shifter 0.2) in the journal, not there now" in gone.stderr


def change_weights(data: Path, output: Path) -> list[str]:
    path = output / "journal.jsonl"
    header, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps({**json.loads(header), "weights": "of another checkpoint"}) + "\n" + rest)
    return []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (change_settings, "top k: 100 in the journal, 2 now"),
        (change_inputs, "corpus.jsonl"),
        (change_weights, "weights: of another"),
    ],
)
def test_scores_of_another_run_are_refused(change: object, says: str, zoo: Zoo, tmp_path: Path) -> None:
    data, output = small.mldr(tmp_path), tmp_path / "out"
    assert zoo(*command(data, output)).exit_code == 0
    assert callable(change)
    extra = change(data, output)
    refused = zoo(*command(data, output), *extra)
    assert refused.exit_code == 1
    assert says in refused.stderr
    assert "--overwrite" in refused.stderr
    assert zoo(*command(data, output), *extra, "--overwrite").exit_code == 0


INTERRUPTED = """
import os, signal, sys
from zoo.cli import main
from zoo.evaluation.journal import Journal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started without it
append = Journal.append
def interrupting_append(self, key, scores):
    append(self, key, scores)
    if len(self) == 3:
        os.kill(os.getpid(), signal.SIGINT)
Journal.append = interrupting_append
main(sys.argv[1:], prog_name="zoo")
"""


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(zoo: Zoo, tmp_path: Path) -> None:
    data, output = small.mldr(tmp_path), tmp_path / "out"
    args = [sys.executable, "-c", INTERRUPTED, *command(data, output)]
    stopped = subprocess.run(args, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert stopped.returncode == 130, stopped.stderr
    assert "the same command goes on from there" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert stopped.stdout == ""
    done = zoo(*command(data, output))
    assert done.exit_code == 0
    assert "batches came from the journal" in done.stderr
