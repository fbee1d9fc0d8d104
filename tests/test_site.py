"""The search of the documentation site finds Chinese text, which has no blanks between its words."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

pytestmark = [pytest.mark.site]

pytest.importorskip("sphinx", reason="builds the documentation site (tox -e site)")
sys.path.insert(0, str(ROOT / "docs"))

from search_words import EnglishAndChinese

WORDS = {
    "设备": ["设备"],
    "故障排查": ["故障", "障排", "排查"],
    "用ONNX文件, once": ["用", "ONNX", "文件", "once"],
    "nDCG@10": ["nDCG", "10"],
    "": [],
}


@pytest.mark.parametrize("text", WORDS)
def test_chinese_is_cut_into_pairs_of_characters_and_english_into_words(text: str) -> None:
    assert EnglishAndChinese({}).split(text) == WORDS[text]


@pytest.mark.parametrize("text", WORDS)
def test_a_query_is_cut_as_the_pages_are(text: str) -> None:
    if shutil.which("node") is None:
        pytest.skip("runs the page's JavaScript by node")
    script = f"{EnglishAndChinese.js_splitter_code} console.log(splitQuery(process.argv[1]).join(' '))"
    done = subprocess.run(["node", "-e", script, text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == WORDS[text]
