"""Precisions of the CPU's devices side by side: pairs a second, and what each does to scores, all against cpu in float32.

    python benchmarks/precisions.py [--model NAME] [--config-path DIR] [--data DIR] [--rounds N] [--json]

Every session is opened first; then each computes one batch of each shape (rows x tokens), by turns, round after round, so that a noisy
machine is noisy for all. The median round is shown. A batch has all threads, and nothing but the device is timed.
Scores are compared on --pairs pairs of real text; with --data, also nDCG@10 and the mean rank correlation of a query on a labelled data
set in any layout that --mode valid reads (mldr-mini comes with zoo). What is not installed here, what this CPU does not compute natively
and what cannot be made are reported as left out. Model files are made where the cache ($ZOO_HOME) has none, which is not timed.

All sessions together hold about 4 times the float32 weights' size in memory: 11 GB for 2.27 GB.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, median, report
from numpy.typing import NDArray
from texts import corpora, passages, sentences

from zoo.cpus import usable_threads
from zoo.errors import ZooError
from zoo.evaluation.datasets import MINIATURE, Collection, DataRequest, find_layouts, open_collections
from zoo.evaluation.metrics import MAIN, evaluate
from zoo.evaluation.rerank import collect, rerank
from zoo.registry.catalogue import Catalogue
from zoo.reranker import Reranker
from zoo.scoring.batching import collate
from zoo.settings import RunSettings
from zoo.statistics import spearman
from zoo.types import Encoding, Encodings, Pair, Precision, Run, Tensors

CONTESTANTS: Sequence[tuple[str, Precision]] = (
    ("cpu", "fp32"),
    ("cpu", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
REFERENCE = "cpu/fp32"
SHAPES = ("1x512", "4x512", "1x128")
PACKAGES = ("zoo-runner", "onnxruntime", "openvino", "numpy", "tokenizers")


def shape(text: str) -> tuple[int, int]:
    """Rows and tokens of ``4x512``."""
    rows, _, length = text.partition("x")
    try:
        return max(int(rows), 1), max(int(length), 8)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form ROWSxTOKENS") from None


def opened(args: argparse.Namespace, held: ExitStack) -> tuple[dict[str, Reranker], dict[str, str]]:
    """A run of each contestant, and why the others are left out."""
    catalogue = Catalogue.installed()
    running: dict[str, Reranker] = {}
    missing: dict[str, str] = {}
    for name, precision in CONTESTANTS:
        label = f"{name}/{precision}"
        if args.only and label not in (REFERENCE, *args.only):
            continue
        device = catalogue.device(name)
        available = device.probe()
        if not available.ok:
            missing[label] = available.reason
        elif not device.precisions[precision].offered:
            missing[label] = device.precisions[precision].cost
        else:
            settings = RunSettings(
                model=args.model, config_path=args.config_path, target=name, precision=precision, threads=args.threads, offline=True,
                batch_size=8, device_options={"parallel_batches": "one"},
            )  # fmt: skip
            try:
                running[label] = held.enter_context(Reranker.from_settings(settings, catalogue))
            except ZooError as error:
                missing[label] = str(error)
        print(f"{label}: {missing.get(label, 'open')}", flush=True)
    if REFERENCE not in running:
        raise SystemExit(f"there is nothing to compare with: {missing.get(REFERENCE)}")
    return running, missing


def real_pairs(count: int, characters: int) -> list[Pair]:
    """Different pairs of bundled text, in every language there."""
    files = corpora([])
    queries = [sentence.strip() for file in files for sentence in sentences(file)[:50]]
    return [
        Pair(queries[number % len(queries)], text) for number, text in enumerate(passages(files, count, characters))
    ]


def batch(run: Reranker, rows: int, length: int) -> Tensors:
    """``rows`` pairs of exactly ``length`` tokens."""
    made = run.pipeline.preprocess(real_pairs(rows, characters=20 * length))
    cut = [Encoding({name: ids[:length] for name, ids in row.features.items()}) for row in made.rows]
    session = run.session
    return collate(Encodings(cut, made.padding), range(rows), session.shape_rule, length, session.input_names).inputs


def rounds(running: Mapping[str, Reranker], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Pairs a second of each contestant at each shape: medians over the rounds, the first of which only warms up."""
    labels = {f"{rows}x{length}": (rows, length) for rows, length in args.shapes}
    inputs = {(label, shape): batch(run, *size) for label, run in running.items() for shape, size in labels.items()}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in inputs}
    for number in range(args.rounds + 1):
        for shape in labels:
            for label, run in running.items():
                started = time.perf_counter()
                run.session.submit(inputs[label, shape]).result()
                if number:
                    seconds[label, shape].append(time.perf_counter() - started)
        print(f"round {number} of {args.rounds}{'' if number else ' (warm-up)'}", flush=True)
    return {
        label: {shape: rows / median(seconds[label, shape]) for shape, (rows, _) in labels.items()} for label in running
    }


def deviations(running: Mapping[str, Reranker], pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """How far each contestant's scores of the same pairs are from the reference's."""
    scores: dict[str, NDArray[Any]] = {label: run.score(pairs) for label, run in running.items()}
    right = scores[REFERENCE]
    return {
        label: {
            "spearman": spearman(right, own),
            "max_error": float(np.abs(own - right).max()),
            "spread": float(right.std()),
        }
        for label, own in scores.items()
    }


def _reranked(run: Reranker, collection: Collection) -> Run:
    with run.exclusive() as scorer:
        return collect(collection, rerank(scorer, collection, "truncate", run.max_length))[0]


def retrieval(running: Mapping[str, Reranker], collections: Sequence[Collection]) -> dict[str, dict[str, Any]]:
    """nDCG@10 and the mean rank correlation of a query, of each collection."""
    found: dict[str, dict[str, Any]] = {label: {} for label in running}
    for collection in collections:
        runs = {label: _reranked(run, collection) for label, run in running.items()}
        right = runs[REFERENCE]
        for label, own in runs.items():
            queries = [(list(right[q].values()), [own[q][p] for p in right[q]]) for q in right if right[q]]
            found[label][f"{collection.dataset}/{collection.label}"] = {
                MAIN: evaluate(own, collection.qrels)[MAIN],
                "spearman": float(np.mean([spearman(*both) for both in queries])),
                "queries": len(queries),
            }
    return found


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Everything, for the last line."""
    collections: Sequence[Collection] = ()
    if args.data:
        request = DataRequest(
            data_path=None if args.data == MINIATURE else Path(args.data), limit=args.queries, top_k=20, offline=True
        )
        collections = open_collections(find_layouts(request), request)
    with ExitStack() as held:
        running, missing = opened(args, held)
        rates = rounds(running, args)
        apart = deviations(running, real_pairs(args.pairs, args.characters))
        retrieved = retrieval(running, collections)
    ratio = {
        label: {shape: rate / rates[REFERENCE][shape] for shape, rate in own.items()} for label, own in rates.items()
    }
    return {
        "pairs_per_second": rates,
        "ratio": ratio,
        "deviation": apart,
        **({"retrieval": retrieved} if collections else {}),
        "missing": missing,
    }


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The result, for people."""
    for label, rates in result["pairs_per_second"].items():
        figures = "  ".join(
            f"{shape}: {rate:8.2f} pairs/s ({result['ratio'][label][shape]:.2f})" for shape, rate in rates.items()
        )
        apart = result["deviation"][label]
        yield f"{label:14s} {figures}"
        yield (
            f"{'':14s} rank correlation {apart['spearman']:.4f}, error {apart['max_error']:.2g} at most, scores spread by "
            f"{apart['spread']:.2g}"
        )
        for collection, found in result.get("retrieval", {}).get(label, {}).items():
            figures = f"nDCG@10 {found[MAIN]:.4f}, rank correlation {found['spearman']:.4f}"
            yield f"{'':14s} {collection}, {found['queries']} queries: {figures}"
    for label, reason in result["missing"].items():
        yield f"{label:14s} left out: {reason}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bge-reranker-v2-m3", help="name of a model card")
    parser.add_argument("--config-path", type=Path, help="its checkpoint; default: where 'zoo run' finds it, offline")
    parser.add_argument(
        "--shapes", type=shape, nargs="+", default=[shape(text) for text in SHAPES], metavar="ROWSxTOKENS"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--pairs", type=int, default=64, help="pairs to compare scores on")
    parser.add_argument("--characters", type=int, default=400, help="a passage's length among these, on average")
    parser.add_argument("--data", metavar="DIR", help="labelled data set for nDCG@10, or mldr-mini")
    parser.add_argument("--queries", type=int, default=50, help="its queries in each language, 20 candidates each")
    parser.add_argument("--only", action="append", metavar="DEVICE/PRECISION", help="beside cpu/fp32; repeatable")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    args = parser.parse_args()
    known = [f"{name}/{precision}" for name, precision in CONTESTANTS]
    if unknown := [label for label in args.only or () if label not in known]:
        parser.error(f"--only {unknown[0]}: choose from {', '.join(known)}")
    settings = {
        **machine(PACKAGES),
        **{name: getattr(args, name) for name in ("model", "rounds", "pairs", "characters", "threads")},
    }
    settings |= {
        "config_path": str(args.config_path or "the model's own"),
        "data": args.data or "none",
        "queries": args.queries,
    }
    logging.getLogger("zoo").setLevel(logging.ERROR)  # what a card or a precision has to say would come once a session
    result = measured(args)
    for line in lines(result):
        print(line)
    report(settings, result, as_json=args.json)


if __name__ == "__main__":
    main()
