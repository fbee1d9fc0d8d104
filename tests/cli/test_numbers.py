"""Options take numbers in ASCII digits alone, as files do: Python's own ``int`` reads ``1_0`` as 10."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from conftest import Zoo
from zoo.cli import main
from zoo.cli.numbers import FloatRange, IntRange
from zoo.errors import ZooError
from zoo.options import Option, read_options

pytestmark = pytest.mark.lowest

ODD = ["1_0", "１２８", "٣", " 8", "8 ", "1e400", "nan", "inf", "0x10", "9" * 5000, ""]


def parameters(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Parameter]]:
    context = click.Context(command)
    for parameter in command.get_params(context):
        yield " ".join([*path, parameter.name or ""]), parameter
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from parameters(inner, (*path, name))


def test_every_option_that_takes_a_number_is_of_these_types() -> None:
    numbers = {
        name: parameter.type
        for name, parameter in parameters(main)
        if isinstance(parameter.type, (click.types.IntParamType, click.types.FloatParamType))
        and not getattr(parameter, "count", False)
    }
    assert len(numbers) > 30
    assert [name for name, kind in numbers.items() if not isinstance(kind, (IntRange, FloatRange))] == []


@pytest.mark.parametrize("word", ODD)
@pytest.mark.parametrize(
    "words",
    [
        ["run", "zoo-reranker-tiny", "--batch-size"],
        ["run", "zoo-reranker-tiny", "--shape"],
        ["run", "zoo-reranker-tiny", "--mode", "valid", "--top-k"],
        ["run", "zoo-reranker-tiny", "--mode", "bench", "--seconds"],
        ["verify", "zoo-reranker-tiny", "--seconds"],
        ["export", "zoo-reranker-tiny", "--shape"],
        ["cache", "prune", "--unused-for"],
    ],
    ids=lambda words: f"{words[0]} {words[-1]}",
)
def test_a_number_in_other_digits_is_a_usage_error(words: list[str], word: str, zoo: Zoo) -> None:
    result = zoo(*words, word)
    assert result.exit_code == 2, result.output
    assert words[-1] in result.stderr
    assert len(result.stderr) < 2000


@pytest.mark.parametrize("word", ["1_0x8", "１x8", "1x８", "1x8x8", "0x8"])
def test_shapes_are_of_such_numbers_too(word: str, zoo: Zoo) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--mode", "bench", "--shapes", word)
    assert result.exit_code == 2
    assert "--shapes" in result.stderr


@pytest.mark.parametrize("kind", ["integer", "number"])
@pytest.mark.parametrize("word", ODD)
def test_an_option_of_a_device_or_an_architecture_takes_no_others(kind: str, word: str) -> None:
    option = Option(name="rows", help="", kind=kind)  # type: ignore[arg-type]
    with pytest.raises(ZooError, match="it takes a"):
        read_options("the device 'x'", [option], {"rows": word})
