"""Web pages, by Chromium: their pictures, and for evaluation their blocks of text."""

from __future__ import annotations

import contextlib
import socket
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from languages import WORD, Language
from languages.answers import answer_of, confine_worker, error_answer, facts_answer
from languages.browser import FAILURES, MAX_SIDE, Browser, BrowserError, BrowserLost, browser_files, chromium_path
from languages.protocol import BrowserPage, Kind, Options, ToolMissing, Word
from languages.words import of_page, with_words

SIZE_OF_DRAWING = """(() => {
    const { width, height } = document.getElementById("drawing").getBoundingClientRect();
    return [Math.ceil(width), Math.ceil(height)];
})()"""


def start_browser(options: Options) -> Browser:
    files = {name: Path(path).read_bytes() for name, path in options.files.items()}  # before it may not any more
    confine_worker(options, children=True, sockets=(socket.AF_UNIX, socket.AF_NETLINK))
    if (program := chromium_path()) is None:
        hint = "apt install chromium-headless-shell, or: playwright install --only-shell chromium"
        raise ToolMissing(f"html and mermaid need Chromium: {hint}")
    try:
        return Browser(program, options.memory_mb << 18, files)
    except FAILURES as error:
        raise OSError(f"Chromium does not start: {error}") from None


def browser_renderer(browser: Browser, answer: Callable[[str], bytes], leaves: bool) -> Callable[[str], bytes]:
    """`answer`, or in its place the browser's error as one. leaves: whether the page is left after each program."""
    state = types.SimpleNamespace(used=False, lost=False)

    def render(code: str) -> bytes:
        try:
            return answer(code)
        except BrowserError as error:
            return error_answer(f"browser: {error}")
        except BrowserLost as error:
            if state.used:  # this may be the doing of the page before
                browser.end()
            state.lost = True
            return error_answer(f"browser: {error}")
        finally:
            state.used = True

    def tidy() -> None:
        if state.lost or browser.is_bloated():
            browser.end()
        if leaves:
            browser.leave()

    render.tidy = tidy
    return render


def draw_with_words(browser: Browser, width: int, height: int, margin: int = 0) -> Image.Image:
    """The picture of a part of the page, `margin` px from its left and top, with its words. Asking for both at once
    gives the words of that moment, and reading them costs no time while the browser draws."""
    words: list[Word] = []

    def read() -> None:
        with contextlib.suppress(BrowserError):  # its scripts may do what they like to it
            words.extend(of_page(browser.evaluate, margin, margin, browser.shown_scale))

    return with_words(browser.screenshot(width, height, margin, margin, meanwhile=read), words)


def html_renderer(options: Options) -> Callable[[str], bytes]:
    """Web pages, at least 1280 px wide and as high as they are, or the part of them that is meant (`BrowserPage`)."""
    browser = start_browser(options)

    def draw(code: str) -> Image.Image:
        part = BrowserPage.part(code)
        if part is None:
            browser.set_scale(1)
            browser.open(code)
            return draw_with_words(browser, *browser.size())
        width, height, scale = part
        most = min(MAX_SIDE / max(width, height, 1), (options.max_pixels / max(width * height, 1)) ** 0.5)
        browser.set_scale(min(max(0.01, scale), most))
        browser.open(code)
        try:
            browser.size(figure=True)
        except BrowserError as error:
            wanted = f"it wants {browser.refused[:200]}, and there is no network" if browser.refused else error
            raise BrowserError(wanted) from None
        if not width or not height:
            if browser.refused:  # vega goes on without its data
                raise BrowserError(f"it wants {browser.refused[:200]}, and there is no network")
            width, height = browser.evaluate(SIZE_OF_DRAWING)
        return draw_with_words(browser, width, height, BrowserPage.MARGIN)

    return browser_renderer(browser, lambda code: answer_of(lambda: draw(code), options, FAILURES), leaves=True)


def page_facts_renderer(options: Options) -> Callable[[str], bytes]:
    """The text blocks of a web page (page_blocks.py), in place of its picture."""
    from languages import page_blocks

    browser = start_browser(options)

    def answer(code: str) -> bytes:
        def open_page() -> None:
            browser.open(code)
            browser.seen = browser.size()

        def blocks() -> list[dict]:
            return page_blocks.blocks(lambda: browser.unscaled(*browser.seen), browser.evaluate)

        return facts_answer(open_page, blocks, FAILURES)

    return browser_renderer(browser, answer, leaves=True)


def published_page_facts_renderer(options: Options) -> Callable[[str], bytes]:
    """The same, found as Design2Code's own code finds them."""
    from languages import page_blocks

    browser = start_browser(options)

    def picture_of(html: str) -> Image.Image:
        browser.leave()
        browser.open(html)
        return browser.unscaled(*browser.size())

    def answer(code: str) -> bytes:
        return facts_answer(lambda: None, lambda: page_blocks.published_blocks(code, picture_of), FAILURES)

    return browser_renderer(browser, answer, leaves=True)


def tools(python: str) -> Iterator[tuple[str, str]]:
    yield "browser", chromium_path() or "no Chromium is here: apt install chromium-headless-shell"


LANGUAGE = Language(
    name="html",
    suffixes=(".html", ".htm"),
    words=r"html5?|htm|css",
    tags=("htm",),
    code="HTML code",
    domains={"html": "web page"},
    sample="<!DOCTYPE html><body style='margin:40px'><h1 style='color:teal'>A heading</h1><p>Some text.</p></body>\n",
    kinds={"html": Kind(html_renderer, browser=True, files=browser_files)},
    for_metrics={
        "page facts": Kind(page_facts_renderer, browser=True, facts=True, files=browser_files),
        "published page facts": Kind(published_page_facts_renderer, browser=True, facts=True, files=browser_files),
    },
    tools=tools,
    unseen=r"(?s)<!--.*?-->|<(?:title|script)\b.*?</(?:title|script)>",
    flaws={
        "number": ("", r"(?<![\w#.])\d+(?:\.\d+)?(?=px|em|rem|%|vh|vw|pt)"),
        "drop": ("", r"<(p|h\d|li|button|a|span|td|div|label)\b[^<>]*>[^<>]*\w[^<>]*</\1>|<img\b[^<>]*>"),
        "label": (r"<(?!style)\w+[^<>]*>([^<>{}]+)<", WORD),
    },
)
