"""The step that makes a packed file, and its proof. It runs in a child process."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from zoo.api import Job, import_onnxruntime, probes

MAGIC = b"PACKED1\n"


def pack(job: Job) -> dict[str, str]:
    """Write the model compressed, behind a header, with the weights that lie in other files."""
    import onnx

    assert job.model is not None
    content = onnx.load(str(job.model)).SerializeToString()
    job.output.write_bytes(MAGIC + zlib.compress(content))
    return {"note": f"{len(content)} bytes became {job.output.stat().st_size}"}


def unpacked(content: bytes) -> bytes:
    """The ONNX file inside. Raises ValueError if it is not a packed file."""
    if not content.startswith(MAGIC):
        raise ValueError("it is not a packed file")
    return zlib.decompress(content[len(MAGIC) :])


def evaluate(job: Job, batches: Sequence[probes.Arrays]) -> list[probes.Arrays]:
    """The outputs of the packed file for each batch."""
    assert job.model is not None
    session: Any = import_onnxruntime().InferenceSession(
        unpacked(job.model.read_bytes()), providers=["CPUExecutionProvider"]
    )
    names = [node.name for node in session.get_outputs()]
    wanted = {node.name for node in session.get_inputs()}
    return [
        dict(zip(names, session.run(names, {n: a for n, a in batch.items() if n in wanted}), strict=True))
        for batch in batches
    ]
