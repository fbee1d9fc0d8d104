"""Make a model folder as transformers reads it out of what train.py wrote.

    checkpoint.py OUT/six.0 OUT/six.1 --base WORK/base --out WORK/model        (WORK/base/narrow for the smaller vocabulary)
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load, save_file

BESIDE = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path, nargs="+", help="in their order")
    parser.add_argument("--base", type=Path, required=True, help="the folder of the tokenizer")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tensors = load(b"".join(part.read_bytes() for part in args.parts))
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out / "model.safetensors", metadata={"format": "pt"})
    (args.out / "model.safetensors").chmod(0o644)  # safetensors makes it readable for its owner alone
    for name in BESIDE:
        shutil.copyfile(args.base / name, args.out / name)
    words = tensors["roberta.embeddings.word_embeddings.weight"]
    config = {
        "architectures": ["XLMRobertaForSequenceClassification"], "attention_probs_dropout_prob": 0.0, "bos_token_id": 0, "classifier_dropout": None,
        "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "hidden_size": words.shape[1], "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02, "intermediate_size": tensors["roberta.encoder.layer.0.intermediate.dense.bias"].numel(), "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-05, "max_position_embeddings": 514, "model_type": "xlm-roberta", "num_attention_heads": 12,
        "num_hidden_layers": 1 + max(int(name.split(".")[3]) for name in tensors if ".layer." in name), "pad_token_id": 1,
        "position_embedding_type": "absolute", "torch_dtype": "float16", "transformers_version": "4.57.6", "type_vocab_size": 1, "use_cache": True,
        "vocab_size": words.shape[0],
    }
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{sum(t.numel() for t in tensors.values()) / 1e6:.2f} M parameters, {(args.out / 'model.safetensors').stat().st_size} bytes")


if __name__ == "__main__":
    main()
