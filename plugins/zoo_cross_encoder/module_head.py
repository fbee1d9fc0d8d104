"""A reranker that Sentence Transformers saved as modules, put into the form that transformers and the exporters know.

Ettin's are ModernBERT's encoder, ``Pooling``, ``Dense`` with GELU, ``LayerNorm`` and ``Dense`` of one output, each module in a folder of
its own (sentence_transformers, ``modules.json``). transformers' ``ModernBertForSequenceClassification`` computes the same: its head is
dense, activation, norm, and a classifier. Only names differ, and the norm's bias b, which transformers' has not: with the classifier's
weight w and bias c, w (n + b) + c is w n + (w b + c).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.api import (
    Checkpoint,
    Digests,
    InputError,
    ZooError,
    is_plain_name,
    read_json,
    read_object,
    weight_files,
    zoo_home,
)
from zoo_cross_encoder.safetensors_file import Tensor, read_header, write_file

HEAD_CLASS = "ModernBertForSequenceClassification"
KINDS = ["Transformer", "Pooling", "Dense", "LayerNorm", "Dense"]
ACTIVATIONS = {"torch.nn.modules.activation.GELU": "gelu"}
IDENTITY = "torch.nn.modules.linear.Identity"
EPSILON = 1e-5
"""That of the module ``LayerNorm``, which is torch's default."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class ModuleHead:
    """The modules behind the encoder in ``folder``: the folders of dense, norm and classifier, and how tokens are pooled."""

    folder: Path
    dense: Path
    norm: Path
    classifier: Path
    pooling: str
    config: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> ModuleHead | None:
        """The head, or None if the checkpoint is not one of such modules. Raises ZooError if it is one, of a kind that is not known."""
        listed, config = folder / "modules.json", read_object(folder / "config.json")
        if not listed.is_file() or config.get("architectures") == [HEAD_CLASS]:
            return None
        modules = read_json(listed)
        if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
            raise InputError(listed, None, "is not a list of modules")
        if [str(module.get("type", "")).rpartition(".")[2] for module in modules] != KINDS:
            return None
        if config.get("model_type") != "modernbert":
            raise InputError(listed, None, f"puts a head on '{config.get('model_type')}'; only ModernBERT's is known")
        names = [str(module.get("path", "")) for module in modules[1:]]
        if not all(map(is_plain_name, names)):
            raise InputError(listed, None, "names a module outside its folder")
        places = [folder / name for name in names]
        head = cls(folder, places[1], places[2], places[3], _pooling(read_object(places[0] / "config.json")), config)
        head._check()
        return head

    def _check(self) -> None:
        dense, classifier = read_object(self.dense / "config.json"), read_object(self.classifier / "config.json")
        if (
            str(dense.get("activation_function")) not in ACTIVATIONS
            or classifier.get("activation_function") != IDENTITY
        ):
            raise InputError(self.folder / "modules.json", None, "has a head with activations other than GELU and none")
        if classifier.get("out_features") != 1:
            raise InputError(
                self.classifier / "config.json",
                None,
                f"has {classifier.get('out_features')} outputs; a reranker has one",
            )
        if dense.get("use_residual") or classifier.get("use_residual"):
            raise InputError(self.folder / "modules.json", None, "has a head with a residual, which is not known")
        if self.config.get("norm_eps", EPSILON) != EPSILON:
            raise InputError(
                self.folder / "config.json",
                None,
                f"has 'norm_eps' {self.config['norm_eps']}; the head's norm has {EPSILON}",
            )

    def rebuilt(self, checkpoint: Checkpoint, *, weights: bool) -> Checkpoint:
        """The same model as one checkpoint below ``ZOO_HOME``, made once; without ``weights`` it has only the small files."""
        place = zoo_home() / "rebuilt" / f"{self.folder.name[:40]}-{self._key(weights=weights)}"
        if not place.is_dir():
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=f"{place.name}.partial-", dir=place.parent) as work:
                    made = Path(work) / "checkpoint"
                    made.mkdir()
                    self._write(made, weights=weights)
                    made.rename(place)
            except OSError as error:
                if not place.is_dir():  # else another process was faster
                    raise ZooError(f"cannot write {place}: {error.strerror or error}") from error
        return replace(checkpoint, folder=place)

    def _key(self, *, weights: bool) -> str:
        digests = Digests(zoo_home() / "digests.json")
        names = [name for name in ("config.json", *TOKENIZER) if (self.folder / name).is_file()]
        files = [self.folder / name for name in names]
        if weights:
            files += [
                *weight_files(self.folder),
                *(_weights(place) for place in (self.dense, self.norm, self.classifier)),
            ]
        parts = [f"{path.name} {digests.of(path)}" for path in files]
        return hashlib.sha256("\n".join([self.pooling, *parts]).encode()).hexdigest()[:16]

    def _write(self, folder: Path, *, weights: bool) -> None:
        bias = bool(read_object(self.dense / "config.json").get("bias", True))
        config = {
            **self.config, "architectures": [HEAD_CLASS], "classifier_pooling": self.pooling, "classifier_bias": bias,
            "classifier_activation": "gelu", "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0},
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        for name in TOKENIZER:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, folder / name)
        if weights:
            write_file(folder / "model.safetensors", {**self._body(), **self._head()})

    def _body(self) -> dict[str, Tensor]:
        files = [path for path in weight_files(self.folder) if path.suffix == ".safetensors"]
        tensors = {name: tensor for path in files for name, tensor in read_header(path).items()}
        if any(name.startswith("model.") for name in tensors):  # saved with a head of the pre-training
            return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
        return {f"model.{name}": tensor for name, tensor in tensors.items()}

    def _head(self) -> dict[str, Tensor]:
        import numpy as np

        dense, norm, last = (read_header(_weights(place)) for place in (self.dense, self.norm, self.classifier))
        try:
            made = {
                "head.dense.weight": dense["linear.weight"],
                "head.norm.weight": norm["norm.weight"],
                "classifier.weight": last["linear.weight"],
            }
            if "linear.bias" in dense:
                made["head.dense.bias"] = dense["linear.bias"]
            bias: Any = last["linear.bias"].array() if "linear.bias" in last else np.zeros(1, np.float32)
            if "norm.bias" in norm:
                bias = bias + (
                    last["linear.weight"].array().astype(np.float64) @ norm["norm.bias"].array().astype(np.float64)
                )
            folded = bias.astype(np.float32).reshape(1)
        except KeyError as error:
            raise InputError(
                self.folder / "modules.json", None, f"names a module without the tensor {error}"
            ) from error
        except ValueError as error:
            raise InputError(
                self.folder / "modules.json",
                None,
                f"names modules whose tensors do not fit together: {error}. Fetch the repository again, whole",
            ) from error
        return {**made, "classifier.bias": Tensor.of(folded)}


def _weights(folder: Path) -> Path:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise InputError(path, None, "is missing: it holds a part of the head. Fetch the repository whole")
    return path


def _pooling(config: Mapping[str, Any]) -> str:
    """``cls`` or ``mean``; versions of Sentence Transformers write it as flags, or as one name."""
    named = config.get("pooling_mode")
    on = (
        [named]
        if named
        else [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    )
    known = {"cls": "cls", "pooling_mode_cls_token": "cls", "mean": "mean", "pooling_mode_mean_tokens": "mean"}
    if len(on) != 1 or str(on[0]) not in known:
        raise ZooError(
            f"a pooling of {' and '.join(map(str, on)) or 'nothing':.200} is not known; it must be the first token's or the mean"
        )
    return known[str(on[0])]
