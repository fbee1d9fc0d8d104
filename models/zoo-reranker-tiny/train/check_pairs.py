"""Score hand-written pairs in float32: each relevant passage must come above the other one.

    check_pairs.py [MODEL]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def main() -> None:
    here = Path(__file__).resolve().parent
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).float().eval()  # 8-bit floats are left in their type
    wrong = 0
    for line in (here / "handwritten.jsonl").open(encoding="utf-8"):
        case = json.loads(line)
        encoded = tokenizer([case["query"]] * 2, [case["relevant"], case["other"]], padding=True, truncation=True, max_length=512, return_tensors="pt")
        with torch.no_grad():
            good, bad = model(**encoded).logits[:, 0].tolist()
        wrong += good <= bad
        print(f"{'ok   ' if good > bad else 'WRONG'} {good:+.4f} {bad:+.4f}  {case['query']}")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
