"""ONNX Runtime: which version is here, and sessions that everybody opens alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.quiet_imports import import_onnxruntime

RIGHT_MEMORY_PLANS = (1, 19)
"""The first version whose plans of a batch's memory give nothing away that is still read. With 1.17 and 1.18 an integer could change
under a graph, and with it the scores (a decoder's were off by a tenth) or the shape of a tensor."""
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
NOT_FASTER = ("SkipLayerNormFusion",)
"""What ONNX Runtime joins by itself although it is slower joined: its SkipLayerNormalization took 4 to 6 % off the speed of 24 layers of
1,024, and 7 to 9 % off that of six layers, beside Add and LayerNormalization."""
QUIET = 3
"""Errors alone: warnings about initializers that nothing reads are not the user's business."""


def onnxruntime_version() -> tuple[int, int]:
    """Major and minor version. Raises ImportError."""
    major, minor = str(import_onnxruntime().__version__).split(".")[:2]
    return int(major), int(minor)


def onnxruntime_settings(threads: int, *, pack: bool = True, join_int8: bool = True) -> Any:
    """``SessionOptions`` for sessions that compute on ``threads`` threads; the caller may change them. Raises ImportError.

    Without ``pack``, weights are read where they are mapped, and not laid out anew in memory of the process's own. Without ``join_int8``,
    weights in int8 are widened before they are used, as the graph says. Up to 1.23 at least, ONNX Runtime moves that behind the look-up of
    a table and then refuses its own graph.
    """
    settings = import_onnxruntime().SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = QUIET
    settings.enable_mem_pattern = onnxruntime_version() >= RIGHT_MEMORY_PLANS
    settings.add_session_config_entry("session.disable_prepacking", "0" if pack else "1")
    settings.add_session_config_entry("session.disable_quant_qdq", "0" if join_int8 else "1")
    return settings


def open_onnxruntime(model: Path | bytes, settings: Any, weights_folder: Path | None = None) -> Any:
    """An ``InferenceSession`` on the CPU. ``weights_folder`` is where external data lies if not beside the file.

    Raises what ONNX Runtime raises: classes of its own, which differ between versions.
    """
    source: str | bytes = str(model) if isinstance(model, Path) else model
    if weights_folder is not None:
        source = model.read_bytes() if isinstance(model, Path) else model
        settings.add_session_config_entry(WEIGHTS_FOLDER, str(weights_folder))
    return import_onnxruntime().InferenceSession(
        source, settings, providers=["CPUExecutionProvider"], disabled_optimizers=NOT_FASTER
    )
