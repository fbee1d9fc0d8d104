"""The tests of the service need what the extra ``serve`` brings, and a client: ``tox -e serve`` installs them."""

from __future__ import annotations

import importlib.util

NEEDED = ("httpx", "prometheus_client", "starlette", "uvicorn")
collect_ignore_glob = [] if all(importlib.util.find_spec(name) for name in NEEDED) else ["test_*.py"]
