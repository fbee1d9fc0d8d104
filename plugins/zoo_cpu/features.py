"""What this CPU's instruction set offers, as far as the system tells."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
INT8_DOT_PRODUCT = {"avx512_vnni", "avx_vnni", "asimddp"}
"""x86 names it VNNI, Arm the dot product of advanced SIMD."""


def flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """The first processor's flags; empty where the system does not list them."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def has_int8_dot_product(cpuinfo: Path = CPUINFO) -> bool:
    """Whether int8 matrix products run at a multiple of float32's speed."""
    return bool(INT8_DOT_PRODUCT & flags(cpuinfo))
