"""The page at ``/``: one file that needs nothing from elsewhere, in two languages, looked at with a browser if there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from serving import FakeReranker, Running, serving, until
from zoo.serve.page import PAGE

pytestmark = pytest.mark.clients

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_names_no_other_place() -> None:
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", TEXT)
    assert not re.search(r"@import|\burl\(", TEXT)


def test_every_word_of_the_page_is_there_in_both_languages() -> None:
    english, chinese = re.search(r"en: \{(.*?)\n  \},\n  zh: \{(.*?)\n  \},\n\};", TEXT, re.DOTALL).groups()  # type: ignore[union-attr]
    names = [set(re.findall(r"(?:^|[,{]\s*|\s)(\w+): [\"\[(\w]", part)) for part in (english, chinese)]
    assert names[0] == names[1]
    assert set(re.findall(r'data-say="(\w+)"', TEXT)) <= names[0]


def test_a_browser_may_run_the_pages_own_script_and_nothing_else() -> None:
    with serving(FakeReranker) as server:
        answer = server.client.get("/")
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(FakeReranker, FakeReranker) as running:
        yield running


class Page:
    """The page in a browser, with what went wrong there."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_context(**context).new_page()
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def texts(self) -> list[str]:
        self.page.wait_for_selector("#results li")
        found: list[str] = self.page.locator("#results .text").all_inner_texts()
        return found

    def says(self, where: str, text: str) -> None:
        """Wait until the element says exactly that."""
        until(lambda: self.page.inner_text(where) == text)


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_it_ranks_its_example_at_every_width_in_every_scheme(
    browser: Any, server: Running, width: int, scheme: str, locale: str
) -> None:
    shown = Page(browser, server.url, viewport={"width": width, "height": 800}, color_scheme=scheme, locale=locale)
    assert len(shown.texts()) == 5
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.page.evaluate("document.documentElement.lang") == locale[:2]
    dark = shown.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert dark == (scheme == "dark")
    assert shown.wrong == []
    assert all(url.startswith(server.url) for url in shown.asked)


def test_the_curl_line_does_what_the_page_does(browser: Any, server: Running) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    shown = Page(browser, server.url)
    shown.texts()
    shown.page.fill("#query", 'it\'s $HOME and "quotes" `ls`')
    shown.page.fill("#passages", "2 two's \\ back\n-1 <b>minus</b>\n\n 3 three ")
    shown.page.select_option("#model", "fake-2")
    shown.page.click("#rank")
    until(lambda: shown.page.locator("#results li").count() == 3)
    assert shown.texts() == ["3 three", "2 two's \\ back", "-1 <b>minus</b>"]
    scores = [float(text) for text in shown.page.locator("#results .score").all_inner_texts()]
    line = shown.page.inner_text("#curl")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert [each["score"] for each in json.loads(done.stdout)] == pytest.approx(scores, abs=1e-4)
    until(lambda: server.metric("zoo_requests_total", model="fake-2", status="200") == 2)  # counted after the answer


def test_the_language_can_be_changed_and_own_texts_stay(browser: Any, server: Running) -> None:
    shown = Page(browser, server.url, locale="en-US")
    shown.texts()
    shown.page.click("#language")
    shown.says("#rank", "排序")
    assert "熊猫" in shown.page.input_value("#query")
    shown.page.fill("#query", "my own")
    shown.page.click("#language")
    assert shown.page.input_value("#query") == "my own"
    assert shown.page.inner_text("#rank") == "Rank"


def test_a_locked_server_is_opened_with_a_key(browser: Any) -> None:
    with serving(FakeReranker, keys=("sesame",)) as locked:
        shown = Page(browser, locked.url, locale="en-US")
        shown.page.wait_for_selector("#key-field:not([hidden])")
        assert shown.page.inner_text("#wrong") == "This server needs a key."
        shown.page.fill("#key", "sesame")
        assert "sesame" not in shown.page.inner_text("#curl")
        assert "$ZOO_API_KEY" in shown.page.inner_text("#curl")
        shown.page.click("#rank")
        assert len(shown.texts()) == 5


def test_a_server_that_is_loading_or_away_is_said_to_be(browser: Any) -> None:
    import threading

    go = threading.Event()

    def slowly() -> FakeReranker:
        assert go.wait(30)
        return FakeReranker()

    with serving(slowly, wait=False) as loading:
        shown = Page(browser, loading.url, locale="en-US")
        shown.says("#state", "loading fake")
        go.set()
        shown.says("#state", "ready: fake")
        assert len(shown.texts()) == 5
    shown.page.click("#rank")
    shown.says("#wrong", "The server does not answer.")
