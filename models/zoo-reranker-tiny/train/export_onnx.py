"""Write `model.onnx` beside a checkpoint, its weights left in `model.safetensors`.

    export_onnx.py [FOLDER]           default: the folder above this script

The graph is optimum's own export (task text-classification). Its float32 initialisers are then replaced by references
into the checkpoint: ONNX external data is a file, an offset and a length, and a safetensors file is such bytes. An
initialiser becomes the fp16 tensor, Cast to float32, and Transpose where the graph holds it the other way round; the
embedding table is cast after its Gather. ONNX Runtime folds the casts when it loads, so it computes in float32. Before that the graph
is trimmed as `zoo export` does it. The same checkpoint gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import struct
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from optimum.exporters.onnx import main_export
from zoo_onnx.fold_kv import fold
from zoo_onnx.first_token_only import narrow

WEIGHTS = "model.safetensors"
SMALLEST = 256  # elements; smaller initialisers (axes, epsilons, masks) stay in the graph


def tensors(path: Path) -> dict[str, tuple[np.ndarray, int, int]]:
    """name -> (array, offset in the file, bytes)."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    out = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F16":
            raise SystemExit(f"{name} is {entry['dtype']}; this script expects F16")
        start, end = (8 + size + x for x in entry["data_offsets"])
        out[name] = (np.frombuffer(data[start:end], np.float16).reshape(entry["shape"]), start, end - start)
    return out


def point_into(model: onnx.ModelProto, weights: dict[str, tuple[np.ndarray, int, int]]) -> None:
    graph = model.graph
    by_value: dict[tuple[tuple[int, ...], bytes], tuple[str, bool]] = {}
    for name, (array, _, _) in weights.items():
        exact = array.astype(np.float32)
        by_value.setdefault((exact.shape, exact.tobytes()), (name, False))
        if exact.ndim == 2:
            turned = np.ascontiguousarray(exact.T)
            by_value.setdefault((turned.shape, turned.tobytes()), (name, True))
    kept, external, casts = [], {}, []
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        found = by_value.get((value.shape, value.tobytes())) if value.dtype == np.float32 and value.size >= SMALLEST else None
        if found is None:
            if value.size >= 4 * SMALLEST:
                raise SystemExit(f"initialiser {tensor.name} {value.shape} is not in the checkpoint")
            kept.append(tensor)
            continue
        name, turned = found
        if name not in external:
            array, offset, length = weights[name]
            proto = TensorProto(name=f"{name}.fp16", data_type=TensorProto.FLOAT16, dims=array.shape, data_location=TensorProto.EXTERNAL)
            for key, text in (("location", WEIGHTS), ("offset", offset), ("length", length)):
                proto.external_data.add(key=key, value=str(text))
            external[name] = proto
        users = [n for n in graph.node if tensor.name in n.input]
        if all(n.op_type == "Gather" and n.input[0] == tensor.name for n in users):
            for node in users:
                node.input[0] = external[name].name
                output = node.output[0]
                node.output[0] = f"{output}.fp16"
                at = list(graph.node).index(node)
                graph.node.insert(at + 1, helper.make_node("Cast", [node.output[0]], [output], name=f"{node.name}/float32", to=TensorProto.FLOAT))
        elif turned:
            casts.append(helper.make_node("Cast", [external[name].name], [f"{name}.float32"], name=f"{name}/Cast", to=TensorProto.FLOAT))
            casts.append(helper.make_node("Transpose", [f"{name}.float32"], [tensor.name], name=f"{name}/Transpose", perm=[1, 0]))
        else:
            casts.append(helper.make_node("Cast", [external[name].name], [tensor.name], name=f"{name}/Cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *external.values()])
    graph.node.extend(nodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--to", type=Path, help="where to write the graph (default: FOLDER/model.onnx)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main_export(str(args.folder), output=temporary, task="text-classification", dtype="fp32", do_validation=False, no_post_process=True)
        model = onnx.load(str(Path(temporary) / "model.onnx"))
    narrow(model)
    fold(model)
    point_into(model, tensors(args.folder / WEIGHTS))
    for value in [*model.graph.value_info]:
        # inferred types of tensors that are fp16 now would contradict the graph
        model.graph.value_info.remove(value)
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    target = args.to or args.folder / "model.onnx"
    target.write_bytes(model.SerializeToString(deterministic=True))
    if target.parent == args.folder:
        onnx.checker.check_model(str(target))
    print(f"{target}: {target.stat().st_size} bytes, {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
