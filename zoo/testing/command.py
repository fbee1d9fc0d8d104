"""The contract of a command, as tests. A plugin subclasses ``CommandContract`` and gives it what ``zoo_commands`` offers::

class TestMyCommand(CommandContract):
    name = "greet"
    arguments = ("Ada",)
    wrong = ("",)

    @pytest.fixture
    def plugin(self):
        return my_package
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from unittest import mock

import click
import pytest
from click.testing import CliRunner, Result

from zoo.cli import COMMANDS, main
from zoo.registry.catalogue import NAME, Catalogue
from zoo.registry.participants import load_object
from zoo.testing.base import Contract, told
from zoo.types import CommandOffer


class CommandContract(Contract):
    """What every command must do.

    ``name`` is the word after ``zoo``; ``arguments`` make it succeed, and ``wrong`` are arguments that its user has to correct, if
    there are any.
    """

    page = "docs/plugins.md, 'A command'"
    name: str = ""
    arguments: Sequence[str] = ()
    wrong: Sequence[str] | None = None

    @pytest.fixture
    def plugin(self) -> object:
        """The module or object that implements ``zoo_commands``: override it. Raises TypeError."""
        raise TypeError("give CommandContract a fixture 'plugin': the module or object that implements zoo_commands")

    @pytest.fixture
    def offer(self, plugin: object) -> CommandOffer:
        """What the plugin offers under ``name``."""
        catalogue = Catalogue.of(plugin=plugin)
        assert not catalogue.plugins[0].error, told("a plugin that can be used", catalogue.plugins[0].error)
        offered = catalogue.commands
        assert self.name in offered, told(f"the command '{self.name}'", ", ".join(offered) or "none")
        return offered[self.name].value

    def call(self, plugin: object, *arguments: str) -> Result:
        """``zoo ARGUMENTS`` with this plugin beside those that are installed."""
        # Before 8.2, click mixes stderr into stdout unless it is told not to.
        separate = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
        installed = [record for record in Catalogue.installed().plugins if record.plugin is not plugin]
        catalogue = Catalogue([*installed, *Catalogue.of(plugin=plugin).plugins])
        runner = CliRunner(**separate)  # type: ignore[arg-type]
        with mock.patch.object(Catalogue, "installed", return_value=catalogue):
            return runner.invoke(main, list(arguments), prog_name="zoo")

    def test_its_name_can_be_typed_and_is_not_one_of_zoos(self, offer: CommandOffer) -> None:
        """A command's name is one that can be typed, and that zoo itself does not have."""
        assert NAME.fullmatch(self.name), told("a name of small letters, digits, '.', '_' and '-'", repr(self.name))
        assert self.name not in COMMANDS, told("a name that zoo does not have", self.name)

    def test_its_summary_is_one_line(self, offer: CommandOffer) -> None:
        """``zoo --help`` shows its one-line summary."""
        assert offer.summary and "\n" not in offer.summary, told("a summary of one line", repr(offer.summary))

    def test_it_is_a_click_command_named_as_text(self, offer: CommandOffer) -> None:
        """It is a click command, named as text so that it is imported when it is called."""
        assert isinstance(offer.command, str) and offer.command.count(":") == 1, told(
            "package.module:attribute", repr(offer.command)
        )
        found = load_object(offer.command, "the plugin")
        assert isinstance(found, click.Command), told("a click command", repr(found))

    def test_it_is_listed_and_has_help(self, plugin: object, offer: CommandOffer) -> None:
        """``zoo --help`` lists it, and its own help explains every option."""
        listed = self.call(plugin, "--help")
        assert f"  {self.name} " in listed.stdout, told(f"'{self.name}' in zoo --help", listed.stdout)
        own = self.call(plugin, self.name, "--help")
        assert own.exit_code == 0, told("exit code 0 of --help", f"{own.exit_code}: {own.stderr}")
        command = load_object(offer.command, "the plugin")
        assert command.help, told("a docstring that explains it", "none")
        silent = [p.opts[0] for p in command.params if isinstance(p, click.Option) and not p.help]
        assert not silent, told("help for every option", f"none for {', '.join(silent)}")

    def test_it_succeeds(self, plugin: object) -> None:
        """It ends with exit code 0 and writes its result to stdout; with --json, one JSON document or one a line."""
        done = self.call(plugin, self.name, *self.arguments)
        assert done.exit_code == 0, told("exit code 0", f"{done.exit_code}: {done.stderr or done.exception}")
        command = load_object(Catalogue.of(plugin=plugin).commands[self.name].value.command, "the plugin")
        if any("--json" in parameter.opts for parameter in command.params):
            written = self.call(plugin, self.name, *self.arguments, "--json").stdout
            assert is_json(written), told("JSON on stdout with --json", written)

    def test_an_option_that_does_not_exist_is_an_error_of_usage(self, plugin: object) -> None:
        """A mistake in the command line ends with exit code 2."""
        done = self.call(plugin, self.name, *self.arguments, "--no-such-option")
        assert done.exit_code == 2, told("exit code 2", done.exit_code)

    def test_what_its_user_has_to_correct_is_reported_without_a_traceback(self, plugin: object) -> None:
        """A fault of the user's ends with a message on stderr and exit code 1 or 2, and with nothing on stdout."""
        if self.wrong is None:
            pytest.skip("give CommandContract 'wrong' to have this checked")
        done = self.call(plugin, self.name, *self.wrong)
        assert done.exit_code in (1, 2), told("exit code 1 or 2", done.exit_code)
        assert "Error:" in done.stderr, told("Error: ... on stderr", repr(done.stderr or done.exception))
        assert "internal fault" not in done.stderr, told("a ZooError", done.stderr)
        assert not done.stdout, told("nothing on stdout", repr(done.stdout))


def is_json(text: str) -> bool:
    """Whether it is one JSON document, or one on each line."""
    for parts in ([text], text.splitlines()):
        try:
            found = [json.loads(part) for part in parts]
        except ValueError:
            continue
        return bool(found)
    return False
