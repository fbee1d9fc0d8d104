"""Every contract, in one place to import from."""

from zoo.testing.device import DeviceContract as DeviceContract
