"""zoo on an NVIDIA card, beside sentence-transformers: pairs a second from text to scores, and what the card alone can do.

One process, one checkpoint (random weights in bge-reranker-v2-m3's shape, written here unless --checkpoint names one), all programs by
turns, round after round, so that a busy machine is busy for all. The medians are shown.

- End to end: mixed passages of 20 to 2,000 words, and long ones of 13,000 characters, cut to --max-length tokens. zoo's own overhead is
  this time over the device's, by the device's own clock.
- The card alone: batches of equal rows, timed by the device. Beside them the roofline: the pairs a second if the model's products ran at
  the rate of one large product, measured between the batches.
- Scores: zoo's in --precision against transformers' in float32.

    python benchmarks/gpu.py [--tokenizer DIR] [--checkpoint DIR] [--precision fp16] [--seconds 230] [--json]
    python benchmarks/gpu.py --device torch --size nano --pairs 64 --long-pairs 8     # the script itself, on a CPU

Without a card it says why and exits with 0.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint import SHAPES, write_checkpoint
from machine import machine, median, report
from peers import make_pairs
from texts import corpora, passages

from zoo.options import read_options
from zoo.paths import bundled
from zoo.registry.card import load_card
from zoo.registry.catalogue import Catalogue
from zoo.registry.stages import Pipeline
from zoo.scoring.scorer import Scorer
from zoo.statistics import spearman
from zoo.types import Artifact, Checkpoint, Pair, SessionOptions
from zoo_cross_encoder.reranker import CrossEncoder

Pairs = Sequence[tuple[str, str]]
Score = Callable[[Pairs, str], Sequence[float]]
"""Scores of pairs; the kind of their passages is for those who keep figures of it."""

PEER_ROWS = (32, 128, 256)
"""Batch sizes of sentence-transformers: its default, and those it is fastest with on large cards."""
ALONE = ((16, 512), (32, 512), (64, 512), (128, 512), (256, 128), (4, 8000))
"""Rows and tokens of the batches that the card computes alone."""
GOALS = {
    "mixed_over_best_peer": (1.35, "at least"),
    "long_over_best_peer": (1.6, "at least"),
    "mixed_overhead": (1.03, "at most"),
    "roofline_share_64x512": (0.65, "at least"),
    "largest_difference": (0.1, "at most"),
    "rank_correlation": (0.999, "at least"),
}


class Zoo:
    """zoo's pipeline on an open session. ``overhead`` has, for each run, its time over the device's."""

    def __init__(self, args: argparse.Namespace, also: Sequence[str] = ()) -> None:
        device = Catalogue.installed().device(args.device)
        options = SessionOptions(
            precision=args.precision,
            batch_size=None,
            max_length=args.max_length,
            extra=read_options(
                f"the device '{device.name}'",
                device.options,
                dict(option.split("=", 1) for option in (*args.device_option, *also)),
            ),
        )
        started = time.perf_counter()
        self.session: Any = device.open(
            Artifact(model=args.checkpoint, is_checkpoint=True, precision=args.precision, origin="benchmark"), options
        )
        self.opening = time.perf_counter() - started
        card = load_card(bundled("models") / "bge-reranker-v2-m3.toml")
        checkpoint = Checkpoint(folder=args.checkpoint, served_by="benchmark")
        self._model = CrossEncoder(card, checkpoint, max_length=args.max_length, query_max_length=args.max_length)
        self.overhead: dict[str, list[float]] = {}

    def score(self, pairs: Pairs, kind: str = "") -> list[float]:
        scorer = Scorer(Pipeline([("model", self._model)]), self.session, None)
        before, started = self.session.device_seconds, time.perf_counter()
        scores = [score for _, score in scorer.score(Pair(*pair) for pair in pairs)]
        passed = time.perf_counter() - started
        self.overhead.setdefault(kind, []).append(passed / (self.session.device_seconds - before))
        return scores


def sentence_transformers(args: argparse.Namespace) -> Callable[[int], Score] | str:
    """``score = of(rows)``, or why it is not there."""
    try:
        import torch
        from sentence_transformers import CrossEncoder as Peer
    except ImportError as error:
        return str(error)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[args.precision]
    where = "cuda" if args.device == "cuda" else "cpu"
    model = Peer(str(args.checkpoint), device=where, max_length=args.max_length, model_kwargs={"dtype": dtype})
    identity = torch.nn.Identity()

    def of(rows: int) -> Score:
        return lambda pairs, kind: model.predict(
            list(pairs), batch_size=rows, activation_fn=identity, show_progress_bar=False
        ).tolist()

    return of


def end_to_end(
    args: argparse.Namespace, zoo: Zoo, sets: Mapping[str, Pairs], deadline: float
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Pairs a second by kind of passages and program, and how far the programs' scores are from zoo's."""
    peer = sentence_transformers(args)
    notes: dict[str, Any] = {}
    programs: dict[str, Score] = {"zoo": zoo.score}
    others = {f"zoo, {option}": Zoo(args, [option]) for option in args.also}
    programs |= {name: other.score for name, other in others.items()}
    if isinstance(peer, str):
        notes["missing"] = {"sentence-transformers": peer}
        print(f"sentence-transformers: missing ({peer})")
    else:
        for rows in args.peer_rows:
            programs[f"sentence-transformers, {rows} rows"] = peer(rows)
    seconds: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in programs} for kind in sets}
    scores: dict[str, Sequence[float]] = {}
    for program in programs.values():
        program(sets["mixed"][: args.warm_up], "warm-up")
    rounds, longest = 0, 0.0
    while rounds < args.rounds and (not rounds or time.perf_counter() + longest < deadline):
        began = time.perf_counter()
        for kind, pairs in sets.items():
            for name, program in programs.items():
                started = time.perf_counter()
                result = program(pairs, kind)
                seconds[kind][name].append(time.perf_counter() - started)
                scores.setdefault(f"{name}/{kind}", result)
                print(
                    f"round {rounds + 1}, {kind}: {name} {len(pairs) / seconds[kind][name][-1]:.1f} pairs/s", flush=True
                )
        rounds, longest = rounds + 1, max(longest, time.perf_counter() - began)
    notes["rounds"] = rounds
    for other in others.values():
        other.session.close()
    notes["overhead_also"] = {name: other.overhead for name, other in others.items()}
    notes["apart_from_zoo"] = {
        name: float(np.abs(np.subtract(values, scores[f"zoo/{name.rpartition('/')[2]}"])).max())
        for name, values in scores.items()
        if not name.startswith("zoo/")
    }
    rates = {
        kind: {name: len(sets[kind]) / median(times) for name, times in own.items()} for kind, own in seconds.items()
    }
    return rates, notes


def operations(config: Mapping[str, Any], tokens: int) -> float:
    """Floating-point operations of an encoder's matrix products for a pair of so many tokens, every token in every layer."""
    layers, hidden, wide = (config[key] for key in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    return 2.0 * layers * (tokens * (4 * hidden**2 + 2 * hidden * wide) + 2 * tokens**2 * hidden)


def product_rate(args: argparse.Namespace) -> float:
    """Floating-point operations a second of one large square product in the precision, the best of five."""
    import torch

    where, size = ("cuda", 8192) if args.device == "cuda" else ("cpu", 1024)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[args.precision]
    a, b = torch.randn(2, size, size, device=where, dtype=dtype)
    best = 0.0
    for _ in range(6):  # the first one chooses its kernel
        if where == "cuda":
            begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begun.record()
            a @ b
            ended.record()
            ended.synchronize()
            passed = begun.elapsed_time(ended) / 1000
        else:
            started = time.perf_counter()
            a @ b
            passed = time.perf_counter() - started
        best = max(best, 2.0 * size**3 / passed)
    return best


def alone(args: argparse.Namespace, zoo: Zoo, config: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs a second of the device by its own clock, for batches of equal rows, and their share of the roofline."""
    random = np.random.default_rng(0)
    rates: dict[str, list[float]] = {}
    fastest = 0.0
    shapes = [(rows, tokens) for rows, tokens in ALONE if args.device == "cuda" or rows * tokens <= 8192]
    batches = {}
    for rows, tokens in shapes:
        ids = random.integers(5, config["vocab_size"], (rows, tokens))
        batches[f"{rows}x{tokens}"] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    for _ in range(args.alone_rounds):
        fastest = max(fastest, product_rate(args))
        for name, inputs in batches.items():
            zoo.session.submit(inputs).result()
            before = zoo.session.device_seconds
            for future in [zoo.session.submit(inputs) for _ in range(args.alone_batches)]:
                future.result()
            passed = zoo.session.device_seconds - before
            rates.setdefault(name, []).append(args.alone_batches * len(inputs["input_ids"]) / passed)
    result = {}
    for name, values in rates.items():
        roofline = fastest / operations(config, int(name.partition("x")[2]))
        result[name] = {"pairs_per_second": median(values), "roofline": roofline, "share": median(values) / roofline}
        print(
            f"the device alone, {name}: {median(values):.1f} pairs/s, {median(values) / roofline:.3f} of the roofline"
        )
    return {"product_flops": fastest, "batches": result}


def agreement(args: argparse.Namespace, zoo: Zoo, pairs: Pairs) -> dict[str, float]:
    """Zoo's scores in the precision against transformers' in float32, on the same token ids."""
    import torch
    from transformers import AutoModelForSequenceClassification

    encodings = zoo._model.preprocess([Pair(*pair) for pair in pairs])
    reference: Any = AutoModelForSequenceClassification.from_pretrained(args.checkpoint, use_safetensors=True)
    reference = reference.float().eval().to("cuda" if args.device == "cuda" else "cpu")
    torch.set_float32_matmul_precision("highest")
    expected = []
    with torch.inference_mode():
        for row in encodings.rows:
            ids = torch.tensor([list(row.features["input_ids"])], device=reference.device)
            expected.append(float(reference(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0]))
    del reference
    scores = zoo.score(pairs, "agreement")
    return {
        "largest_difference": float(np.abs(np.subtract(scores, expected)).max()),
        "rank_correlation": float(spearman(scores, expected)),
        "spread": float(np.std(expected)),
    }


def goals(result: Mapping[str, Any]) -> dict[str, float]:
    """The figures that goals are set for."""
    figures: dict[str, float] = {}
    for kind, rates in result["pairs_per_second"].items():
        peers = [rate for name, rate in rates.items() if not name.startswith("zoo")]
        if peers:
            figures[f"{kind}_over_best_peer"] = rates["zoo"] / max(peers)
        figures[f"{kind}_overhead"] = median(result["overhead"][kind])
    if share := result["alone"]["batches"].get("64x512"):
        figures["roofline_share_64x512"] = share["share"]
    return {**figures, **{name: result["agreement"][name] for name in ("largest_difference", "rank_correlation")}}


def run(args: argparse.Namespace, deadline: float) -> dict[str, Any]:
    config = json.loads((args.checkpoint / "config.json").read_text(encoding="utf-8"))
    files = corpora(args.corpus)
    sets: dict[str, Pairs] = {"mixed": make_pairs(args.pairs, args.corpus)}
    if args.long_pairs:
        texts = passages(files, args.long_pairs, 13_000)
        sets["long"] = [(f"what do giant pandas eat in year {number % 16}?", text) for number, text in enumerate(texts)]
    zoo = Zoo(args)
    result: dict[str, Any] = {"opening_seconds": zoo.opening}
    result["agreement"] = agreement(args, zoo, sets["mixed"][: args.agreement_pairs])
    print(", ".join(f"{name.replace('_', ' ')} {value:.5g}" for name, value in result["agreement"].items()))
    result["alone"] = alone(args, zoo, config)
    result["pairs_per_second"], notes = end_to_end(args, zoo, sets, deadline)
    result |= notes
    result["overhead"] = zoo.overhead
    zoo.session.close()
    for kind, rates in result["pairs_per_second"].items():
        for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
            print(f"{kind:6s} {name:34s} {rate:9.1f} pairs/s")
    figures = result["figures"] = goals(result)
    for name, value in figures.items():
        bound, word = GOALS.get(name, (None, ""))
        met = "" if bound is None else "met" if (value >= bound) == (word == "at least") else "MISSED"
        print(f"{name.replace('_', ' ')}: {value:.4f}" + (f"  (goal: {word} {bound}: {met})" if bound else ""))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", choices=("cuda", "torch"), default="cuda", help="torch is the CPU, to try the script"
    )
    parser.add_argument("--device-option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=VALUE", help="zoo again with this device option, by turns"
    )
    parser.add_argument("--precision", choices=("fp16", "bf16", "fp32"), help="default: fp16 on a card, fp32 on a CPU")
    parser.add_argument("--size", choices=SHAPES, default="full", help="of the checkpoint that is written")
    parser.add_argument("--checkpoint", type=Path, help="an XLM-RoBERTa cross-encoder, in place of a random one")
    parser.add_argument("--tokenizer", type=Path, help="folder with the tokenizer of the random checkpoint")
    parser.add_argument(
        "--corpus", type=Path, action="append", default=[], help="JSON lines with a 'text' each; repeatable"
    )
    parser.add_argument("--pairs", type=int, default=8192, help="pairs with passages of mixed lengths")
    parser.add_argument("--long-pairs", type=int, default=4096, help="pairs with passages of 13,000 characters")
    parser.add_argument("--agreement-pairs", type=int, default=256, help="pairs that are held against float32")
    parser.add_argument(
        "--warm-up", type=int, default=512, help="pairs that each program scores before the clock starts"
    )
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3, help="rounds at most; the medians are shown")
    parser.add_argument("--alone-rounds", type=int, default=3)
    parser.add_argument("--alone-batches", type=int, default=10)
    parser.add_argument("--peer-rows", type=int, nargs="*", default=PEER_ROWS)
    parser.add_argument("--seconds", type=float, default=230.0, help="no round is begun that would end after so long")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    args = parser.parse_args()
    available = Catalogue.installed().device(args.device).probe()
    if not available.ok:
        print(f"not measured: the device '{args.device}' is not available here: {available.reason}. {available.remedy}")
        if args.json:
            print(json.dumps({"skipped": available.reason}))
        return
    args.precision = args.precision or ("fp16" if args.device == "cuda" else "fp32")
    settings = {
        **machine(["zoo-runner", "torch", "transformers", "sentence-transformers", "tokenizers", "numpy"]),
        **dict(available.details),
        **{
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(args).items()
            if name != "corpus"
        },
    }
    deadline = time.perf_counter() + args.seconds
    with tempfile.TemporaryDirectory(prefix="zoo-gpu-") as scratch:
        if args.checkpoint is None:
            args.checkpoint = write_checkpoint(Path(scratch) / "checkpoint", args.size, args.tokenizer)
        result = run(args, deadline)
    report(settings, result, as_json=args.json)


if __name__ == "__main__":
    main()
