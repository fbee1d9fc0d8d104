"""Average the weights of two models of one tokenizer, the second trained on from the first (Wortsman et al., Robust fine-tuning of
zero-shot models, 2022: between them often lies a model that does better on other data than either).

    average.py FIRST SECOND --out OUT [--second 0.5]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from checkpoint import write_like
from safetensors.numpy import load_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs=2)
    parser.add_argument("--second", type=float, default=0.5, help="share of the second")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    first, second = args.models
    if (first / "tokenizer.json").read_bytes() != (second / "tokenizer.json").read_bytes():
        raise SystemExit(f"{first} and {second} do not have the same tokenizer")
    a, b = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    mixed = {k: ((1 - args.second) * a[k].astype(np.float32) + args.second * b[k].astype(np.float32)).astype(np.float16) for k in a}
    write_like(second, args.out, mixed)


if __name__ == "__main__":
    main()
