"""``tvm.relay.frontend``"""

from zoo_sdaa.testing import versions

with versions.as_in(globals(), "tvm.relay.frontend"):
    from zoo_sdaa.testing.compiler import convert_float_to_float16, from_onnx

__all__ = ["convert_float_to_float16", "from_onnx"]
