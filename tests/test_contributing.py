"""What CONTRIBUTING tells is so: the environments of tox, and the fragments of the changelog."""

from __future__ import annotations

import configparser
import re

from conftest import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FRAGMENT = re.compile(r"[a-z0-9-]+\.(added|changed|fixed|removed)\.md")


def environments() -> set[str]:
    """The environments of tox.ini by their whole names: ``py{310,311}`` are two."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini", encoding="utf-8")
    found = set()
    for section in parser.sections():
        if section.startswith("testenv:"):
            head, _, rest = section.removeprefix("testenv:").partition("{")
            inner, _, tail = rest.partition("}")
            found |= {f"{head}{each}{tail}" for each in inner.split(",")}
    return found


def test_every_environment_of_tox_is_explained_and_no_other() -> None:
    cells = re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE)
    assert sorted(re.findall(r"`([^`]+)`", "".join(cells))) == sorted(environments())


def test_each_change_is_a_sentence_in_a_file_that_says_its_kind() -> None:
    for path in (ROOT / "changes").iterdir():
        if path.name != "README.md":
            assert FRAGMENT.fullmatch(path.name), path.name
            text = path.read_text(encoding="utf-8").strip()
            assert text.endswith("."), path.name
            assert not text.startswith(("-", "#")), path.name
