"""Commands with one fault each, and the test of ``CommandContract`` that is meant to find it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
import pytest

from zoo.api import CommandOffer, ZooError, hookimpl
from zoo.testing.contract import CommandContract

EVERYTHING = tuple(name for name in vars(CommandContract) if name.startswith("test_"))


def command(body: Any = None, **settings: Any) -> click.Command:
    """A command that greets."""

    def greet(name: str, as_json: bool) -> None:
        if not name:
            raise ZooError("a name must not be empty")
        click.echo('{"hello": "you"}' if as_json else f"hello {name}")

    flag = click.Option(["--json", "as_json"], is_flag=True, help=settings.pop("option_help", "Write JSON."))
    settings.setdefault("help", "Say hello.")
    return click.Command("greet", callback=body or greet, params=[click.Argument(["name"]), flag], **settings)


def fails(name: str, as_json: bool) -> None:
    raise ZooError("not today")


def divides(name: str, as_json: bool) -> None:
    click.echo("{}" if as_json else f"hello {len(name) / len(name):.0f}")


def half_json(name: str, as_json: bool) -> None:
    if not name:
        raise ZooError("a name must not be empty")
    click.echo("hello {}")


def says_it_on_stdout(name: str, as_json: bool) -> None:
    click.echo("{}" if name else "a name must not be empty")
    if not name:
        raise SystemExit(1)


good = command()
without_help = command(option_help="")
without_docstring = command(help="")
failing = command(fails)
dividing = command(divides)
not_json = command(half_json)
on_stdout = command(says_it_on_stdout)
takes_any_option = command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})


class Good:
    meant = ""
    also: tuple[str, ...] = ()
    name, summary, attribute = "greet", "Say hello.", "good"

    @hookimpl
    def zoo_commands(self) -> Mapping[str, CommandOffer]:
        return {self.name: CommandOffer(summary=self.summary, command=f"{__name__}:{self.attribute}")}


class NameOfZoosOwn(Good):
    meant = "test_its_name_can_be_typed_and_is_not_one_of_zoos"
    also = EVERYTHING
    name = "models"


class NameWithASpace(Good):
    meant = "test_its_name_can_be_typed_and_is_not_one_of_zoos"
    name = "Say hello"


class NoSummary(Good):
    meant = "test_its_summary_is_one_line"
    also = ("test_it_is_listed_and_has_help",)  # the name stands there alone
    summary = ""


class TwoLines(NoSummary):
    summary = "Say hello.\nAnd more."


class NotACommand(Good):
    meant = "test_it_is_a_click_command_named_as_text"
    also = EVERYTHING
    attribute = "fails"


class NotThere(NotACommand):
    attribute = "nowhere"


class OptionWithoutHelp(Good):
    meant = "test_it_is_listed_and_has_help"
    attribute = "without_help"


class WithoutDocstring(OptionWithoutHelp):
    attribute = "without_docstring"


class AlwaysFails(Good):
    meant = "test_it_succeeds"
    attribute = "failing"


class JsonIsNotJson(AlwaysFails):
    attribute = "not_json"


class TakesAnyOption(Good):
    meant = "test_an_option_that_does_not_exist_is_an_error_of_usage"
    attribute = "takes_any_option"


class InternalFault(Good):
    meant = "test_what_its_user_has_to_correct_is_reported_without_a_traceback"
    attribute = "dividing"


class ErrorsOnStdout(InternalFault):
    attribute = "on_stdout"


class Suite(CommandContract):
    deadline = 30.0
    broken: Any = Good
    arguments = ("Ada",)
    wrong = ("",)

    @pytest.fixture
    def plugin(self) -> object:
        return self.broken()


BROKEN = [found for found in list(globals().values()) if isinstance(found, type) and hasattr(found, "meant")]
for _broken in BROKEN:
    _name = f"Test{_broken.__name__}"
    globals()[_name] = type(_name, (Suite,), {"broken": _broken, "name": _broken.name, "__module__": __name__})
del _broken
