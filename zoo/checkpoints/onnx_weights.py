"""Weights of an ONNX graph that lie in other files, brought into a loaded onnx ``ModelProto``.

onnx's own loader refuses files that are links, as those of the hub's snapshots, or that have several, as those that a cache shares.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.checkpoints.onnx_files import read_onnx

if TYPE_CHECKING:
    from numpy.typing import NDArray


def load_onnx(path: Path) -> Any:
    """The ``ModelProto`` of an ONNX file with all its weights.

    Raises InputError if the file is damaged, lacks a file of its weights, or names one outside its folder.
    """
    import onnx

    read_onnx(path).files  # noqa: B018  # which checks them
    proto = onnx.load(str(path), load_external_data=False)
    load_onnx_weights(proto, path.parent)
    return proto


def load_onnx_weights(model: Any, folder: Path, *, below: float = math.inf) -> None:
    """Bring the numbers that lie beside the graph into ``model``: all, or those of tensors of fewer bytes than ``below``."""
    import onnx

    attributes = (attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t"))
    for tensor in (*model.graph.initializer, *attributes):
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if external and (array := map_onnx_tensor(tensor, folder)).nbytes < below:
            tensor.raw_data = array.tobytes()
            tensor.ClearField("data_location")
            del tensor.external_data[:]


def map_onnx_tensor(tensor: Any, folder: Path) -> NDArray[Any]:
    """A tensor's numbers in the file they lie in, mapped rather than read, in the tensor's own shape and type. Raises OSError."""
    import numpy as np
    import onnx

    entry = {item.key: item.value for item in tensor.external_data}
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).newbyteorder("<")
    place = folder / entry["location"]
    return np.memmap(place, kind, "r", offset=int(entry.get("offset", 0)), shape=tuple(tensor.dims))
