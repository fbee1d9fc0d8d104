"""The graph of a checkpoint: its bytes, and what it borrows from the checkpoint's files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.api import UnknownNameError, read_object
from zoo_direct.families import read
from zoo_direct.families.model import Head
from zoo_direct.form import Form
from zoo_direct.graph import Graph
from zoo_direct.onnxruntime_form import OnnxRuntimeForm
from zoo_direct.plain_form import PlainForm
from zoo_direct.weights import Weights

FORMS: Mapping[str, type[Form]] = {"onnxruntime": OnnxRuntimeForm, "standard": Form, "plain": PlainForm}
"""``onnxruntime``: ONNX Runtime's own operators. ``standard``: standard operators. ``plain``: standard operators with every layer whole,
and each weight read by one node as it lies in the file, for a device's own compiler or quantiser."""


@dataclass(frozen=True)
class WrittenGraph:
    """A graph whose weights lie elsewhere."""

    model: bytes
    """What an ``.onnx`` file holds."""
    borrowed: Sequence[Path]
    """The checkpoint's files that hold the weights; the graph is wrong if one of them changes."""
    note: str
    """What was left out, for a person to read; empty if nothing was."""


def write_graph(
    folder: Path,
    *,
    form: str,
    head: Mapping[str, Any],
    locations: Callable[[Path], str] = lambda file: file.name,
    shared_prefix: bool = False,
) -> WrittenGraph:
    """Write the graph of the checkpoint in ``folder``: integer inputs (batch_size, sequence_length), padded on the right, and ``logits``
    (batch_size, 1) in float32.

    ``locations`` gives the name by which the graph calls each weights file: a place relative to the folder that a session resolves
    external data in. With ``shared_prefix`` the graph of a decoder takes keys and values of tokens that all rows begin with, and gives
    those of its own: see ``families.decoder.Decoder``.

    Raises UnsupportedError if config.json has something that no graph is known for, and ZooError if the weights do not fit it or are
    damaged.
    """
    if form not in FORMS:
        raise UnknownNameError("form of a graph", form, FORMS)
    weights = Weights(folder)
    writer = FORMS[form](Graph(weights, locations))
    encoded, note = _written(folder, writer, head, shared_prefix)
    return WrittenGraph(encoded, weights.files, note)


def write_int8_graph(
    folder: Path, target: Path, *, form: str, head: Mapping[str, Any], shared_prefix: bool = False
) -> WrittenGraph:
    """The same with 8-bit weights, which are written to the file ``target``: see ``int8_forms``.

    The graph finds them by the file's name, and borrows nothing. Raises as ``write_graph`` does.
    """
    from zoo_direct import int8_forms
    from zoo_direct.int8 import Int8Graph, WeightFile

    forms: Mapping[str, type[Form]] = {
        "channels": int8_forms.ChannelsForm,
        "unsigned-channels": int8_forms.UnsignedChannelsForm,
        "blocks": int8_forms.BlocksForm,
        "weight-only": int8_forms.WeightOnlyForm,
    }
    if form not in forms:
        raise UnknownNameError("form of a graph", form, forms)
    with WeightFile(target) as file:
        encoded, note = _written(folder, forms[form](Int8Graph(Weights(folder), file)), head, shared_prefix)
    return WrittenGraph(encoded, [], note)


def _written(folder: Path, writer: Form, head: Mapping[str, Any], shared_prefix: bool) -> tuple[bytes, str]:
    """The encoded graph, and what was left out."""
    config = read_config(folder)
    model = read(config, Head.parse(head))
    if shared_prefix:
        model.write_with_prefix(writer)
    else:
        model.write(writer)
    left = writer.graph.weights.left_over(model.needless)
    encoded = writer.graph.encoded(str(config["model_type"]), writer.operator_sets, writer.ir_version)
    return encoded, f"not read, for no score needs it: {', '.join(left)}" if left else ""


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it is. Raises InputError if it is absent or is not a JSON object."""
    return read_object(folder / "config.json")
