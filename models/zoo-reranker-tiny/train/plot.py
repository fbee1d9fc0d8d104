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
    before = 0
    for log in args.logs:
        rows = [json.loads(x) for x in log.read_text().splitlines()]
        at = [(before + row["tokens"]) / 1e6 for row in rows]
        left.plot(at, [row["loss"] for row in rows], color="C0", linewidth=1)
        checks = [(x, row["valid"]) for x, row in zip(at, rows) if "valid" in row]
        # A line a run: what is held out may differ from one to the next.
        for n, key in enumerate(("en", "zh", "other")):
            for name, style in ((key, "o-"), (f"bm25_{key}", ":")):
                right.plot([x for x, _ in checks], [v[name] for _, v in checks], style, color=f"C{n}", markersize=3, linewidth=1,
                           label=name.replace("bm25_", "BM25, ") if log is args.logs[0] else None)
        before += rows[-1]["tokens"]
        if log is not args.logs[-1]:
            for axes in (left, right):
                axes.axvline(before / 1e6, color="0.8", linewidth=1)
    left.set(xlabel="million tokens", ylabel="cross entropy (5 passages)", title="training, against the softened target")
    right.set(xlabel="million tokens", ylabel="MRR among 15 passages", title="held-out sections")
    right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(args.out, metadata={"Software": None})


if __name__ == "__main__":
    main()
