"""The options that installed devices declare, as options of a command: ``--device-option KEY=VALUE``, and flags of their own."""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.common import catalogue_of
from zoo.cli.tecorigin import FALSE, TRUE, TecoriginCommand
from zoo.options import Option
from zoo.registry.catalogue import Catalogue


class KeyValue(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """``KEY=VALUE``"""

    name = "KEY=VALUE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, separator, text = str(value).partition("=")
        if not (key and separator):
            self.fail(f"'{value}' is not of the form KEY=VALUE", param, ctx)
        return key.replace("-", "_"), text


class DeviceCommand(TecoriginCommand):
    """A command whose parameter ``device_options`` is made from what the installed devices declare."""

    compares = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        catalogue = catalogue_of(ctx)
        taken = {spelling for parameter in self.params for spelling in (*parameter.opts, *parameter.secondary_opts)}
        flags = [
            _flag(device.name, option, several=self.compares and option.compared)
            for device, option in catalogue.device_options()
            if option.flag and option.flag not in taken
        ]
        general = click.Option(
            ["--device-option", "device_options"], type=KeyValue(), multiple=True, help=_summary(catalogue)
        )
        params = super().get_params(ctx)  # whose last is --help
        place = next((n for n, parameter in enumerate(params) if parameter.name == "progress"), len(params) - 1)
        return [*params[:place], general, *flags, *params[place:]]

    def invoke(self, ctx: click.Context) -> Any:
        given = dict(ctx.params.pop("device_options"))
        several: dict[str, tuple[str, ...]] = {}
        for flag in [name for name in ctx.params if name.startswith(PREFIX)]:
            value, name = ctx.params.pop(flag), flag.removeprefix(PREFIX)
            if isinstance(value, tuple) and len(value) > 1:
                several[name] = value
            elif value:
                given[name] = value[0] if isinstance(value, tuple) else value
        ctx.params["device_options"] = given
        if self.compares:
            if len(several) > 1:
                raise click.UsageError(f"Only one device option can have several values, not {' and '.join(several)}.")
            ctx.params["compare"] = next(iter(several.items()), None)
        return super().invoke(ctx)


class ComparingCommand(DeviceCommand):
    """Options that can be compared may be repeated: the parameter ``compare`` is such an option's name with its values, or None."""

    compares = True


PREFIX = "device_option_"


def _flag(device: str, option: Option, *, several: bool) -> click.Option:
    if several:
        help_text = f"{device}: {option.help} Repeated: the values are compared, and one is recommended."
        return click.Option([option.flag, PREFIX + option.name], metavar=option.values, help=help_text, multiple=True)
    alone: dict[str, Any] = {"is_flag": False, "flag_value": option.flag_alone} if option.flag_alone else {}
    metavar = f"[{option.values}]" if option.flag_alone else option.values

    def value_of(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is None or not option.flag_alone or value.casefold() not in (*TRUE, *FALSE):
            return value
        return option.flag_alone if value.casefold() in TRUE else None

    return click.Option(
        [option.flag, PREFIX + option.name],
        metavar=metavar,
        help=f"{device}: {option.help}",
        callback=value_of,
        **alone,
    )


def _summary(catalogue: Catalogue) -> str:
    by_device = [
        f"{device.name}: {', '.join(f'{option.name}={option.values}' for option in device.options)}."
        for device in catalogue.devices
        if device.options
    ]
    return " ".join(["An option of the device itself, repeatable.", *by_device])
