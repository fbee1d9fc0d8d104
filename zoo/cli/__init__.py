"""The ``zoo`` command. Each subcommand is one file beside this one, imported when it is called."""

from __future__ import annotations

import importlib
from typing import Any

import click

from zoo import __version__
from zoo.cli.boundary import ended_by_signals, run_safely, standard_streams
from zoo.cli.common import catalogue_of, debugging
from zoo.cli.language import HelpContext, language_option, to_the_front, with_help
from zoo.errors import PluginError, suggestion
from zoo.registry.participants import load_object

COMMANDS = {
    "bench": "zoo.cli.bench",
    "cache": "zoo.cli.cache",
    "devices": "zoo.cli.devices",
    "doctor": "zoo.cli.doctor",
    "export": "zoo.cli.export",
    "models": "zoo.cli.models",
    "new": "zoo.cli.new",
    "plugins": "zoo.cli.plugins",
    "run": "zoo.cli.run",
    "serve": "zoo.cli.serve",
    "simplify": "zoo.cli.simplify",
    "verify": "zoo.cli.verify",
}
"""Command name to the module that holds it as ``command``."""

SUMMARIES = {
    "bench": "Compare two reports of 'zoo run --mode bench'.",
    "cache": "Model files that were made and kept: list, verify, prune.",
    "devices": "Devices: what is installed, what is available here, and why not.",
    "doctor": "One page about this machine: versions, devices, threads, caches, hub.",
    "export": "Make the ONNX file of MODEL that a device runs, and prove it against the weights.",
    "models": "Models that can be run, from every installed plugin; with NAME, one card whole.",
    "new": "Write a plugin package to begin with: code, tests against zoo's contract, and a CI file.",
    "plugins": "Plugins: what each one brings, and which could not be loaded.",
    "run": "Score pairs or files of pairs with MODEL, or evaluate it on a data set.",
    "serve": "Serve MODEL over HTTP, in the forms of TEI, Cohere, Jina, vLLM and others.",
    "simplify": "Simplify an ONNX file with onnxsim, and prove that it computes the same.",
    "verify": "Check that a device computes what it should, and write a report.",
}
"""First lines of the commands' help, so that ``zoo --help`` imports none of them; a test holds them equal."""


class LazyGroup(click.Group):
    """Imports a subcommand when it is used, suggests a close name for a misspelt one, and reports faults as text.

    Commands that plugins bring stand beside zoo's own.
    """

    context_class = HelpContext

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *catalogue_of(ctx).commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            command: object = importlib.import_module(COMMANDS[cmd_name]).command
            assert isinstance(command, click.Command)
            return with_help(command)
        offer = catalogue_of(ctx).commands.get(cmd_name)
        if offer is None:
            return None
        command = load_object(offer.value.command, f"the plugin {offer.plugin.label}")
        if not isinstance(command, click.Command):
            raise PluginError(
                f"the plugin {offer.plugin.label} offers the command '{cmd_name}', which is not a click command"
            )
        return with_help(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            known = self.list_commands(ctx)
            if args[0] not in known:
                close = suggestion(args[0], known)
                hint = f" Did you mean '{close}'?" if close else ""
                ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        offered = {name: offer.value.summary for name, offer in catalogue_of(ctx).commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, {**offered, **SUMMARIES}[name]) for name in self.list_commands(ctx)])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with standard_streams(), ended_by_signals():
            return super().main(*args, **kwargs)

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **kwargs: Any) -> click.Context:
        make = super().make_context
        context: click.Context = run_safely(
            lambda: make(info_name, to_the_front(args), *more, **kwargs), debug=lambda: False
        )
        return context

    def invoke(self, ctx: click.Context) -> Any:
        return run_safely(lambda: super(LazyGroup, self).invoke(ctx), debug=lambda: debugging(ctx))


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Tecorigin's scripts spell some options with underscores: --batch_size is --batch-size.
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="zoo")
@language_option
def main() -> None:
    """Run rerankers from a model zoo on any device.

    \b
    zoo run zoo-reranker-tiny --mode single    score the demo pairs, offline
    zoo models                                 what can be run
    zoo devices                                where it can run
    """
