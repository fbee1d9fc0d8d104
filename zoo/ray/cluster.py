"""A connection to a cluster, and where actors go: a card each, or a share of CPUs with as many threads."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.ray.imports import import_ray
from zoo.ray.nodes import NodeReport, check_equal, check_visible, missing_paths, reports
from zoo.ray.weights import SentModel
from zoo.ray.worker import Opening
from zoo.registry.catalogue import Catalogue
from zoo.registry.choose import choose_device
from zoo.settings import RunSettings
from zoo.types import Device

logger = logging.getLogger(__name__)

MOST_THREADS = 16
"""Threads of an actor if nothing is asked for: a session gains little from more, and several sessions do."""


ANSWER_SECONDS = 10.0
"""How long a cluster's address may take to be connected to."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How many actors there are, and what Ray reserves for each; ``threads`` is what each computes with."""

    actors: int
    threads: int
    ray_options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Nodes that were checked (``nodes``), how the model is opened on them (``opening``), and how many actors with what share of a node
    do that (``placement``).
    """

    opening: Opening
    placement: Placement
    nodes: Sequence[NodeReport]

    @classmethod
    def prepare(
        cls,
        settings: RunSettings,
        catalogue: Catalogue | None = None,
        *,
        actors: int | None = None,
        read: Sequence[Path] = (),
    ) -> Cluster:
        """Check the nodes, send what they lack, and place ``actors`` (None: as many as fit).

        ``read`` are paths that every node must see. Raises ZooError if nodes differ, or if nothing fits.
        """
        named = [path.resolve() for path in (settings.config_path, settings.ckpt) if path is not None]
        nodes = reports([*named, *read])
        check_equal(nodes)
        check_visible(nodes, read, "`data_path`")
        check_visible(nodes[:1], named, "`checkpoint`")
        settings = replace(
            settings,
            config_path=settings.config_path.resolve() if settings.config_path else None,
            ckpt=settings.ckpt.resolve() if settings.ckpt else None,
            workers=1,
        )
        sizes = node_sizes()
        device = device_for(catalogue or Catalogue.installed(), settings.target, sizes)
        placement = place(device, sizes, settings.threads, actors)
        opening = Opening(
            settings=replace(settings, target=settings.target or device.name, threads=placement.threads),
            sent=SentModel.of(settings, missing_paths(nodes)),
        )
        logger.info(
            "cluster: %d nodes, %d actors on '%s', %d threads each",
            len(nodes) - 1, placement.actors, device.name, placement.threads,
        )  # fmt: skip
        return cls(opening=opening, placement=placement, nodes=nodes)


def node_sizes() -> list[Mapping[str, float]]:
    """What Ray counts on each node: ``CPU``, ``GPU``, and resources that nodes were started with."""
    ray = import_ray()
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def device_for(catalogue: Catalogue, target: str | None, sizes: Sequence[Mapping[str, float]]) -> Device:
    """The device that is asked for, or the best one that the nodes have: cards that Ray counts, else what is available here."""
    if target is not None:
        return choose_device(catalogue, target, available=False)[0]
    for device in sorted(catalogue.devices, key=lambda device: -device.priority):
        resource = ray_resource(device)
        if any(size.get(resource) for size in sizes) if resource else device.probe().ok:
            return device
    raise ZooError("no device is available on the cluster: name one (`device`)")


def ray_resource(device: Device) -> str:
    """The name under which Ray counts the device's cards; empty for a device of CPUs."""
    return str(getattr(device, "resource", ""))


def place(
    device: Device, sizes: Sequence[Mapping[str, float]], threads: int | None, actors: int | None = None
) -> Placement:
    """One actor a card and CPU, or one for each share of ``threads`` CPUs. Raises ZooError if none fits, or fewer than ``actors``.

    Ray lets an actor that does not fit wait for ever, so none is counted that its node has no room for.
    """
    resource = ray_resource(device)
    reserved: dict[str, Any]
    cpus = [int(size.get("CPU", 0)) for size in sizes if size.get("CPU", 0) >= 1]
    if resource:
        fits = sum(int(min(size.get(resource, 0), size.get("CPU", 0))) for size in sizes)
        lacking = f"Ray counts no '{resource}' on its nodes, which '{device.name}' needs"
        if any(size.get(resource) for size in sizes):
            lacking = f"no node has a CPU and a '{resource}', which an actor on '{device.name}' needs"
        share = threads or 1
        reserved = {"num_cpus": 1.0, **({"num_gpus": 1.0} if resource == "GPU" else {"resources": {resource: 1.0}})}
    else:
        share = threads or min([*cpus, MOST_THREADS])
        fits = sum(count // share for count in cpus)
        lacking = f"no node has {share} CPUs, which `threads` asks for"
        reserved = {"num_cpus": float(share)}
    if not fits:
        raise ZooError(f"{lacking}: an actor cannot be placed")
    if actors is not None and actors > fits:
        raise ZooError(f"{actors} actors do not fit into the cluster, which has room for {fits} (`workers`, `threads`)")
    return Placement(actors=actors or fits, threads=share, ray_options=reserved)


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Ray, connected to the cluster at ``address``: ``auto``, ``local`` (a new one on this machine) or host:port.

    Inside the block what libraries print goes to stderr. A connection that exists is used, and left as it is. Raises ZooError.
    """
    ray = import_ray()
    if "://" in address:
        raise ZooError(
            f"a cluster at {address} cannot be used: run the command on one of its nodes, with the address auto or HOST:PORT"
        )
    with contextlib.redirect_stdout(sys.stderr):
        if ray.is_initialized():
            yield
            return
        try:
            _check_answers(address)
            with _own_signals():
                ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
            said = str(error).strip().partition(". ")[0].rstrip(".")
            raise ZooError(
                f"there is no cluster at '{address}': {said}. 'ray start --head' starts one, the address local does so for this run"
            ) from error
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        try:
            yield
        finally:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises OSError if nobody listens at HOST:PORT: Ray itself tries for minutes."""
    host, separator, port = address.rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself and ends the process; whoever had it before gets it back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
