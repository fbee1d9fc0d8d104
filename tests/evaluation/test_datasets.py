"""Data sets of every layout become the same collection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import small_collection as small
from zoo.errors import NotInstalledError, UnknownNameError, ZooError
from zoo.evaluation.datasets import Collection, DataRequest, find_layouts, open_collections
from zoo.evaluation.datasets.bm25 import words

LAYOUTS: list[Callable[[Path], Path]] = [small.mldr, small.beir, small.trec, small.hub]


def opened(path: Path, **asked: object) -> list[Collection]:
    request = DataRequest(data_path=path, **asked)  # type: ignore[arg-type]
    return open_collections(find_layouts(request), request)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_gives_the_same_collection(layout: Callable[[Path], Path], tmp_path: Path) -> None:
    [collection] = opened(layout(tmp_path))
    assert collection.queries == small.QUERIES
    assert collection.retriever == "bge-m3"
    assert {q: list(found.items()) for q, found in collection.candidates.items()} == {
        q: list(found.items()) for q, found in small.CANDIDATES.items()
    }
    grades = {q: {p: min(r, 1) for p, r in found.items()} for q, found in small.QRELS.items()}
    assert collection.qrels == (grades if layout is small.hub else small.QRELS)
    assert {p: collection.passages[p].strip() for found in small.CANDIDATES.values() for p in found} == {
        p: small.PASSAGES[p].strip() for found in small.CANDIDATES.values() for p in found
    }
    assert "p7" not in collection.passages


def test_titles_are_joined_as_the_reference_does(tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    corpus = path / "en" / "corpus.jsonl"
    rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    rows[0]["title"], rows[1]["title"], rows[1]["text"], rows[2]["text"] = "Bees", "", " held ", " kept "
    small.write(corpus, small.json_lines(rows))
    [collection] = opened(path)
    assert collection.passages["p1"] == f"Bees {small.PASSAGES['p1']}"
    assert collection.passages["p2"] == "held"  # an empty title still strips
    assert collection.passages["p3"] == " kept "  # no title: as it stands


def test_only_the_best_candidates_are_kept_ties_in_the_order_of_the_file(tmp_path: Path) -> None:
    [collection] = opened(small.mldr(tmp_path), top_k=2)
    assert list(collection.candidates["q1"]) == ["p2", "p1"]
    assert list(collection.candidates["q2"]) == ["p5", "p3"]


def test_a_limit_takes_the_first_queries(tmp_path: Path) -> None:
    [collection] = opened(small.mldr(tmp_path), limit=2)
    assert list(collection.queries) == list(collection.qrels) == list(collection.candidates) == ["q1", "q2"]


def test_languages_are_all_that_are_there_or_those_asked_for(tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    small.mldr(tmp_path, "zh")
    assert [collection.language for collection in opened(path)] == ["en", "zh"]
    assert [collection.language for collection in opened(path, languages=("zh",))] == ["zh"]
    with pytest.raises(UnknownNameError, match=r"'zj'.*Known: en, zh"):
        opened(path, languages=("zj",))


@pytest.mark.parametrize("given", ["mldr/data", "mldr", "mldr/data/en"])
def test_the_mldr_folder_its_data_and_one_language_of_it_can_be_named(given: str, tmp_path: Path) -> None:
    small.mldr(tmp_path)
    [collection] = opened(tmp_path / given)
    assert (collection.dataset, collection.language) == ("mldr", "en")


def test_the_first_stage_names_the_data_set_where_the_user_does_not(tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    copy = path.parent.rename(tmp_path / "a-copy") / "data"
    assert opened(copy)[0].dataset == "mldr"
    with pytest.raises(ZooError, match="'eval_name' is 'mldr', and 'mine' is expected"):
        opened(copy, dataset="mine")


@pytest.mark.parametrize("place", ["search_results/bge-m3/NoReranker", "results/v1/bge-m3/NoReranker"])
def test_the_first_stage_is_found_in_flagembeddings_place(place: str, tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    target = tmp_path / "mldr" / place.removeprefix("results/") / "en-test.json"
    target.parent.mkdir(parents=True)
    (tmp_path / "mldr" / "en-test.json").rename(target)
    [collection] = opened(path)
    assert collection.first_stage == target


def test_two_first_stages_are_not_chosen_between(tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    (tmp_path / "mldr" / "en-test.json").unlink()
    for retriever in ("bge-m3", "bm25"):
        small.write(
            tmp_path / "mldr" / "search_results" / retriever / "NoReranker" / "en-test.json",
            small.first_stage("mldr", "en", model_name=retriever),
        )
    with pytest.raises(ZooError, match=r"more than one first-stage file.*`candidates`"):
        opened(path)
    [collection] = opened(path, candidates=tmp_path / "mldr" / "search_results" / "bm25")
    assert collection.retriever == "bm25"


def test_a_trec_run_serves_any_layout(tmp_path: Path) -> None:
    run = small.trec(tmp_path / "other") / "run.txt"
    [collection] = opened(small.mldr(tmp_path), candidates=run)
    assert list(collection.candidates["q2"]) == ["p5", "p3", "p2", "p6"]


def test_a_beir_folder_of_several_parts_is_one_data_set(tmp_path: Path) -> None:
    root = tmp_path / "parts"
    for part in ("one", "two"):
        made = small.beir(tmp_path / f"made-{part}")
        root.mkdir(exist_ok=True)
        made.rename(root / part)
        (root / part / "small-test.json").unlink()
        small.write(root / part / f"{part}-test.json", small.first_stage("parts", part))
    assert [collection.label for collection in opened(root)] == ["one-test", "two-test"]


def test_a_judged_query_without_candidates_is_reported_and_stays_judged(tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    kept = {q: found for q, found in small.CANDIDATES.items() if q != "q2"}
    small.write(tmp_path / "mldr" / "en-test.json", small.first_stage("mldr", "en", search_results=kept))
    [collection] = opened(path)
    assert collection.missing == ("q2",)
    assert "q2" in collection.qrels
    assert "q2" not in collection.candidates


def test_a_byte_order_mark_and_blank_lines_are_no_fault(tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    for file in (*path.glob("en/*.jsonl"), tmp_path / "mldr" / "en-test.json"):
        raw = file.read_bytes()
        file.write_bytes(b"\xef\xbb\xbf" + raw + (b"\n\n" if file.suffix == ".jsonl" else b""))
    [collection] = opened(path)
    assert collection.passages["p1"] == small.PASSAGES["p1"]


def test_numbers_as_ids_are_read_as_text(tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    for file in (*path.glob("en/*.jsonl"), tmp_path / "mldr" / "en-test.json"):
        text = file.read_text(encoding="utf-8").replace('"p1"', "1" if file.suffix == ".jsonl" else '"1"')
        small.write(file, text)
    [collection] = opened(path)
    assert collection.passages["1"] == small.PASSAGES["p1"]


# BM25


def test_words_are_lower_case_and_pairs_of_characters_where_no_blanks_are() -> None:
    assert list(words("The KEY, c'est 青花瓷器 x2 瓷")) == [
        "the",
        "key",
        "c",
        "est",
        "青花",
        "花瓷",
        "瓷器",
        "x2",
        "瓷",
    ]


def test_candidates_are_made_by_bm25_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("bm25s", reason="the extra bm25 is not installed")
    path = small.mldr(tmp_path)
    (tmp_path / "mldr" / "en-test.json").unlink()
    [collection] = opened(path, work=tmp_path / "out", top_k=3)
    assert collection.retriever == "bm25"
    assert next(iter(collection.candidates["q1"])) == "p1"
    assert next(iter(collection.candidates["q3"])) == "p4"
    assert next(iter(collection.candidates["q4"])) == "p6"
    assert all(len(found) <= 3 for found in collection.candidates.values())
    made = collection.first_stage.stat().st_mtime_ns
    [again] = opened(path, work=tmp_path / "out", top_k=3)
    assert again.first_stage.stat().st_mtime_ns == made
    [more] = opened(path, work=tmp_path / "out", top_k=4)
    assert more.first_stage.stat().st_mtime_ns != made


def test_without_the_extra_the_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small.mldr(tmp_path)
    (tmp_path / "mldr" / "en-test.json").unlink()
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(NotInstalledError, match=r"`candidates`.*pip install 'zoo-runner\[bm25\]'"):
        opened(path, work=tmp_path / "out")


# Size


def test_a_large_corpus_needs_little_memory(tmp_path: Path) -> None:
    """120 MB of corpus, half of it wanted, read under a limit of 60 MB above what the imports took."""
    path = small.mldr(tmp_path)
    filler = "水" * 20_000
    with (path / "en" / "corpus.jsonl").open("a", encoding="utf-8") as handle:
        for number in range(2000):
            handle.write(json.dumps({"id": f"big-{number}", "text": filler}, ensure_ascii=False) + "\n")
    named = {"q1": {f"big-{number}": float(number) for number in range(1000)}}
    small.write(tmp_path / "mldr" / "en-test.json", small.first_stage("mldr", "en", search_results=named))
    program = f"""
import resource
from pathlib import Path
from zoo.evaluation.datasets import DataRequest, find_layouts, open_collections
import numpy, pytrec_eval
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
request = DataRequest(data_path=Path({str(path)!r}), top_k=1000)
[collection] = open_collections(find_layouts(request), request)
for passage in collection.candidates["q1"]:
    assert len(collection.passages[passage]) == 20000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60_000 * (1024 if sys.platform == "darwin" else 1)


# The hub


class _Hub(BaseHTTPRequestHandler):
    """A hub's part that hf_hub_download needs: HEAD and GET of a file at a revision."""

    root: Path

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        prefix = "/datasets/Shitao/MLDR/resolve/main/"
        file = self.root / self.path.removeprefix(prefix)
        if not self.path.startswith(prefix) or not file.is_file():
            self.send_error(404)
            return
        body = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{len(body):040x}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    handler = type("Hub", (_Hub,), {"root": small.hub(tmp_path)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


PROGRAM = """
import sys
from pathlib import Path
from zoo.evaluation.datasets import DataRequest, find_layouts, open_collections
request = DataRequest(dataset="mldr", languages=("en",), candidates=Path(sys.argv[1]), offline=sys.argv[2] == "offline")
[collection] = open_collections(find_layouts(request), request)
print(collection.passages["p1"])
"""


def test_mldr_comes_from_a_mirror_and_then_from_the_cache(mirror: str, tmp_path: Path) -> None:
    # huggingface_hub reads its environment when it is imported, so each step is a process of its own
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": mirror, "HF_HUB_DISABLE_XET": "1"}

    def fetch(mode: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "raw" / "en-test.json"), mode]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    nothing = fetch("offline")
    assert "is not available from the Hugging Face cache (offline)" in nothing.stderr
    online = fetch("online")
    assert online.stdout.strip() == small.PASSAGES["p1"], online.stderr
    cached = fetch("offline")
    assert cached.stdout.strip() == small.PASSAGES["p1"], cached.stderr


def test_a_language_that_mldr_does_not_have_is_said_before_anything_is_fetched() -> None:
    with pytest.raises(UnknownNameError, match=r"'eng'.*Did you mean 'en'"):
        find_layouts(DataRequest(dataset="mldr", languages=("eng",)))
    with pytest.raises(ZooError, match="needs a language"):
        find_layouts(DataRequest(dataset="mldr"))
    with pytest.raises(UnknownNameError, match="Did you mean 'mldr-mini'"):
        find_layouts(DataRequest(dataset="mldr-mni"))
