"""The page at ``/``: one file, no other resource, and a policy that lets a browser run nothing but its own script."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path

from starlette.responses import Response

PAGE = Path(__file__).with_name("page.html")


@functools.cache
def _parts() -> tuple[bytes, str]:
    """The page and its content security policy, by the hashes of its style and script."""
    text = PAGE.read_text(encoding="utf-8")
    hashes = {}
    for tag in ("style", "script"):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[tag] = f"'sha256-{digest}'"
    policy = (
        f"default-src 'none'; style-src {hashes['style']}; script-src {hashes['script']}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy


def response() -> Response:
    """The page."""
    content, policy = _parts()
    headers = {"content-security-policy": policy, "cache-control": "no-cache"}
    return Response(content, headers=headers, media_type="text/html")
