"""All that plugin authors import, and the version of it. Nothing else in ``zoo`` is promised to them.

A plugin may say which version it was written for: ``ZOO_API_VERSION = 1`` in the module that its entry point names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.checkpoints.digests import Digests as Digests
    from zoo.checkpoints.files import fingerprint as fingerprint
    from zoo.checkpoints.files import float32_bytes as float32_bytes
    from zoo.checkpoints.files import has_safetensors as has_safetensors
    from zoo.checkpoints.files import model_files as model_files
    from zoo.checkpoints.files import onnx_file as onnx_file
    from zoo.checkpoints.files import weight_files as weight_files
    from zoo.checkpoints.model_config import ModelConfig as ModelConfig
    from zoo.checkpoints.model_config import read_config as read_config
    from zoo.checkpoints.onnx_files import read_onnx as read_onnx
    from zoo.checkpoints.onnx_weights import load_onnx as load_onnx
    from zoo.checkpoints.onnx_weights import load_onnx_weights as load_onnx_weights
    from zoo.checkpoints.onnx_weights import map_onnx_tensor as map_onnx_tensor
    from zoo.checkpoints.safetensors import read_safetensors as read_safetensors
    from zoo.checkpoints.small_weights import computed_in_float16 as computed_in_float16
    from zoo.checkpoints.small_weights import widen_weights as widen_weights
    from zoo.cpus import cpu_flags as cpu_flags
    from zoo.cpus import usable_threads as usable_threads
    from zoo.errors import InputError as InputError
    from zoo.errors import NotInstalledError as NotInstalledError
    from zoo.errors import PluginError as PluginError
    from zoo.errors import ScoreError as ScoreError
    from zoo.errors import UnknownNameError as UnknownNameError
    from zoo.errors import ZooError as ZooError
    from zoo.export import probes as probes
    from zoo.export.process import Job as Job
    from zoo.files import atomic_write as atomic_write
    from zoo.files import is_plain_name as is_plain_name
    from zoo.onnx_runtime import onnxruntime_settings as onnxruntime_settings
    from zoo.onnx_runtime import onnxruntime_version as onnxruntime_version
    from zoo.onnx_runtime import open_onnxruntime as open_onnxruntime
    from zoo.options import Option as Option
    from zoo.paths import bundled as bundled
    from zoo.paths import zoo_home as zoo_home
    from zoo.quiet_imports import environment as environment
    from zoo.quiet_imports import import_onnxruntime as import_onnxruntime
    from zoo.quiet_imports import import_openvino as import_openvino
    from zoo.registry.architecture import Architecture as Architecture
    from zoo.registry.architecture import ArchitectureFactory as ArchitectureFactory
    from zoo.registry.architecture import Requirements as Requirements
    from zoo.registry.card import ModelCard as ModelCard
    from zoo.registry.markers import API_VERSION as API_VERSION
    from zoo.registry.markers import hookimpl as hookimpl
    from zoo.scoring.batch_threads import BatchThreads as BatchThreads
    from zoo.scoring.processes import Processes as Processes
    from zoo.scoring.session_process import ChildSettings as ChildSettings
    from zoo.scoring.session_process import SessionProcess as SessionProcess
    from zoo.strict_json import read_json as read_json
    from zoo.strict_json import read_object as read_object
    from zoo.tokens.prefix_encoder import PrefixEncoder as PrefixEncoder
    from zoo.tokens.tokenizer_file import CheckpointTokenizer as CheckpointTokenizer
    from zoo.tokens.tokenizer_file import tokenizer_faults as tokenizer_faults
    from zoo.types import Artifact as Artifact
    from zoo.types import Availability as Availability
    from zoo.types import BatchInfo as BatchInfo
    from zoo.types import CacheFolder as CacheFolder
    from zoo.types import Checkpoint as Checkpoint
    from zoo.types import CheckpointOffer as CheckpointOffer
    from zoo.types import CommandOffer as CommandOffer
    from zoo.types import Device as Device
    from zoo.types import Encoding as Encoding
    from zoo.types import Encodings as Encodings
    from zoo.types import ExportOffer as ExportOffer
    from zoo.types import ExportRequest as ExportRequest
    from zoo.types import Head as Head
    from zoo.types import Pair as Pair
    from zoo.types import Precision as Precision
    from zoo.types import PrecisionInfo as PrecisionInfo
    from zoo.types import Qrels as Qrels
    from zoo.types import Run as Run
    from zoo.types import Scores as Scores
    from zoo.types import Session as Session
    from zoo.types import SessionOptions as SessionOptions
    from zoo.types import ShapeRule as ShapeRule
    from zoo.types import Step as Step
    from zoo.types import StepReport as StepReport
    from zoo.types import Tensors as Tensors

_PLACES = {
    "zoo.checkpoints.digests": ("Digests",),
    "zoo.checkpoints.files": ("fingerprint", "float32_bytes", "has_safetensors", "model_files", "onnx_file", "weight_files"),
    "zoo.checkpoints.small_weights": ("computed_in_float16", "widen_weights"),
    "zoo.checkpoints.model_config": ("ModelConfig", "read_config"),
    "zoo.checkpoints.onnx_files": ("read_onnx",),
    "zoo.checkpoints.onnx_weights": ("load_onnx", "load_onnx_weights", "map_onnx_tensor"),
    "zoo.checkpoints.safetensors": ("read_safetensors",),
    "zoo.cpus": ("cpu_flags", "usable_threads"),
    "zoo.errors": ("InputError", "NotInstalledError", "PluginError", "ScoreError", "UnknownNameError", "ZooError"),
    "zoo.export": ("probes",),
    "zoo.export.process": ("Job",),
    "zoo.files": ("atomic_write", "is_plain_name"),
    "zoo.onnx_runtime": ("onnxruntime_settings", "onnxruntime_version", "open_onnxruntime"),
    "zoo.options": ("Option",),
    "zoo.paths": ("bundled", "zoo_home"),
    "zoo.quiet_imports": ("environment", "import_onnxruntime", "import_openvino"),
    "zoo.registry.architecture": ("Architecture", "ArchitectureFactory", "Requirements"),
    "zoo.registry.card": ("ModelCard",),
    "zoo.registry.markers": ("API_VERSION", "hookimpl"),
    "zoo.scoring.batch_threads": ("BatchThreads",),
    "zoo.scoring.processes": ("Processes",),
    "zoo.scoring.session_process": ("ChildSettings", "SessionProcess"),
    "zoo.strict_json": ("read_json", "read_object"),
    "zoo.tokens.prefix_encoder": ("PrefixEncoder",),
    "zoo.tokens.tokenizer_file": ("CheckpointTokenizer", "tokenizer_faults"),
    "zoo.types": (
        "Artifact", "Availability", "BatchInfo", "CacheFolder", "Checkpoint", "CheckpointOffer", "CommandOffer", "Device", "Encoding",
        "Encodings",
        "ExportOffer", "ExportRequest", "Head", "Pair", "Precision", "PrecisionInfo", "Qrels", "Run", "Scores", "Session",
        "SessionOptions", "ShapeRule", "Step", "StepReport", "Tensors",
    ),
}  # fmt: skip
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = sorted(_MODULES)  # a test holds it equal to the imports above


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'zoo.api' has no attribute '{name}'")
    if name == "probes":
        return importlib.import_module("zoo.export.probes")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
