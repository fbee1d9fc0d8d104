"""zoo beside the programs one would otherwise take: pairs a second in float32 on this CPU, from text to scores.

Every program runs in a process of its own, with one thread pool of the same size, on one checkpoint and one set of pairs (16 queries;
passages of 20 to 2,000 words; cut to --max-length tokens). Each first finds the batch size it is fastest with; then all take turns, round
after round, so that a noisy machine is noisy for all. The medians are shown, and how far the scores are from the plain loop's.

Below them stands the roofline: how many pairs a second would be if the model's matrix products ran at the rate of one large product in
numpy, the best of those measured before each round, and if nothing else took any time. ``trim`` saves zoo up to one layer of it.

A program that is not installed is reported as missing. One that needs versions of its own can live in another environment:

    python benchmarks/peers.py --checkpoint DIR --onnx FILE [--zoo-onnx FILE] [--python fastembed=/venvs/fe/bin/python] [--json]

``--checkpoint`` has weights and tokenizer, ``--onnx`` is its plain export, which the programs that run ONNX files get. zoo makes and keeps
its own file from the checkpoint, as ``zoo run`` does, before the clock starts; ``--zoo-onnx`` gives it another.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Pairs = Sequence[tuple[str, str]]
Score = Callable[[Pairs, int], Sequence[float]]
BATCH_SIZES = (1, 4, 16, 32)
TOLERANCE = 1e-4
"""Largest difference of float32 scores that still counts as equal."""


def zoo(args: argparse.Namespace) -> Score:
    from contextlib import ExitStack

    from zoo.reranker import Reranker
    from zoo.settings import RunSettings

    settings = RunSettings(
        model="bge-reranker-v2-m3", ckpt=args.zoo_onnx, config_path=args.checkpoint, target=args.target, batch_size=None,
        max_length=args.max_length, query_max_length=args.max_length, threads=args.threads,
    )  # fmt: skip
    held = ExitStack()
    run = held.enter_context(Reranker.from_settings(settings))
    args.held = held  # or the session would be closed when this function returns

    return lambda pairs, rows: run.score(pairs).tolist()


def cutting_tokenizer(args: argparse.Namespace) -> Any:
    """The checkpoint's tokenizer, which cuts passages and pads nothing."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(args.checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(args.max_length, strategy="only_second")
    return tokenizer


def _loop(args: argparse.Namespace, *, budget: int | None) -> Score:
    import numpy as np
    import onnxruntime

    tokenizer = cutting_tokenizer(args)
    pad = tokenizer.token_to_id("<pad>") or 0
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(str(args.onnx), options, providers=["CPUExecutionProvider"])

    def score(pairs: Pairs, rows: int) -> Sequence[float]:
        encoded = [encoding.ids for encoding in tokenizer.encode_batch(list(pairs))]
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i])) if budget else list(range(len(encoded)))
        scores = [0.0] * len(encoded)
        while order:
            chosen = order[: max(budget // len(encoded[order[0]]), 1) if budget else rows]
            del order[: len(chosen)]
            length = max(len(encoded[i]) for i in chosen)
            ids = np.full((len(chosen), length), pad, dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, i in enumerate(chosen):
                ids[row, : len(encoded[i])], mask[row, : len(encoded[i])] = encoded[i], 1
            for i, logit in zip(chosen, session.run(None, {"input_ids": ids, "attention_mask": mask})[0], strict=True):
                scores[i] = float(logit[0])
        return scores

    return score


def plain_loop(args: argparse.Namespace) -> Score:
    return _loop(args, budget=None)


def sorted_loop(args: argparse.Namespace) -> Score:
    return _loop(args, budget=2048)


def _sentence_transformers(args: argparse.Namespace, **options: Any) -> Score:
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(args.threads)
    model = CrossEncoder(str(args.folder), max_length=args.max_length, device="cpu", **options)
    identity = torch.nn.Identity()
    return lambda pairs, rows: model.predict(
        pairs, batch_size=rows, activation_fn=identity, show_progress_bar=False
    ).tolist()


def sentence_transformers(args: argparse.Namespace) -> Score:
    return _sentence_transformers(args)


def sentence_transformers_onnx(args: argparse.Namespace) -> Score:
    import onnxruntime

    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = args.threads
    return _sentence_transformers(
        args, backend="onnx", model_kwargs={"file_name": args.onnx.name, "session_options": session, "export": False}
    )


def flag_embedding(args: argparse.Namespace) -> Score:
    import torch
    from FlagEmbedding import FlagReranker

    torch.set_num_threads(args.threads)
    model = FlagReranker(
        str(args.folder), use_fp16=False, devices="cpu", max_length=args.max_length, query_max_length=args.max_length
    )
    return lambda pairs, rows: model.compute_score(list(pairs), batch_size=rows)


def fastembed(args: argparse.Namespace) -> Score:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model("local/peer", model_file=args.onnx.name, sources=ModelSource(hf="local/peer"))
    model = TextCrossEncoder("local/peer", specific_model_path=str(args.folder), threads=args.threads)
    return lambda pairs, rows: list(model.rerank_pairs(pairs, batch_size=rows))


def infinity(args: argparse.Namespace) -> Score:
    import asyncio
    import itertools

    import torch
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    torch.set_num_threads(args.threads)
    loop = asyncio.new_event_loop()
    engines: dict[int, AsyncEmbeddingEngine] = {}

    async def rank(engine: AsyncEmbeddingEngine, pairs: Pairs) -> list[float]:
        groups = [(q, [p for _, p in group]) for q, group in itertools.groupby(pairs, key=lambda pair: pair[0])]
        async with engine:
            answers = await asyncio.gather(*(engine.rerank(query=q, docs=docs, raw_scores=True) for q, docs in groups))
        return [
            score
            for ranking, _ in answers
            for score in (r.relevance_score for r in sorted(ranking, key=lambda r: r.index))
        ]

    def score(pairs: Pairs, rows: int) -> Sequence[float]:
        if rows not in engines:
            engines[rows] = AsyncEmbeddingEngine.from_args(
                EngineArgs(
                    model_name_or_path=str(args.folder),
                    engine="torch",
                    device="cpu",
                    dtype="float32",
                    batch_size=rows,
                    bettertransformer=False,
                )
            )
        return loop.run_until_complete(rank(engines[rows], pairs))

    return score


PROGRAMS: dict[str, Callable[[argparse.Namespace], Score]] = {
    "zoo": zoo,
    "onnxruntime-loop": plain_loop,
    "onnxruntime-loop-sorted": sorted_loop,
    "sentence-transformers": sentence_transformers,
    "sentence-transformers-onnx": sentence_transformers_onnx,
    "FlagEmbedding": flag_embedding,
    "fastembed": fastembed,
    "infinity": infinity,
}


def work(args: argparse.Namespace) -> None:
    """One program: loads, finds its batch size, then scores all pairs each time it is told to. Speaks JSON lines."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    pairs = [tuple(pair) for pair in json.loads(args.pairs_file.read_text(encoding="utf-8"))]

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        score = PROGRAMS[args.worker](args)
        sample = random.Random(1).sample(pairs, min(len(pairs), args.sample))
        sample.sort(key=lambda pair: pair[0])
        score(sample[:4], 4)
        times = {}
        for rows in BATCH_SIZES if args.worker not in ("zoo", "onnxruntime-loop-sorted") else (32,):
            started = time.perf_counter()
            score(sample, rows)
            times[rows] = time.perf_counter() - started
    except Exception as error:
        answer(missing=f"{type(error).__name__}: {error}"[:300])
        return
    best = min(times, key=lambda rows: times[rows])
    answer(rows=best)
    for _ in sys.stdin:
        started = time.perf_counter()
        scores = score(pairs, best)
        answer(seconds=time.perf_counter() - started, scores=[float(value) for value in scores])


class Program:
    """A worker process."""

    def __init__(self, name: str, python: str, args: argparse.Namespace) -> None:
        options = [
            "checkpoint",
            "onnx",
            "zoo_onnx",
            "folder",
            "pairs_file",
            "threads",
            "max_length",
            "target",
            "sample",
        ]
        command = [python, __file__, "--worker", name]
        for option in options:
            value = getattr(args, option)
            command += [] if value is None else [f"--{option.replace('_', '-')}", str(value)]
        threads = {"OMP_NUM_THREADS": str(args.threads), "RAYON_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **threads, "TOKENIZERS_PARALLELISM": "true"},
        )  # fmt: skip
        self.ready = self._answer()

    def score(self) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"missing": f"its process ended with {self._process.wait()}"}


def peers_folder(args: argparse.Namespace, scratch: Path) -> Path:
    """The checkpoint and its export in one folder whose tokenizer says the length limit, for programs that read it there."""
    folder = scratch / "peer"
    folder.mkdir()
    for path in [*args.checkpoint.iterdir(), *args.onnx.parent.glob(f"{args.onnx.name}*")]:
        if path.is_file() and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    settings = json.loads((args.checkpoint / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": args.max_length}))
    return folder


def make_pairs(count: int, corpus: Sequence[Path]) -> list[tuple[str, str]]:
    """Pairs sorted by query: 16 queries, passages of 20 to 2,000 words, most of them short."""
    from texts import corpora, sentences

    choose = random.Random(0)
    pool = [sentence for file in corpora(corpus) for sentence in sentences(file)]
    pairs = []
    for number in range(count):
        wanted, words = min(20 * 100 ** choose.betavariate(1.2, 1.6), 2000), 0
        parts: list[str] = []
        while words < wanted:
            parts.append(choose.choice(pool))
            words += len(parts[-1].split())
        pairs.append((f"what do giant pandas eat in the winter of year {number * 16 // count}?", " ".join(parts)))
    return pairs


def arithmetic(args: argparse.Namespace, pairs: Pairs) -> float:
    """Floating-point operations of the matrix products of an encoder over ``pairs``, every token in every layer."""
    config = json.loads((args.checkpoint / "config.json").read_text(encoding="utf-8"))
    layers, hidden, wide = (config[key] for key in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    tokens = [len(encoding.ids) for encoding in cutting_tokenizer(args).encode_batch(list(pairs))]
    weights = 4 * hidden * hidden + 2 * hidden * wide
    return sum(2.0 * layers * (length * weights + 2 * length * length * hidden) for length in tokens)


def product_rate(size: int = 2048) -> float:
    """Floating-point operations a second of a product of two square matrices in float32, the best of five, on all cores numpy takes."""
    import numpy as np

    factors = np.random.default_rng(0).standard_normal((2, size, size), dtype=np.float32)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        factors[0] @ factors[1]
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def compare(args: argparse.Namespace, pairs: Pairs, pythons: dict[str, str]) -> dict[str, Any]:
    """All programs by turns: seconds and scores of each round."""
    from machine import median

    running: dict[str, Program] = {}
    missing: dict[str, str] = {}
    for name in args.only or PROGRAMS:
        program = Program(name, pythons.get(name, sys.executable), args)
        if "missing" in program.ready:
            missing[name] = program.ready["missing"]
            print(f"{name}: missing ({missing[name]})", flush=True)
        else:
            running[name] = program
    seconds: dict[str, list[float]] = {name: [] for name in running}
    scores: dict[str, list[float]] = {}
    fastest = 0.0
    for _ in range(args.rounds):
        fastest = max(fastest, product_rate())
        for name, program in running.items():
            answer = program.score()
            seconds[name].append(answer["seconds"])
            scores[name] = answer["scores"]
            print(f"{name}: {args.pairs / answer['seconds']:.2f} pairs/s", flush=True)
    for program in running.values():
        program.close()
    reference = scores.get("onnxruntime-loop") or next(iter(scores.values()))
    apart = {name: max(abs(a - b) for a, b in zip(reference, own, strict=True)) for name, own in scores.items()}
    rates = {name: args.pairs / median(times) for name, times in seconds.items()}
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        rows = running[name].ready["rows"]
        verdict = "" if apart[name] <= TOLERANCE else f"  NOT EQUAL within {TOLERANCE}"
        print(f"{name:28s} {rate:8.2f} pairs/s  batches of {rows:2d}  scores within {apart[name]:.1e}{verdict}")
    roofline = fastest * len(pairs) / arithmetic(args, pairs)
    print(f"{'roofline':28s} {roofline:8.2f} pairs/s  at {fastest / 1e9:.0f} GFLOP/s")
    return {"pairs_per_second": rates, "largest_difference": apart, "missing": missing, "roofline": roofline}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="weights, config and tokenizer")
    parser.add_argument("--onnx", type=Path, required=True, help="its plain ONNX export")
    parser.add_argument("--zoo-onnx", type=Path, help="the file zoo runs (default: what it makes of the checkpoint)")
    parser.add_argument("--target", default="cpu", help="the device zoo runs on")
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--sample", type=int, default=48, help="pairs that each program finds its batch size with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--corpus", type=Path, action="append", default=[], help="JSON lines with a 'text' each; repeatable"
    )
    parser.add_argument(
        "--python", action="append", default=[], metavar="NAME=PATH", help="a program's own interpreter"
    )
    parser.add_argument("--only", action="append", choices=PROGRAMS, help="only this program; repeatable")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--worker", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pairs-file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args)

    from machine import machine, report

    scratch = Path(tempfile.mkdtemp(prefix="peers-"))
    try:
        args.folder, args.pairs_file = peers_folder(args, scratch), scratch / "pairs.json"
        pairs = make_pairs(args.pairs, args.corpus)
        args.pairs_file.write_text(json.dumps(pairs), encoding="utf-8")
        result = compare(args, pairs, dict(entry.partition("=")[::2] for entry in args.python))
    finally:
        shutil.rmtree(scratch)
    names = ["zoo-runner", "onnxruntime", "torch", "transformers", "tokenizers"]
    settings = {name: getattr(args, name) for name in ("pairs", "rounds", "max_length", "threads", "target")}
    return report({**machine(names), **settings}, result, as_json=args.json)


if __name__ == "__main__":
    main()
