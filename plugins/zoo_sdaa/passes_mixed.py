"""The default passes, with softmax and LayerNorm left in float32: for a model whose scores suffer from float16.

Both add up many numbers, which is where float16 loses most. Matrix products, nearly all of the work, stay in float16. An export before
opset 17 has no LayerNorm but the operations it is made of; those that are made of sums are named.

No published source says whether ``skip_ops`` takes Relay's names or ONNX's, so both are here: a name that is not known matches nothing.
"""

from __future__ import annotations

from zoo_sdaa.passes import use_passes as use_passes

skip_ops = [
    "nn.softmax", "nn.layer_norm", "mean", "variance", "subtract", "power", "sqrt", "rsqrt", "divide",
    "Softmax", "LayerNormalization", "ReduceMean", "Sub", "Pow", "Sqrt", "Div",
]  # fmt: skip
