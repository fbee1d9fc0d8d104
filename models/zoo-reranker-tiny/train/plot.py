"""Draw the training curves: `plot.py LOG... --out training-curve.png`, the logs of runs that went on from one another."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "training-curve.png")
    args = parser.parse_args()
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.2), dpi=90)
    rows, before = [], 0
    for log in args.logs:
        found = [json.loads(x) for x in log.read_text().splitlines()]
        rows += [{**row, "tokens": before + row["tokens"]} for row in found]
        before = rows[-1]["tokens"]
        if log is not args.logs[-1]:
            for axes in (left, right):
                axes.axvline(before / 1e6, color="0.8", linewidth=1)
    left.plot([r["tokens"] / 1e6 for r in rows], [r["loss"] for r in rows], linewidth=1)
    checks = [(r["tokens"] / 1e6, r["valid"]) for r in rows if "valid" in r]
    for n, key in enumerate(("en", "zh", "other")):
        right.plot([m for m, _ in checks], [v[key] for _, v in checks], "o-", color=f"C{n}", markersize=3, linewidth=1, label=key)
        right.plot([m for m, _ in checks], [v[f"bm25_{key}"] for _, v in checks], ":", color=f"C{n}", linewidth=1, label=f"{key}, BM25")
    left.set(xlabel="million tokens", ylabel="cross entropy (5 passages)", title="training, against the softened target")
    right.set(xlabel="million tokens", ylabel="MRR among 15 passages", title="held-out sections")
    right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(args.out, metadata={"Software": None})


if __name__ == "__main__":
    main()
