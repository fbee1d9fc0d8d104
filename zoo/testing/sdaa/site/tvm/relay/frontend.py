"""``tvm.relay.frontend``"""

from zoo.testing.sdaa import compiler

with compiler.as_in(globals(), "tvm.relay.frontend"):
    from zoo.testing.sdaa.compiler import convert_float_to_float16, from_onnx

__all__ = ["convert_float_to_float16", "from_onnx"]
