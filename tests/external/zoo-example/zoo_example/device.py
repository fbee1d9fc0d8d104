"""The CPU without graph optimisation: slow, and simple enough to hold other devices against."""

from __future__ import annotations

import dataclasses

from zoo.api import Artifact, Session, SessionOptions
from zoo_cpu.device import CpuDevice


class ReferenceDevice(CpuDevice):
    name = "reference"
    aliases = ()
    priority = -10

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        return super().open(artifact, dataclasses.replace(options, extra={"optimization": "off"}))
