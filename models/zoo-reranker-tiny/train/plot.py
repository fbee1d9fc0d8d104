"""Draw the training curves: `plot.py LOG --out training-curve.png`, the log of train.py."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "training-curve.png")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.log.read_text().splitlines()]
    shapes = list(dict.fromkeys(row["shape"] for row in rows if "shape" in row))
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.2), dpi=90)
    for n, shape in enumerate(shapes):
        steps = [row for row in rows if row.get("shape") == shape and "phase" in row]
        for phase, seed in dict.fromkeys((row["phase"], row["seed"]) for row in steps):
            part = [row for row in steps if (row["phase"], row["seed"]) == (phase, seed)]
            left.plot([row["tokens"] / 1e6 for row in part], [row["loss"] for row in part], color=f"C{n}", linewidth=1, alpha=1 if phase == "trunk" else 0.6,
                      label=shape if phase == "trunk" else None)
    left.set(xlabel="million tokens", ylabel="cross entropy (8 passages)", title="training, against the softened target")
    left.legend(fontsize=7)
    measured = [row for row in rows if "measured" in row]
    kinds = ("sentences", "paragraphs", "long", "rare")
    for n, shape in enumerate(shapes):
        best = [row for row in measured if row["shape"] == shape and row["kept"]][-1]["mrr"]
        right.bar([x + 0.27 * n for x in range(len(kinds))], [best[kind] for kind in kinds], 0.25, color=f"C{n}", label=shape)
    right.bar([x + 0.27 * len(shapes) for x in range(len(kinds))], [measured[0]["mrr"][f"bm25 {kind}"] for kind in kinds], 0.25, color="0.7", label="BM25")
    right.set(ylabel="MRR among 49 passages", title="held-out sections", ylim=(0.5, 0.95), xticks=[x + 0.27 for x in range(len(kinds))])
    right.set_xticklabels([*kinds[:-1], "rare words"], fontsize=7)
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(args.out, metadata={"Software": None})


if __name__ == "__main__":
    main()
