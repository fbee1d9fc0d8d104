"""Why a request is not answered with scores. Each dialect says it in its own words and status."""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "malformed", "invalid", "empty", "too_many", "too_long", "too_large", "slow", "unauthorized", "unknown_model",
    "busy", "late", "gone", "not_ready", "device", "failed",
]  # fmt: skip

STATUS: dict[Kind, int] = {
    "malformed": 400,  # not JSON
    "invalid": 400,  # JSON, and not what the route takes
    "empty": 400,  # no texts
    "too_many": 400,  # more texts than `max_documents`
    "too_long": 400,  # a text past the model's length, and truncation is not allowed; or past the limit of characters
    "unauthorized": 401,
    "unknown_model": 404,
    "slow": 408,  # the body did not arrive in time
    "too_large": 413,  # a body past the limit
    "busy": 429,
    "gone": 499,  # the client went away; nobody reads this
    "failed": 500,  # the model gave no score
    "not_ready": 503,  # loading, or shutting down
    "device": 503,  # the device failed
    "late": 504,
}
"""The status of each kind, unless a dialect has another."""


class Refusal(Exception):  # noqa: N818  # it is an answer, not a fault
    """A request that gets no scores. ``retry_after`` is in seconds; ``param`` is the field that is wrong."""

    def __init__(self, kind: Kind, message: str, *, retry_after: int | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.retry_after, self.param = kind, message, retry_after, param

    @property
    def status(self) -> int:
        """The status that most dialects give it."""
        return STATUS[self.kind]
