"""What a shared prefix saves: the candidates of one query scored with the prefix computed once, and with every prompt whole.

    python benchmarks/shared_prefix.py [--layers 8] [--width 1024] [--rows 20] [--prefix 100] [--document 128] [--rounds 5]

A random Qwen3 of that size is written below a temporary folder (no torch), its graph by zoo_direct. Rounds are interleaved; medians of
CPU seconds are compared, because other programs may be at work. Needs numpy, tokenizers and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

import zoo_cross_encoder
import zoo_decoder
from zoo import Reranker, hookimpl
from zoo.registry.catalogue import Catalogue
from zoo.types import Artifact, Availability, PrecisionInfo, SessionOptions

TEMPLATE = "<s> {instruction} {|}{query} {|}{document}{|} </s>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("layers", 8),
        ("width", 1024),
        ("rows", 20),
        ("prefix", 100),
        ("document", 128),
        ("rounds", 5),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write(folder, args.layers, args.width)
        query = " ".join(["w1"] * (args.prefix - 3))
        passages = [" ".join(f"w{(n * 7 + m) % 500}" for m in range(args.document)) for n in range(args.rows)]
        shared, whole = (opened(folder, state) for state in ("on", "off"))
        times: dict[str, list[float]] = {"on": [], "off": []}
        scores = {}
        for _ in range(args.rounds):
            for state, reranker in (("on", shared), ("off", whole)):
                started = time.process_time()
                with reranker.exclusive() as scorer:
                    scores[state] = [score for _, score in scorer.score(_pairs(query, passages))]
                times[state].append(time.process_time() - started)
                model = reranker._model
                model._prefixes = type(model._prefixes)(model._prefixes._shape)  # type: ignore[attr-defined]  # nothing is known before
        shared.close()
        whole.close()
    median = {state: statistics.median(found) for state, found in times.items()}
    difference = max(abs(a - b) for a, b in zip(scores["on"], scores["off"], strict=True))
    print(f"CPU s for {args.rows} candidates, prefix {args.prefix}, documents {args.document}: whole {median['off']:.2f}, "
          f"shared {median['on']:.2f}, ratio {median['on'] / median['off']:.3f}; scores "
          f"between {min(scores['off']):.3f} and {max(scores['off']):.3f} differ by {difference:.1e}")  # fmt: skip


def _pairs(query: str, passages: list[str]):  # type: ignore[no-untyped-def]
    from zoo.types import Pair

    return [Pair(query, passage) for passage in passages]


def write(folder: Path, layers: int, width: int) -> None:
    """A Qwen3 of random weights with a tokenizer of 500 words."""
    from zoo_cross_encoder.safetensors_file import Tensor, write_file

    words = {"<s>": 0, "</s>": 1, "[UNK]": 2, "yes": 3, "no": 4, "rank": 5} | {f"w{n}": n + 6 for n in range(500)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    heads, key_heads, size, inner = width // 64, max(width // 128, 1), 64, 3 * width
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": len(words), "hidden_size": width,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": key_heads, "head_dim": size,
        "intermediate_size": inner, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "tie_word_embeddings": True,
        "max_position_embeddings": 4096, "pad_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    tensors: dict[str, Tensor] = {}

    def add(name: str, *shape: int) -> None:
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        tensors[name] = Tensor.of(values + np.float32(1) if len(shape) == 1 else values)

    add("model.embed_tokens.weight", len(words), width)
    add("model.norm.weight", width)
    for number in range(layers):
        place = f"model.layers.{number}"
        add(f"{place}.input_layernorm.weight", width)
        add(f"{place}.post_attention_layernorm.weight", width)
        for part, count in (("q", heads), ("k", key_heads), ("v", key_heads)):
            add(f"{place}.self_attn.{part}_proj.weight", count * size, width)
        for part in "qk":
            add(f"{place}.self_attn.{part}_norm.weight", size)
        add(f"{place}.self_attn.o_proj.weight", width, heads * size)
        for part in ("gate", "up"):
            add(f"{place}.mlp.{part}_proj.weight", inner, width)
        add(f"{place}.mlp.down_proj.weight", width, inner)
    write_file(folder / "model.safetensors", tensors)


class Written:
    """A device whose model file is the graph that zoo_direct writes."""

    name, aliases, priority, options = "written", (), 0, ()
    precisions = {"fp32": PrecisionInfo(offered=True)}

    def probe(self) -> Availability:
        return Availability(ok=True)

    def recipe(self, precision: str, checkpoint: object = None) -> tuple[str, ...]:
        return ()

    def open(self, artifact: Artifact, options: SessionOptions):  # type: ignore[no-untyped-def]
        import onnxruntime

        from zoo_cpu.session import CpuSession
        from zoo_direct.build import write_graph

        graph = write_graph(artifact.model, form="onnxruntime", head=dict(artifact.head), shared_prefix=True)
        (artifact.model / "written.onnx").write_bytes(graph.model)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        return CpuSession(
            onnxruntime.InferenceSession(str(artifact.model / "written.onnx"), settings), options.threads or 2
        )


class Plugin:
    """Brings the device."""

    @hookimpl
    def zoo_devices(self):  # type: ignore[no-untyped-def]
        return [Written()]


def opened(folder: Path, state: str) -> Reranker:
    card = folder / "bench.toml"
    card.write_text(
        f"description = 'd'\narchitecture = 'decoder'\nlicense = 'MIT'\nlanguages = ['en']\nmax_length = 4096\n"
        f"[options]\ntemplate = '{TEMPLATE}'\ninstruction = 'rank'\npositive = 'yes'\nnegative = 'no'\n"
    )
    catalogue = Catalogue.of(cards=zoo_cross_encoder, decoder=zoo_decoder, device=Plugin())
    options = {"shared_prefix": state}
    return Reranker.open(
        str(card), device="written", max_length=512, checkpoint=folder, catalogue=catalogue, model_options=options
    )


if __name__ == "__main__":
    main()
