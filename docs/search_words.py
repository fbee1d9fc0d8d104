"""The words of the site's search: English words, and of Chinese text, which has no blanks, each two neighbouring characters.

``index`` and query are cut by the same rule, here in Python and below in JavaScript, so that a query of any length finds its page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sphinx.search.en import SearchEnglish

CHINESE = re.compile(r"([\u4e00-\u9fff]+)")
WORD = re.compile(r"\w+")


class EnglishAndChinese(SearchEnglish):
    """Sphinx's search for English with Chinese in it."""

    lang = "en-zh"
    js_splitter_code = r"""
function splitQuery(query) {
  const pairs = (run) => run.length === 1 ? [run] : Array.from(run.slice(1), (next, place) => run[place] + next);
  return query
    .split(/[^\p{Letter}\p{Number}_\p{Emoji_Presentation}]+/gu)
    .flatMap((word) => word.split(/([\u4e00-\u9fff]+)/))
    .filter((part) => part)
    .flatMap((part) => /[\u4e00-\u9fff]/.test(part) ? pairs(part) : [part]);
}
"""

    def split(self, input: str) -> list[str]:
        return [part for word in WORD.findall(input) for part in _parts(word)]


def _parts(word: str) -> Iterator[str]:
    for part in filter(None, CHINESE.split(word)):
        if CHINESE.match(part) and len(part) > 1:
            yield from (part[start : start + 2] for start in range(len(part) - 1))
        else:
            yield part
