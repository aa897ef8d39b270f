"""Diagrams, by mermaid.js in Chromium."""

from __future__ import annotations

import html
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from languages import WORD, Language
from languages.answers import answer_of
from languages.browser import FAILURES, browser_files
from languages.html import browser_renderer, draw_with_words, start_browser
from languages.protocol import Kind, Options, ToolMissing

MERMAID_OPTIONS = dict(startOnLoad=False, securityLevel="strict", deterministicIds=True, suppressErrorRendering=True)
DRAW_MERMAID = """async code => {
    beginAnew();
    const { svg, diagramType } = await mermaid.render("diagram", code).catch(error => {
        if (error?.name == "EncodingError") throw "it wants a picture from the network, and there is none here";
        throw String(error?.message ?? error);
    });
    if (diagramType == "error" || diagramType == "info")
        throw `"${diagramType}" is not a diagram: mermaid draws only a message of its own for it`;
    document.body.innerHTML = svg;
    const drawing = document.querySelector("svg"), box = drawing.viewBox.baseVal;
    drawing.style.maxWidth = "none";
    const [width, height] = [Math.ceil(box.width), Math.ceil(box.height)];
    drawing.setAttribute("width", width);
    drawing.setAttribute("height", height);
    return [width, height];
}"""


def mermaid_script() -> Path | None:
    """mermaid.min.js: $NANOVINCI_MERMAID, else where `make setup` puts it, else .cache/ beside this file."""
    named = os.environ.get("NANOVINCI_MERMAID")
    places = [Path(sys.prefix, "share/mermaid.min.js"), Path(__file__).parent.parent / ".cache/mermaid.min.js"]
    return next((path for path in ([Path(named)] if named else []) + places if path.is_file()), None)


def diagram(code: str) -> str:
    """The diagram in a text: what a fence or an element of class mermaid holds, else all of it."""
    tagged = re.search(r"(?ms)^[ \t]*(```+|~~~+)[ \t]*mermaid\b[^\n]*\n(.*?)(?:^[ \t]*\1|\Z)", code)
    fence = tagged or re.search(r"(?ms)^[ \t]*(```+|~~~+)[ \t]*\n(.*?)(?:^[ \t]*\1|\Z)", code)
    if fence:
        code = fence[2]
    element = re.search(r"(?is)<(div|pre)\b[^>]*\bclass\s*=\s*[\"']?mermaid\b[^>]*>(.*?)</\1>", code)
    return html.unescape(element[2]) if element else code


def mermaid_renderer(options: Options) -> Callable[[str], bytes]:
    """Diagrams, drawn by mermaid.js in their natural size, all in one page."""
    if mermaid_script() is None:
        raise ToolMissing("mermaid needs mermaid.min.js: run `make setup`, or name the file in NANOVINCI_MERMAID")
    script = mermaid_script().read_text()
    browser = start_browser(options)
    browser.open("<!DOCTYPE html><style>body { margin: 0 }</style><body></body>")
    browser.run(script + ";0")
    browser.run(f"mermaid.initialize({json.dumps(MERMAID_OPTIONS)})")

    def draw(code: str) -> Image.Image:
        return draw_with_words(browser, *browser.run(f"({DRAW_MERMAID})({json.dumps(diagram(code))})"))

    return browser_renderer(browser, lambda code: answer_of(lambda: draw(code), options, FAILURES), leaves=False)


def files() -> dict[str, str]:
    script = mermaid_script()
    return browser_files() | ({"NANOVINCI_MERMAID": str(script)} if script else {})


def tools(python: str) -> Iterator[tuple[str, str]]:
    yield "mermaid", str(mermaid_script() or "mermaid.min.js is not here: run `make setup`")


LANGUAGE = Language(
    name="mermaid",
    suffixes=(".mmd",),
    words=r"mermaid|mmd",
    tags=("mmd",),
    code="Mermaid code",
    domains={"mermaid": "diagram"},
    sample="flowchart LR\n    A[Code] --> B{Right?}\n    B -->|yes| C[Picture]\n",
    kinds={"mermaid": Kind(mermaid_renderer, browser=True, files=files)},
    tools=tools,
    unseen=r"(?m)%%.*$",
    flaws={
        "number": ("", r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])"),
        "drop": ("", r"(?m)^.*(?:--|==|->>|-\.).*\n"),
        "label": (r"[\[({|\"]([^\[\](){}|\"<>]+)[\])}|\"]|:([^\n]+)", WORD),
    },
)
