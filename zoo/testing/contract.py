"""Every contract, in one place to import from."""

from zoo.testing.architecture import ArchitectureContract as ArchitectureContract
from zoo.testing.command import CommandContract as CommandContract
from zoo.testing.device import MAX_LENGTH as MAX_LENGTH
from zoo.testing.device import DeviceContract as DeviceContract
from zoo.testing.device_runs import LENGTHS as LENGTHS
from zoo.testing.device_runs import reference as reference
from zoo.testing.metric import MetricContract as MetricContract
from zoo.testing.step import StepContract as StepContract
