"""torch as two devices: ``cuda`` for NVIDIA cards, ``torch`` for the CPU. Both open the checkpoint itself; nothing is exported."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from zoo.api import (
    Artifact,
    Availability,
    Checkpoint,
    NotInstalledError,
    Option,
    Precision,
    PrecisionInfo,
    Session,
    SessionOptions,
    ZooError,
    usable_threads,
)
from zoo_torch.cards import Card, Listing, Load, free_memory, list_cards
from zoo_torch.options import CUDA_OPTIONS, OPTIONS, TorchOptions, card_numbers

REMEDY = "pip install 'zoo-runner[torch]'"
CUDA_REMEDY = "Install a CUDA build of torch (https://pytorch.org/get-started/locally): docs/devices/cuda.md"
DRIVER_REMEDY = (
    "Install NVIDIA's driver; a container needs the cards passed in (docker run --gpus all): docs/devices/cuda.md"
)
PACKAGES = ("torch", "safetensors", "transformers")

BFLOAT16_CAPABILITY = (8, 0)
"""Compute capability from which on a card multiplies in bfloat16 (Ampere)."""

LEAST_MEMORY = 512 * 2**20
"""Bytes that must be free on a card: torch's own context takes about as much."""

OpenOn = Callable[[str, Artifact, SessionOptions], Session]
"""Opens a session on a device by torch's name of it."""

CARD_CLOSING = 30.0
"""Seconds that a card's process has to finish the batches it computes."""
CARD_HINT = ". The kernel's log (dmesg) has the driver's messages, which begin with 'NVRM: Xid'"

FLOAT32 = "about a tenth of float16's speed (TF32 is off, so that it is float32); use it to tell rounding from a fault"
BFLOAT16 = (
    "scores move more than in float16: by up to 0.77 of a spread of 1.08, rank correlation 0.988, where float16 gives 0.05 and 0.9995 "
    "(random weights of full size, which are harsh); for models that overflow in float16"
)
ON_A_CPU = "on a CPU this is for comparing with a card's arithmetic, not for speed"
CPU_PRECISIONS: Mapping[Precision, PrecisionInfo] = {
    "fp32": PrecisionInfo(offered=True),
    "bf16": PrecisionInfo(offered=False, cost=ON_A_CPU),
    "fp16": PrecisionInfo(offered=False, cost=ON_A_CPU),
}


class CudaDevice:
    """One or more NVIDIA cards."""

    name = "cuda"
    resource = "GPU"
    aliases: Sequence[str] = ("nvidia",)
    priority = 50
    options: Sequence[Option] = CUDA_OPTIONS

    def __init__(self, load: Load = ctypes.CDLL, open_on: OpenOn | None = None) -> None:
        """``open_on`` replaces what opens a session on one card; it must be a function that another process can import."""
        self._load, self._open_on = load, open_on or open_on_device

    @property
    def precisions(self) -> Mapping[Precision, PrecisionInfo]:
        half: dict[Precision, PrecisionInfo] = {"fp16": PrecisionInfo(offered=True)}
        if self._computes_bfloat16():
            half["bf16"] = PrecisionInfo(offered=True, cost=BFLOAT16)
        return {**half, "fp32": PrecisionInfo(offered=True, cost=FLOAT32)}

    def probe(self) -> Availability:
        try:
            built = built_for()
            if not built:
                reason = f"torch {installed('torch')} is a build without CUDA"
                return Availability(ok=False, reason=reason, remedy=CUDA_REMEDY)
        except NotInstalledError as error:
            return Availability(ok=False, reason=str(error), remedy=f"{REMEDY}. {CUDA_REMEDY}")
        try:
            listing = list_cards(self._load)
        except ZooError as error:
            return Availability(ok=False, reason=str(error), remedy=DRIVER_REMEDY)
        free = {card.number: free_memory(card, self._load) for card in listing.cards}
        details = _details(listing, free, built)
        if reason := _driver_too_old(listing, built):
            return Availability(
                ok=False, reason=reason, remedy="Update the driver, or install such a build", details=details
            )
        if all(bytes_ is not None and bytes_ < LEAST_MEMORY for bytes_ in free.values()):
            reason = f"no card has {LEAST_MEMORY // 2**20} MiB of memory free ({details['memory']})"
            return Availability(
                ok=False, reason=reason, remedy="End what holds it: nvidia-smi lists it", details=details
            )
        return Availability(ok=True, details=details)

    def recipe(self, precision: Precision, checkpoint: Checkpoint | None = None) -> tuple[str, ...]:
        return ()  # the checkpoint itself

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        built_for()
        numbers = card_numbers(options.selector, [card.number for card in list_cards(self._load).cards])
        if len(numbers) == 1 and not TorchOptions.of(options.extra).own_process:
            return self._open_on(f"cuda:{numbers[0]}", artifact, options)
        return _open_cards([f"cuda:{number}" for number in numbers], self._open_on, artifact, options)

    def _computes_bfloat16(self) -> bool:
        try:
            cards: Sequence[Card] = list_cards(self._load).cards
        except ZooError:
            return True  # of no consequence: without a card nothing runs
        return all(card.capability >= BFLOAT16_CAPABILITY for card in cards)


class TorchDevice:
    """The CPU, by the code that runs on cards: the reference to hold them against."""

    name = "torch"
    aliases: Sequence[str] = ()
    priority = -10
    """Below every other device: ONNX Runtime is faster on a CPU."""
    precisions = CPU_PRECISIONS
    options: Sequence[Option] = OPTIONS

    def probe(self) -> Availability:
        try:
            check_installed()
        except NotInstalledError as error:
            return Availability(ok=False, reason=str(error), remedy=REMEDY)
        return Availability(ok=True, details={"threads": str(usable_threads()), "torch": installed("torch")})

    def recipe(self, precision: Precision, checkpoint: Checkpoint | None = None) -> tuple[str, ...]:
        return ()

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        check_installed()
        if options.selector:
            raise ZooError(
                f"the device 'torch' has no parts to choose from: it is 'torch', not 'torch:{options.selector}'"
            )
        return open_on_device("cpu", artifact, options)


def open_on_device(where: str, artifact: Artifact, options: SessionOptions) -> Session:
    """A session on ``where``: "cpu", "cuda:1". Raises ZooError."""
    try:
        from zoo_torch.open_session import open_on
    except (ImportError, OSError) as error:  # installed, but of another platform, or without a library that it loads
        raise NotInstalledError(f"torch, safetensors or transformers cannot be imported: {error}. {REMEDY}") from error
    return open_on(where, artifact, options)


def _open_cards(names: Sequence[str], open_on: OpenOn, artifact: Artifact, options: SessionOptions) -> Session:
    """Each card in a process of its own: what tokenises holds up none, they share no interpreter, and one that fails is named."""
    from zoo.api import ChildSettings, Processes

    threads = max((options.threads or usable_threads()) // len(names), 1)
    return Processes.opened(
        [
            ChildSettings(
                name=name,
                opener=functools.partial(open_on, name),
                artifact=artifact,
                options=replace(options, selector="", threads=threads),
                hint=CARD_HINT,
                closing_seconds=CARD_CLOSING,
            )
            for name in names
        ]
    )


def check_installed() -> None:
    """Raises NotInstalledError naming the packages that are missing. Imports none of them."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise NotInstalledError(f"not installed: {', '.join(missing)}")


def built_for() -> str:
    """The CUDA version that the installed torch was built for ("13.0"), "" for a build without CUDA. Does not import torch.

    Raises NotInstalledError when a package that the device needs is missing.
    """
    check_installed()
    found = importlib.util.find_spec("torch")
    places = list(found.submodule_search_locations or ()) if found else []
    for place in places:
        file = Path(place) / "version.py"  # written by torch's build: cuda: Optional[str] = '13.0'
        if file.is_file():
            match = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", file.read_text(encoding="utf-8"), re.MULTILINE)
            return match.group(1) if match else ""
    return ""


def installed(package: str) -> str:
    """The version of a distribution."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def _driver_too_old(listing: Listing, built: str) -> str:
    """Why the driver cannot run this torch, or "". A driver runs every build of its major version of CUDA and of older ones."""
    major = int(built.split(".")[0])
    if listing.cuda[0] >= major:
        return ""
    newest = ".".join(map(str, listing.cuda))
    return f"the NVIDIA driver runs CUDA {newest} at most, and torch {installed('torch')} is built for CUDA {built}"


def _details(listing: Listing, free: Mapping[int, int | None], built: str) -> dict[str, str]:
    return {
        "cards": ", ".join(card.label for card in listing.cards),
        "memory": ", ".join(_memory(card, free[card.number]) for card in listing.cards),
        "capability": ", ".join(f"{card.capability[0]}.{card.capability[1]}" for card in listing.cards),
        "driver": f"CUDA {listing.cuda[0]}.{listing.cuda[1]}",
        "torch": f"{installed('torch')} (CUDA {built})",
    }


def _memory(card: Card, free: int | None) -> str:
    total = f"{card.memory / 2**30:.1f} GiB"
    return total if free is None else f"{free / 2**30:.1f} of {total} free"
