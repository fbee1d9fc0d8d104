"""A random reranker in Ettin's form: an encoder and a head in the folders of Sentence Transformers' modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from families import make

GELU = "torch.nn.modules.activation.GELU"
IDENTITY = "torch.nn.modules.linear.Identity"
TYPES = {5: "sentence_transformers.models.", 6: "sentence_transformers.base.modules.some_file."}


def ettin(folder: Path, *, pooling: str = "cls", version: int = 5, bias: bool = False, half: bool = False) -> Any:
    """Write a random checkpoint of modules; returns a function from ids to the logit, by torch's own layers."""
    classifier = make(folder, "modernbert")
    import torch
    from safetensors.torch import save_file

    encoder, width = classifier.model, classifier.config.hidden_size
    (folder / "model.safetensors").unlink()
    encoder.save_pretrained(folder)
    torch.manual_seed(3)
    dense, norm, last = torch.nn.Linear(width, width, bias=bias), torch.nn.LayerNorm(width), torch.nn.Linear(width, 1)
    for parameter in (*dense.parameters(), *norm.parameters(), *last.parameters()):
        torch.nn.init.normal_(parameter, std=0.4)
    if half:
        for module in (dense, norm, last):
            module.to(torch.bfloat16).to(torch.float32)
    flags = {
        "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean",
        "include_prompt": True,
    }
    configs = [
        {"word_embedding_dimension": width, **flags}
        if version == 5
        else {"embedding_dimension": width, "pooling_mode": pooling},
        {"in_features": width, "out_features": width, "bias": bias, "activation_function": GELU},
        {"dimension": width},
        {"in_features": width, "out_features": 1, "bias": True, "activation_function": IDENTITY},
    ]
    kinds = ["Transformer", "Pooling", "Dense", "LayerNorm", "Dense"]
    modules = []
    for number, kind in enumerate(kinds):
        path = f"{number}_{kind}" if number else ""
        modules.append({"idx": number, "name": str(number), "path": path, "type": TYPES[version] + kind})
        if number:
            (folder / path).mkdir()
            (folder / path / "config.json").write_text(json.dumps(configs[number - 1]))
    for place, name, module in (
        ("2_Dense", "linear", dense),
        ("3_LayerNorm", "norm", norm),
        ("4_Dense", "linear", last),
    ):
        dtype = torch.bfloat16 if half else torch.float32
        tensors = {f"{name}.{key}": value.to(dtype).contiguous() for key, value in module.state_dict().items()}
        save_file(tensors, folder / place / "model.safetensors")
    (folder / "modules.json").write_text(json.dumps(modules))

    def logit(inputs: Any) -> float:
        with torch.inference_mode():
            tokens = encoder(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state[0]
            pooled = tokens[0] if pooling == "cls" else tokens.mean(0)
            return float(last(norm(torch.nn.functional.gelu(dense(pooled)))))

    return logit
