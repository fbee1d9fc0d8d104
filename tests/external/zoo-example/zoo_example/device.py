"""The CPU without graph optimisation: slow, and simple enough to hold other devices against."""

from __future__ import annotations

import dataclasses

from zoo.api import Artifact, SessionOptions
from zoo_cpu.device import CpuDevice
from zoo_cpu.session import CpuSession


class ReferenceDevice(CpuDevice):
    name = "reference"
    aliases = ()
    priority = -10

    def open(self, artifact: Artifact, options: SessionOptions) -> CpuSession:
        return super().open(artifact, dataclasses.replace(options, extra={"optimization": "off"}))
