"""What the nodes of a cluster have installed, and which files they see: asked before any work begins."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import zoo
from zoo.errors import ZooError
from zoo.ray.imports import import_ray

PACKAGES = (
    "ray", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "pyarrow", "safetensors", "tokenizers", "torch", "transformers",
)  # fmt: skip
"""Packages whose version may change a score, or what nodes can tell each other."""

PATIENCE = 120.0
"""Seconds that a node has to answer."""


@dataclass(frozen=True)
class NodeReport:
    """One node: its address, the versions of what it has, and which of the asked paths it does not see."""

    name: str
    versions: Mapping[str, str]
    missing: frozenset[Path]


def report_of(name: str, paths: Sequence[Path]) -> NodeReport:
    """The report of the node that this is called on."""
    found = {"python": ".".join(platform.python_version_tuple()[:2]), "zoo": zoo.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    for each in distributions():
        if any(entry.group == "zoo" for entry in each.entry_points):
            found[f"plugins of {each.metadata['Name']}"] = each.version
    return NodeReport(name, found, frozenset(path for path in paths if not path.exists()))


def reports(paths: Iterable[Path] = ()) -> list[NodeReport]:
    """A report of every node that is alive, the driver's own machine first. Raises ZooError if one does not answer."""
    ray = import_ray()
    scheduling = import_ray("ray.util.scheduling_strategies")
    asked = list(paths)
    ask = ray.remote(report_of)
    alive = [node for node in ray.nodes() if node["Alive"]]
    waiting = {
        ask.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=scheduling.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(_name(node), asked): _name(node)
        for node in alive
    }
    answers = [report_of("this machine", asked)]
    for reference, name in waiting.items():
        try:
            answers.append(ray.get(reference, timeout=PATIENCE))
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()[-1]
            raise ZooError(
                f"the node {name} does not answer: {said}. The same zoo must be installed on every node"
            ) from error
    return answers


def check_equal(found: Sequence[NodeReport]) -> None:
    """Raises ZooError if the versions of two nodes differ, with all differences."""
    first, differences = found[0], []
    for other in found[1:]:
        for name in sorted({*first.versions, *other.versions}):
            here, there = first.versions.get(name, "not installed"), other.versions.get(name, "not installed")
            if here != there:
                differences.append(f"  {name}: {here} on {first.name}, {there} on {other.name}")
    if differences:
        raise ZooError(
            "\n".join(["the nodes of the cluster differ, so their scores might, too:", *dict.fromkeys(differences)])
        )


def missing_paths(found: Sequence[NodeReport]) -> frozenset[Path]:
    """Paths that one node at least does not see."""
    return frozenset[Path]().union(*(report.missing for report in found))


def check_visible(found: Sequence[NodeReport], paths: Iterable[Path], what: str) -> None:
    """Raises ZooError naming the nodes that do not see all of ``paths``."""
    for path in paths:
        blind = [report.name for report in found if path in report.missing]
        if blind:
            raise ZooError(
                f"{path} ({what}) is not there on {', '.join(blind[:5])}. Nodes read it themselves: put it on storage "
                "that all of them see under the same path"
            )


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
