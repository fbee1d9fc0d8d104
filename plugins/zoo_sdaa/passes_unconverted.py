"""The default passes without a conversion: for ONNX files that compute in float16 already (``*_dyn_fp16.onnx``)."""

from __future__ import annotations

from zoo_sdaa.passes import use_passes as use_passes

need_convert = False
