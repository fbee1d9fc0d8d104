"""For plugin authors: contract tests to subclass, and fakes that really compute. Nothing here is imported by a run."""

import sys

CONTRACTS = ("base", "device", "device_runs", "architecture", "metric", "step", "command", "contract")

if "pytest" in sys.modules:  # an outsider's assertions are rewritten by pytest, ours only if they are registered
    import pytest

    pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in CONTRACTS))
