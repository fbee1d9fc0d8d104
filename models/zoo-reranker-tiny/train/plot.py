"""Draw the training curves of one or more runs: `plot.py LOG... --out training-curve.png`; logs are joined end to end."""

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
    shift = 0.0
    for n, path in enumerate(args.logs):
        rows = [json.loads(x) for x in path.read_text().splitlines()]
        millions = [shift + r["tokens"] / 1e6 for r in rows]
        left.plot(millions, [r["loss"] for r in rows], linewidth=1, label=f"stage {n + 1}")
        checks = [(m, r["valid"]) for m, r in zip(millions, rows) if "valid" in r]
        for key, style in (("en", "o-"), ("zh", "s-"), ("other", "^-")):
            right.plot([m for m, _ in checks], [v[key] for _, v in checks], style, color=f"C{('en', 'zh', 'other').index(key)}",
                       markersize=3, linewidth=1, label=key if n == 0 else None)
        shift = millions[-1]
    left.set(xlabel="million tokens", ylabel="softmax loss (5 passages)", title="training")
    right.set(xlabel="million tokens", ylabel="MRR among 15 passages", title="held-out sections")
    left.legend(fontsize=7)
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(args.out, metadata={"Software": None})


if __name__ == "__main__":
    main()
