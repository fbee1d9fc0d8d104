"""Settings that a device or an architecture declares, and their values as a user gives them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from zoo.errors import UnknownNameError, ZooError
from zoo.numerals import decimal_number, whole_number

Kind: TypeAlias = Literal["text", "integer", "number", "file", "names"]
METAVARS: Mapping[Kind, str] = {"text": "TEXT", "integer": "N", "number": "NUMBER", "file": "FILE", "names": "A,B"}


@dataclass(frozen=True, kw_only=True)
class Option:
    """One declared option. The command line, its help and the documentation are made from this.

    ``name`` is what users type before ``=VALUE``. ``default`` is the value without a choice; empty means none. ``metavar`` stands for a
    value in help, if that of its kind says too little. ``kind`` is what a value must be; ``integer`` and ``number`` must not be below
    ``minimum``; ``file`` must exist.
    """

    name: str
    help: str
    choices: Sequence[str] = ()
    """All values it takes, the default first; empty if there are too many to list. Of kind ``file``: names it takes beside files."""
    kind: Kind = "text"
    default: str = ""
    minimum: float = 0
    spellings: Sequence[str] = ()
    """Other names that work in ``KEY=VALUE``."""
    flag: str = ""
    """A command-line option of its own, for example ``--card-id``."""
    flag_alone: str = ""
    """The value if that flag is given without one; empty if it needs one."""
    metavar: str = ""
    compared: bool = False
    """Whether ``zoo verify`` takes the flag several times, and compares the values."""

    @property
    def values(self) -> str:
        """The values it takes, for help: ``auto|one|all`` or ``FILE``."""
        others = [] if self.choices and self.kind != "file" else [self.metavar or METAVARS[self.kind]]
        return "|".join([*self.choices, *others])

    def checked(self, value: str, owner: str) -> str:
        """``value`` if the option takes it. Raises ZooError naming ``owner`` (``the device 'cpu'``)."""
        problem = self._problem(value)
        if problem:
            raise ZooError(f"the option {self.name}={value:.200} of {owner}: {problem}")
        return value

    def _problem(self, value: str) -> str:
        if self.choices and self.kind != "file":
            return "" if value in self.choices else f"it takes {', '.join(self.choices)}"
        if self.kind == "integer":
            whole = whole_number(value)
            return (
                ""
                if whole is not None and whole >= self.minimum
                else f"it takes a whole number, {self.minimum:g} or more"
            )
        if self.kind == "number":
            number = decimal_number(value)
            return (
                ""
                if number is not None and self.minimum <= number < math.inf
                else f"it takes a number, {self.minimum:g} or more"
            )
        if self.kind == "file":
            names = f", and it is not one of {', '.join(self.choices)}" if self.choices else ""
            return "" if value in self.choices or Path(value).is_file() else f"there is no such file{names}"
        if self.kind == "names":
            return "" if all(part.strip() for part in value.split(",")) else "it takes names separated by commas"
        return ""


def read_options(owner: str, declared: Iterable[Option], given: Mapping[str, str]) -> dict[str, str]:
    """The values of all declared options by name, defaults included; those without a value or a default are left out.

    Raises ZooError for a name nobody declared, for a value an option does not take, and for one option given under two spellings.
    """
    by_spelling = {spelling: option for option in declared for spelling in (option.name, *option.spellings)}
    chosen: dict[str, str] = {}
    for spelling, value in given.items():
        option = by_spelling.get(spelling.replace("-", "_"))
        if option is None:
            raise UnknownNameError(
                f"option of {owner} called", spelling, {option.name for option in by_spelling.values()}
            )
        if option.name in chosen and chosen[option.name] != value:
            raise ZooError(
                f"the option {option.name} of {owner} is given twice: '{chosen[option.name]:.200}' and '{value:.200}'"
            )
        chosen[option.name] = option.checked(value, owner)
    defaults = {option.name: option.default for option in by_spelling.values() if option.default}
    return {**defaults, **chosen}
