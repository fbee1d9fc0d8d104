"""Weights from a hub: the Hugging Face hub or its mirror, and ModelScope. Both clients resume what was interrupted.

Progress is the clients' own bar on a terminal, and elsewhere a plain line now and then with the bytes that have arrived.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import ZooError
from zoo.files import size_of
from zoo.registry.card import ModelCard

logger = logging.getLogger(__name__)

INTERVAL = 10.0
"""Seconds between plain lines."""
PATIENCE = 30.0
"""Seconds that the hub has to say which commit a branch is."""


def hub_endpoint() -> str:
    """The hub or the mirror that ``HF_ENDPOINT`` names."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_cache() -> Path:
    """The folder of the Hugging Face cache, by the client's own rules and without importing it."""
    if place := os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE", "")):
        return Path(os.path.expanduser(place))  # noqa: PTH111  # Path.expanduser raises for a user without a home
    user = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.path.expanduser(os.environ.get("HF_HOME", f"{user}/huggingface"))) / "hub"  # noqa: PTH111


def cached_repository(hub: str) -> Path:
    """Where the cache keeps the repository, whether it is there or not."""
    return hub_cache() / f"models--{hub.replace('/', '--')}"


def commit_of(hub: str, revision: str, *, offline: bool) -> str:
    """The commit that a branch or a tag stands for now; offline, or if the hub cannot be asked, the one that was fetched last.

    Raises ZooError with what the hub said.
    """
    said = "the hub is not asked (offline)"
    if not offline:
        from huggingface_hub import HfApi

        try:
            found = HfApi(endpoint=hub_endpoint()).model_info(hub, revision=revision, timeout=PATIENCE).sha
            if found:
                return found
        except Exception as error:  # network faults come as requests', httpx' or the hub client's own classes
            said = f"the hub ({hub_endpoint()}): {hub_reason(error)}"
    kept = cached_repository(hub) / "refs" / revision
    if not kept.is_file():
        raise ZooError(f"which commit the revision '{revision}' of {hub} is, is not known: {said}")
    commit = kept.read_text(encoding="utf-8").strip()
    logger.warning("%s at '%s': the commit fetched last is used, %s, because %s", hub, revision, commit, said)
    return commit


def from_hub_cache(card: ModelCard) -> Path | str:
    """The snapshot of the card's revision, whole or not, or why there is none."""
    from huggingface_hub import snapshot_download

    assert card.hub
    try:
        # One file that every snapshot has, for the client refuses from 2.0 on what lacks any file it asked for.
        return Path(
            snapshot_download(card.hub, revision=card.revision, local_files_only=True, allow_patterns=["config.json"])
        )
    except Exception as error:  # the hub client's exceptions differ between its major versions
        at = f" at revision {card.revision}" if card.revision else ""
        return f"holds no {card.hub}{at} ({type(error).__name__})"


def from_hub(card: ModelCard, patterns: Sequence[str]) -> Path | str:
    """The card's revision, with what is missing fetched now, or the reason why it is not available.

    A connection that breaks is taken up again as long as each attempt brings something.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.file_download import repo_folder_name

    assert card.hub
    logger.info("downloading %s at %s from %s", card.hub, card.revision or "its newest revision", hub_endpoint())
    place = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=card.hub, repo_type="model") / "blobs"
    with _progress(place):
        while True:
            arrived = size_of(place)
            try:
                return Path(
                    snapshot_download(
                        card.hub, revision=card.revision, allow_patterns=list(patterns), endpoint=hub_endpoint()
                    )
                )
            except Exception as error:  # network faults come as requests', httpx' or the hub client's own classes
                if size_of(place) <= arrived:
                    return hub_reason(error)
                logger.info("the connection broke (%s); going on where it was", type(error).__name__)


def from_modelscope(card: ModelCard, patterns: Sequence[str]) -> Path | str:
    """ModelScope's copy, or the reason why it is not available."""
    if importlib.util.find_spec("modelscope") is None:
        return "its package is not installed (pip install modelscope)"
    from modelscope import snapshot_download

    logger.info("downloading %s from ModelScope", card.modelscope)
    try:
        return Path(snapshot_download(card.modelscope, allow_patterns=list(patterns)))
    except Exception as error:  # the package documents no exception classes of its own
        return f"{type(error).__name__}: {_first_line(error)}"


ANSWERS = {
    401: "it wants a token (401): set HF_TOKEN to one that may read the repository, or check the repository's name",
    403: "this token may not read it (403): accept the repository's terms on its page, or set HF_TOKEN to one that may",
    404: "it has no such repository, revision or file (404)",
    407: "a proxy wants to be told who asks (407): set HTTPS_PROXY to http://USER:PASSWORD@HOST",
    429: "it has had too many requests from here (429): wait some minutes, set HF_TOKEN, or set HF_ENDPOINT to a mirror",
}


def hub_reason(error: BaseException) -> str:
    """What the hub, or whatever stands before it, really answered, and what helps: the client wraps that in errors of its own."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    names, text = {type(each).__name__ for each in chain}, " ".join(map(str, chain))
    if "GatedRepoError" in names:
        return "the repository is gated: accept its terms on its page, and set HF_TOKEN to a token of that account"
    if names & {"JSONDecodeError", "InvalidJSONError"} or "<html" in text.casefold():
        return (
            "what answered is a web page and not the hub: a login page of this network, or a proxy. Open a browser, or set HF_ENDPOINT "
            "to a mirror that is reachable"
        )
    codes = [getattr(getattr(each, "response", None), "status_code", None) for each in chain]
    code = next((code for code in reversed(codes) if isinstance(code, int)), None)
    if code in ANSWERS:
        return ANSWERS[code]
    if code is not None and code >= 500:
        return f"it has a fault of its own ({code}): try again later, or set HF_ENDPOINT to a mirror"
    if "Content-Length" in text:
        return (
            "it does not say how long the file is, without which the client fetches nothing: a proxy or a mirror has taken that away. "
            "Set HF_ENDPOINT to another mirror, or put the files into a folder by hand"
        )
    root = next((each for each in reversed(chain) if str(each).strip()), error)
    return f"{type(root).__name__}: {_first_line(root)}"


@contextmanager
def _progress(place: Path) -> Iterator[None]:
    """The client's bars on a terminal; else they are silenced and the size of what has arrived in ``place`` is logged now and then."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    quiet = not logger.isEnabledFor(logging.INFO)
    if are_progress_bars_disabled() or (sys.stderr is not None and sys.stderr.isatty() and not quiet):
        yield
        return
    done = threading.Event()
    before = size_of(place)

    def tell() -> None:
        while not done.wait(INTERVAL):
            logger.info("  %s MB have arrived", f"{(size_of(place) - before) / 1e6:,.0f}")

    disable_progress_bars()
    teller = threading.Thread(target=tell, name="zoo-download", daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
        enable_progress_bars()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
