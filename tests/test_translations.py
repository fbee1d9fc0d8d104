"""Pages in Chinese are kept in step with their English originals: the same sections, the same commands, the same tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import ROOT

PAGES = {
    "README.zh.md": "README.md",
    "docs/zh/guide.md": "docs/guide.md",
    "docs/zh/quickstart.md": "docs/quickstart.md",
}


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def sections(page: str) -> list[int]:
    """The levels of the headings, in order; what stands in code is no heading."""
    prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    return [len(marks) for marks in re.findall(r"^(#+) ", prose, re.MULTILINE)]


def code(page: str) -> list[str]:
    return re.findall(r"```\w*\n(.*?)```", text(page), re.DOTALL)


def rows(page: str) -> list[str]:
    """The cells of tables that are code: commands, examples."""
    return re.findall(r"(?<=\| )`[^|]*`(?= \|)", text(page))


@pytest.mark.parametrize("page", PAGES)
def test_a_translation_has_the_sections_of_its_original(page: str) -> None:
    assert sections(page) == sections(PAGES[page])


@pytest.mark.parametrize("page", PAGES)
def test_a_translation_shows_the_same_commands_and_output(page: str) -> None:
    assert code(page) == code(PAGES[page])
    assert rows(page) == rows(PAGES[page])


@pytest.mark.parametrize("page", PAGES)
def test_a_translation_is_in_chinese(page: str) -> None:
    prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    for paragraph in re.split(r"\n\s*\n", prose):
        if len(paragraph) > 200:
            assert re.search(r"[\u4e00-\u9fff]", paragraph), paragraph


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_translation_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", text(page)):
        assert "://" in target or (Path(ROOT / page).parent / target).exists(), target


def test_every_page_of_the_chinese_folder_has_an_original() -> None:
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "zh").rglob("*.md")} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_a_translation_names_the_same_options_variables_and_files(page: str) -> None:
    """Whatever stands in backquotes in the prose of one stands in the other: an option that is added needs its sentence."""

    def named(of: str) -> set[str]:
        prose = re.sub(r"```.*?```", "", text(of), flags=re.DOTALL)
        return set(re.findall(r"`([^`\n]+)`", prose))

    assert named(page) == named(PAGES[page])
