"""Average the weights of two models of one tokenizer, the second trained on from the first: between them is often better than either.

    average.py FIRST SECOND --out OUT [--second 0.5]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


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
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(mixed, args.out / "model.safetensors", metadata={"format": "pt"})
    (args.out / "model.safetensors").chmod(0o644)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(second / name, args.out / name)


if __name__ == "__main__":
    main()
