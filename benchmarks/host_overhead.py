"""How much longer a run takes than its device computes: end to end over device time, on a simulated card.

The card takes a fixed time for each batch of a fixed shape and no CPU, as an accelerator does. Everything else is real: a
JSON-lines file of long passages is read, tokenised, batched, and its scores come back in order. The clock starts before the first byte
of the file is read and stops after the last score. Loading the tokenizer, once a process, is shown apart.

Beside it, the preparation that FlagEmbedding's FlagReranker does on the same pairs (tokenise everything, sort, pad batch by batch, one
stage after the other), where transformers is installed.

    python benchmarks/host_overhead.py [--pairs N] [--device-seconds S] [--batch-size B] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, median, report
from texts import corpora, passages

from zoo.pairs import PairSource
from zoo.paths import bundled
from zoo.registry.card import load_card
from zoo.registry.stages import Pipeline
from zoo.scoring.scorer import Scorer
from zoo.types import Checkpoint, ShapeRule, Tensors
from zoo_cross_encoder.reranker import CrossEncoder

QUERY = "what do giant pandas eat in winter?"


class SimulatedCard:
    """Takes ``seconds`` for each batch, one after the other, and uses no CPU. ``busy`` is the time it computed in all."""

    input_names = ("input_ids", "attention_mask")

    def __init__(self, rows: int, length: int, seconds: float) -> None:
        self.shape_rule = ShapeRule(rows=rows, length=length)
        self._seconds, self.busy = seconds, 0.0
        self._free = time.perf_counter()
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._lock = threading.Lock()

    device_seconds = None

    def submit(self, inputs: Tensors, outputs: object = None) -> Future[Tensors]:
        # The card begins when the batch has arrived and the one before is done, whenever this process is woken.
        with self._lock:
            self._free = max(self._free, time.perf_counter()) + self._seconds
            ready = self._free
        self.busy += self._seconds
        return self._worker.submit(self._compute, inputs, ready)

    def _compute(self, inputs: Tensors, ready: float) -> Tensors:
        time.sleep(max(ready - time.perf_counter(), 0))
        return {"logits": inputs["input_ids"][:, 1:2].astype(np.float32)}

    def close(self) -> None:
        self._worker.shutdown()


def measure(model: CrossEncoder, file: Path, card: SimulatedCard, *, check: bool = False) -> tuple[float, float, float]:
    """Seconds end to end, seconds of the device, and CPU seconds of the host a pair (little disturbed by others)."""
    scorer = Scorer(Pipeline([("model", model)]), card, card.shape_rule.rows)  # type: ignore[arg-type]  # it is closed by hand
    started, cpu = time.perf_counter(), time.process_time()
    source = PairSource(file)
    if check:
        source.check()
    pairs = (pair for record in source for pair in record.pairs)
    scored = sum(1 for _ in scorer.score(pairs))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    card.close()
    assert scored == scorer.stats.pairs > 0
    return seconds, card.busy, cpu / scored


def flag_preparation(folder: Path, file: Path, batch_size: int, max_length: int) -> tuple[float, float] | None:
    """Seconds to tokenise and sort, and seconds to pad, the way FlagReranker 1.4 does; None without transformers."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        return None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    started = time.perf_counter()
    pairs = [pair for record in PairSource(file) for pair in record.pairs]
    rows: list[Any] = []
    for start in range(0, len(pairs), batch_size):
        part = pairs[start : start + batch_size]
        limits = {
            "add_special_tokens": False,
            "truncation": True,
            "max_length": max_length,
            "return_attention_mask": False,
        }
        queries = tokenizer([pair.query for pair in part], **limits)["input_ids"]
        texts = tokenizer([pair.passage for pair in part], **limits)["input_ids"]
        join = {"truncation": "only_second", "max_length": max_length, "padding": False}
        rows += [tokenizer.prepare_for_model(q, p, **join) for q, p in zip(queries, texts, strict=True)]
    rows.sort(key=lambda row: -len(row["input_ids"]))
    tokenised = time.perf_counter()
    for start in range(0, len(rows), batch_size):
        tokenizer.pad(
            rows[start : start + batch_size], padding="max_length", max_length=max_length, return_tensors="np"
        )
    return tokenised - started, time.perf_counter() - tokenised


def write_pairs(file: Path, texts: Iterator[str]) -> float:
    """A JSON-lines file of pairs; the passages' characters on average."""
    total = count = 0
    with file.open("w", encoding="utf-8") as handle:
        for text in texts:
            handle.write(json.dumps([f"{QUERY} {count % 100}", text], ensure_ascii=False) + "\n")
            total, count = total + len(text), count + 1
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2560, help="pairs to score")
    parser.add_argument("--device-seconds", type=float, default=0.72, help="seconds the card takes for a batch")
    parser.add_argument("--batch-size", type=int, default=128, help="rows of a batch")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of a row")
    parser.add_argument("--characters", type=int, default=13_000, help="characters of a passage, on average")
    parser.add_argument(
        "--corpus", type=Path, action="append", default=[], help="JSON lines with a 'text' each; repeatable"
    )
    parser.add_argument("--checkpoint", type=Path, help="folder with the tokenizer (default: the embedded model's)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the medians are shown")
    parser.add_argument("--no-peer", action="store_true", help="leave FlagReranker's preparation out")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    args = parser.parse_args()

    card = load_card(bundled("models") / "zoo-reranker-tiny.toml")
    folder = args.checkpoint or bundled("models") / "zoo-reranker-tiny"

    def model() -> CrossEncoder:
        checkpoint = Checkpoint(folder=folder, served_by="benchmark")
        return CrossEncoder(card, checkpoint, max_length=args.max_length, query_max_length=args.max_length)

    started = time.perf_counter()
    model()
    loading = time.perf_counter() - started
    cards = {
        "the card": (args.device_seconds, False),
        "the card, whole input checked first": (args.device_seconds, True),
        "a card five times as fast": (args.device_seconds / 5, False),
    }
    overheads: dict[str, list[float]] = {name: [] for name in cards}
    host: list[float] = []
    settings = {**machine(["zoo-runner", "tokenizers", "numpy", "transformers"]), **vars(args)}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "pairs.jsonl"
        settings["characters a passage"] = round(
            write_pairs(file, passages(corpora(args.corpus), args.pairs, args.characters))
        )
        for _ in range(args.rounds):
            for name, (seconds, check) in cards.items():
                # A new tokenizer each time: nothing is remembered from the round before.
                end_to_end, device, cpu = measure(
                    model(), file, SimulatedCard(args.batch_size, args.max_length, seconds), check=check
                )
                overheads[name].append(end_to_end / device)
                host.append(cpu)
                print(
                    f"{name}: end to end {end_to_end:.2f} s, device {device:.2f} s, overhead {end_to_end / device:.4f}"
                )
        prepared = None if args.no_peer else flag_preparation(folder, file, args.batch_size, args.max_length)

    result: dict[str, Any] = {
        "overhead": median(overheads["the card"]),
        "overhead_checked_first": median(overheads["the card, whole input checked first"]),
        "overhead_fast_card": median(overheads["a card five times as fast"]),
        "loading_seconds": loading,
        "host_cpu_milliseconds_a_pair": median(host) * 1000,
    }
    batches = -(-args.pairs // args.batch_size)
    print(f"loading the tokenizer, once: {loading:.2f} s; the host's CPU time: {median(host) * 1000:.2f} ms a pair")
    for name, ratios in overheads.items():
        print(f"{name}: overhead {median(ratios):.4f} (median of {len(ratios)})")
    if prepared is None:
        print("FlagReranker's preparation: not measured (transformers is not installed, or --no-peer)")
    else:
        for name, seconds in (
            ("overhead_flag", args.device_seconds),
            ("overhead_flag_fast_card", args.device_seconds / 5),
        ):
            result[name] = 1 + sum(prepared) / (batches * seconds)
            parts = f"tokenise {prepared[0]:.2f} s, pad {prepared[1]:.2f} s"
            print(f"FlagReranker's preparation, {seconds:.3f} s a batch: {parts}, overhead {result[name]:.4f}")
    report(
        {
            name: str(value) if isinstance(value, Path) else value
            for name, value in settings.items()
            if name != "corpus"
        },
        result,
        as_json=args.json,
    )


if __name__ == "__main__":
    main()
