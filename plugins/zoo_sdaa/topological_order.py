"""The nodes of an ONNX graph in an order in which each comes after those it reads from.

ONNX demands that order, and not every exporter keeps to it; Tecorigin's own programs sort a graph before Relay reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from zoo.api import ZooError


def sort_nodes(graph: Any) -> None:
    """Sort the nodes of a GraphProto, and of the graphs inside it, in place. A sorted graph stays as it is. Raises ZooError on a cycle."""
    for node in graph.node:
        for inner in _graphs_of(node):
            sort_nodes(inner)
    producers = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    sources = {
        number: sorted({producers[name] for name in _reads(node) if name in producers})
        for number, node in enumerate(graph.node)
    }
    if all(source < number for number, found in sources.items() for source in found):
        return
    try:
        order = list(TopologicalSorter(sources).static_order())
    except CycleError as error:
        names = ", ".join(graph.node[number].name or graph.node[number].op_type for number in error.args[1])
        raise ZooError(f"the ONNX graph has a cycle: {names}") from error
    # Items of a repeated field are views of it: they are copied before it is emptied.
    nodes = [type(graph.node[number]).FromString(graph.node[number].SerializeToString()) for number in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _reads(node: Any) -> Iterator[str]:
    """What a node reads: its inputs, and what the graphs inside it read of the graph around them."""
    yield from filter(None, node.input)
    for graph in _graphs_of(node):
        for inner in graph.node:
            yield from _reads(inner)


def _graphs_of(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
