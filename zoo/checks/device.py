"""What ``zoo verify`` does: the same pairs and data sets on the device, on the CPU and in PyTorch, and what that says."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import zoo
from zoo.checkpoints.resolve import resolve
from zoo.checks.bounds import (
    DEMO,
    DEVICE_METRIC_BOUND,
    TORCH_METRIC_BOUND,
    Check,
    card_checks,
    golden_checks,
    metric_checks,
    output_check,
)
from zoo.checks.compare import Variant, recommended, variants
from zoo.checks.machine import examine
from zoo.checks.side import Shown, Side, affordable, open_side
from zoo.errors import NotInstalledError, ZooError
from zoo.evaluation.datasets import MINIATURE, DataRequest, find_layouts, open_collections
from zoo.evaluation.metrics import MAIN
from zoo.pairs import read_pairs
from zoo.paths import bundled
from zoo.registry.card import ModelCard
from zoo.registry.catalogue import Catalogue
from zoo.settings import RunSettings
from zoo.types import Pair

logger = logging.getLogger(__name__)

PAIRS = "verify.jsonl"
DEMO_LINES = 2
"""The bundled pairs begin with the demo's."""
QUICK_PAIRS = 8
MINUTES = 10.0
"""How long the data sets may take on a side, if the user does not say it."""


@dataclass(frozen=True, kw_only=True)
class VerifyRequest:
    """What to compare on. ``data_path`` is a file of pairs or the folder of a labelled data set; None is what is bundled.

    ``torch`` None compares with PyTorch if it and the weights are there. ``minutes`` bounds the data sets: they are cut to as many
    queries as are expected to take so long, unless ``limit`` says how many there are to be. ``quick`` is a few pairs, and no more.
    ``compare`` is a device option and the values of it that are compared.
    """

    data_path: str | None = None
    torch: bool | None = None
    pairs_only: bool = False
    quick: bool = False
    limit: int | None = None
    minutes: float = MINUTES
    compare: tuple[str, tuple[str, ...]] | None = None


def verify(
    catalogue: Catalogue,
    settings: RunSettings,
    request: VerifyRequest,
    shown: Shown = lambda items, total, label: items,
) -> dict[str, Any]:
    """Score, compare, report; the report's ``passed`` is the verdict. Raises ZooError if something cannot be run at all."""
    named = resolve(catalogue, settings.model, offline=settings.offline)
    card, settings = named.card, replace(settings, model=named.name)  # of one revision for the device and the CPU
    if request.torch:
        _need_torch()
    folder = Path(request.data_path) if request.data_path and Path(request.data_path).is_dir() else None
    own_pairs = None if folder else request.data_path
    pairs = golden_pairs(own_pairs)[: QUICK_PAIRS if request.quick else None]
    published = [] if own_pairs else [Pair(golden.query, golden.passage) for golden in card.golden]
    pairs += published
    with tempfile.TemporaryDirectory(prefix="zoo-verify-") as work:
        data = DataRequest(data_path=folder, limit=request.limit, offline=settings.offline, work=Path(work))
        pairs_only = request.pairs_only or request.quick
        wanted = not pairs_only and (folder is not None or (own_pairs is None and _on_miniature(card)))
        whole = open_collections(find_layouts(data), data) if wanted else []
        # The device comes first, so that one that does not work is an error at once.
        measured = variants(settings, request.compare)
        for variant in measured:
            _score_pairs(catalogue, variant, pairs, shown)
        working = [variant for variant in measured if variant.side]
        sides = [variant.side for variant in working if variant.side]
        if not sides:
            raise ZooError(measured[0].error)
        with open_side(catalogue, _on_cpu(settings), shown) as reference:
            reference.score_pairs(pairs)
            if _in_torch(reference.reranker.checkpoint.folder, False if request.quick else request.torch):
                reference.score_pairs_in_torch()
            collections = whole
            if request.limit is None:
                collections = affordable(whole, [*sides, reference], 60 * request.minutes)
            for collection in collections:
                reference.judge(collection)
        if collections:
            for variant, side in zip(working, sides, strict=True):
                with open_side(catalogue, variant.settings, shown, side):
                    for collection in collections:
                        side.judge(collection)
    queries = {
        f"{part.dataset}/{part.language}": {"scored": len(part.candidates), "there": len(every.candidates)}
        for part, every in zip(collections, whole, strict=True)
    }
    on_card = set() if own_pairs else {DEMO}
    if request.limit is None:
        on_card.update(name for name, count in queries.items() if count["scored"] == count["there"])
    for variant, side in zip(working, sides, strict=True):
        variant.checks = list(_checks(card, side, reference, on_card))
    return _report(catalogue, settings, pairs, measured, reference, queries)


def _score_pairs(catalogue: Catalogue, variant: Variant, pairs: Sequence[Pair], shown: Shown) -> None:
    """One of several variants that fails is reported, and the others are compared; a single one fails the command."""
    try:
        with open_side(catalogue, variant.settings, shown) as side:
            side.score_pairs(pairs)
    except ZooError as error:
        if not variant.option:
            raise
        logger.warning("%s=%s cannot be compared: %s", variant.option, variant.value, error)
        variant.error = str(error)
    else:
        variant.side = side


def _checks(card: ModelCard, device: Side, reference: Side, on_card: set[str]) -> Iterator[Check]:
    """``on_card`` are the data sets whose results the card's own values are for."""
    name, precision = device.name, device.reranker.precision
    yield output_check(f"{name} against ONNX Runtime", device.scores, reference.scores, precision)
    # Both sides share the model's stages: what they get wrong in a padded batch shows only beside another batch.
    yield output_check(f"{name}, batches against other batches", device.scores, device.reversed, precision)
    if reference.exact is not None:
        yield output_check("ONNX Runtime against PyTorch", reference.scores, reference.exact, "fp32")
    if DEMO in on_card:
        yield from golden_checks(card, device.scores[len(device.scores) - len(card.golden) :])
        yield from card_checks(
            card, DEMO, {f"score@{line}": device.scores[line - 1] for line in range(1, DEMO_LINES + 1)}
        )
    for dataset, metrics in device.metrics.items():
        against = f"{name} against ONNX Runtime, {dataset}"
        yield from metric_checks(against, metrics, reference.metrics[dataset], DEVICE_METRIC_BOUND, [MAIN])
        if dataset in reference.exact_metrics:
            against, exact = f"ONNX Runtime against PyTorch, {dataset}", reference.exact_metrics[dataset]
            yield from metric_checks(against, reference.metrics[dataset], exact, TORCH_METRIC_BOUND, [MAIN])
        if dataset in on_card:
            yield from card_checks(card, dataset, metrics)


def _on_miniature(card: ModelCard) -> bool:
    """Whether the card gives values for the data set that is bundled."""
    return any(entry.dataset.partition("/")[0] == MINIATURE for entry in card.reference)


def golden_pairs(data_path: str | None) -> list[Pair]:
    """The pairs of ``data_path``, or the bundled ones and one that is too long for any limit."""
    with read_pairs(data_path or str(bundled("datas") / PAIRS), BytesIO()) as source:
        source.check()
        pairs = [pair for record in source for pair in record.pairs]
    if data_path is None:
        everything = " ".join(pair.passage for pair in pairs)
        pairs.append(Pair(pairs[1].query, " ".join([everything] * 20)))
    return pairs


def _on_cpu(settings: RunSettings) -> RunSettings:
    """The same model by ONNX Runtime in float32; an engine file is the device's alone, so there the checkpoint is exported."""
    ckpt = settings.ckpt if settings.ckpt and settings.ckpt.suffix == ".onnx" else None
    return replace(settings, target="cpu", precision="fp32", ckpt=ckpt, device_options={})


def _in_torch(folder: Path, asked: bool | None) -> bool:
    """Whether PyTorch is asked for or is available. Raises ZooError if it is asked for and the weights are not there."""
    weights = any(folder.glob("*.safetensors"))
    if asked and not weights:
        raise ZooError(
            f"comparing with PyTorch (`torch`) needs *.safetensors, and {folder} has none: name a whole checkpoint"
        )
    there = weights and all(importlib.util.find_spec(module) for module in ("torch", "transformers"))
    return bool(asked) or (asked is None and there)


def _need_torch() -> None:
    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            raise NotInstalledError(
                f"comparing with PyTorch (`torch`) needs the Python module '{module}': pip install 'zoo-runner[export]'"
            )


def _report(
    catalogue: Catalogue,
    settings: RunSettings,
    pairs: Sequence[Pair],
    measured: Sequence[Variant],
    reference: Side,
    queries: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    best = recommended(measured)
    about = best or next(variant for variant in measured if variant.side)
    device, checks, exact = about.side, about.checks, reference.exact
    assert device is not None
    comparison = {"compared": [variant.report for variant in measured], "recommended": best.value if best else None}
    rows = zip(pairs, device.encodings.rows, device.scores, reference.scores, strict=True)
    return {
        "zoo": zoo.__version__,
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": settings.model,
        "passed": all(check.passed for check in checks),
        "checks": [{**asdict(check), "passed": check.passed} for check in checks],
        **(comparison if len(measured) > 1 else {}),
        "largest_difference": max(abs(a - b) for a, b in zip(device.scores, reference.scores, strict=True)),
        "pairs_in_another_order": _swaps(device.scores, reference.scores),
        "queries": queries,
        "metrics": {
            name: {
                "device": dict(device.metrics[name]),
                "cpu": dict(reference.metrics[name]),
                **({"torch": dict(reference.exact_metrics[name])} if name in reference.exact_metrics else {}),
            }
            for name in device.metrics
        },
        "device": device.facts,
        "reference": reference.facts,
        "settings": {
            "target": settings.target,
            "batch_size": settings.batch_size,
            "device_options": dict(settings.device_options),
        },
        "pairs": [
            {
                "query": pair.query,
                "passage": pair.passage[:200],
                "tokens": row.length,
                "device": score,
                "cpu": expected,
                **({} if exact is None else {"torch": exact[number]}),
            }
            for number, (pair, row, score, expected) in enumerate(rows)
        ],
        "machine": examine(catalogue, offline=True),
    }


def _swaps(scores: Sequence[float], reference: Sequence[float]) -> int:
    """How many times two pairs are in another order than the reference has them; a tie on either side does not count."""
    passed: list[float] = []
    count = 0
    for _, score in sorted(zip(reference, scores, strict=True)):
        count += len(passed) - bisect_right(passed, score)
        insort(passed, score)
    return count
