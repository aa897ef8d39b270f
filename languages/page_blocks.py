"""The text blocks of a web page without reading letters: Design2Code's recolouring (arXiv 2403.03163).

Runs inside the sandboxed browser worker. All backgrounds are made transparent and every element that holds
text gets a colour of its own, in two versions 50 steps apart; a pixel that follows is text, and whose it is its colour
says (`ocr_free_utils.py`, commit 7a575e4). `blocks` sets the colours in the loaded page, so that all three screenshots
show one document as its scripts left it; `body` is one more element that holds text, and what is within such an
element but none itself (`strong`, `code`) takes its colour. `published_blocks` is the original: it writes the colours
into the source, and text within an element that has a colour of its own and gets none stays unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageColor

from languages.protocol import ProgramError

SHIFT, NEAR, CLOSE, MOST = 50, 4, 8, 1000
TAGS = "p h1 h2 h3 h4 h5 h6 div span a b li table td th button footer header figcaption"
GRID = range(10, 251, 16)  # of each of a colour's three values
RECOLOUR = """((shift) => {
    const tags = new Set("body TAGS".split(" ")), grid = [];
    for (let r = 10; r < 251; r += 16) for (let g = 10; g < 251; g += 16) for (let b = 10; b < 251; b += 16)
        grid.push([r, g, b]);
    const set = (element, name, value) => element.style && element.style.setProperty(name, value, "important");
    for (const element of document.getElementsByTagName("*")) {
        set(element, "background-color", "rgba(255, 255, 255, 0)");
        set(element, "transition", "none");
    }
    const given = new Map();
    for (const element of document.getElementsByTagName("*")) {
        if (!tags.has(element.localName) || !grid.length) continue;
        const colour = grid.pop();
        given.set(element, colour);
        set(element, "color", "rgb(" + colour.map((c) => (c + shift) % 256).join(",") + ")");
        set(element, "opacity", "1");
    }
    const texts = [], walker = document.createTreeWalker(document.body || document, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode()) && texts.length < MOST;) {
        const text = node.data.trim();
        let owner = node.parentElement;
        if (!text || !owner || ["script", "style"].includes(owner.localName)) continue;
        for (; owner && !given.has(owner); owner = owner.parentElement) set(owner, "color", "inherit");
        if (owner) texts.push([text.toLowerCase().slice(0, 2000), given.get(owner)]);
    }
    return texts;
})""".replace("TAGS", TAGS).replace("MOST", str(MOST))

Text = tuple[str, list[int]]
"""A text in lower case, and the colour of the element that holds it."""


def blocks(screenshot: Callable[[], Image.Image], evaluate: Callable) -> list[dict]:
    """[{"text", "box": [x, y, width, height] as fractions, "colour": [r, g, b]}] of the page that is shown.

    screenshot() gives an RGB picture of it; evaluate(expression) runs script in a world of its own and gives its value.
    """
    page = screenshot()
    texts = evaluate(f"{RECOLOUR}(0)")
    first = screenshot()
    evaluate(f"{RECOLOUR}({SHIFT})")
    return found_blocks(texts, page, first, screenshot())


def published_blocks(html: str, picture_of: Callable[[str], Image.Image]) -> list[dict]:
    """The same of Design2Code's own code. picture_of(html) opens a page and gives an RGB picture of it."""
    page = picture_of(html)
    source, texts = recoloured(html, 0)
    return found_blocks(texts, page, picture_of(source), picture_of(recoloured(html, SHIFT)[0]))


def found_blocks(texts: list[Text], page: Image.Image, first: Image.Image, second: Image.Image) -> list[dict]:
    """A text's block are the text pixels within 4 steps of its colour in the first recoloured page. None are found
    where the recoloured pages differ in size, or text lies where the page has nothing."""
    page, first, second = (np.asarray(image.convert("RGB")) for image in (page, first, second))
    if first.shape != second.shape:
        return []
    height, width, _ = first.shape
    shifted = first + np.uint8(SHIFT)  # beyond 255 it begins again at 0
    rows, columns = np.nonzero((np.maximum(shifted, second) - np.minimum(shifted, second) <= CLOSE).all(2))
    if not len(rows) or rows.max() >= page.shape[0] or columns.max() >= page.shape[1]:
        return []
    # the extent and the sum of the page's colours of all text pixels of one colour, so that each is looked at once
    keys = first[rows, columns] @ np.array([1 << 16, 1 << 8, 1])
    order = np.argsort(keys, kind="stable")
    rows, columns, keys = rows[order], columns[order], keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    colours = first[rows[starts], columns[starts]].astype(np.int16)
    counts = np.diff(starts, append=len(keys))
    sums = np.add.reduceat(page[rows, columns].astype(np.int64), starts)
    top, left = np.minimum.reduceat(rows, starts), np.minimum.reduceat(columns, starts)
    bottom, right = np.maximum.reduceat(rows, starts), np.maximum.reduceat(columns, starts)
    result = []
    for text, colour in texts:
        least, most = (np.array(colour) - NEAR) % 256, (np.array(colour) + NEAR) % 256  # in 8 bits, as OpenCV has them
        of = ((least <= colours) & (colours <= most)).all(1)
        if of.any():
            x, y = int(left[of].min()), int(top[of].min())
            w, h = int(right[of].max()) - x + 1, int(bottom[of].max()) - y + 1
            mean = (sums[of].sum(0) / counts[of].sum()).astype(int).tolist()
            result.append({"text": text, "box": [x / width, y / height, w / width, h / height], "colour": mean})
    return result


# ---- as published ----------------------------------------------------------------------------------------------------


def recoloured(html: str, shift: int) -> tuple[str, list[Text]]:
    """A page's source with the colours in it, and its texts, which are those within <body>: scripts' and hidden ones
    too, each in the colour of the nearest element around it whose own style names one."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html.replace("\r\n", "\n").replace("\r", "\n"), "html.parser")
    for element in soup.find_all(True):
        set_style(element, "background-color", "rgba(255, 255, 255, 0.0)")
    colours = [(r, g, b) for r in GRID for g in GRID for b in GRID]
    for element in soup.find_all(TAGS.split()):
        if not colours:
            raise ProgramError("Design2Code has colours for 4,096 elements that hold text, and the page has more")
        set_style(element, "color", "#" + "".join(f"{(c + shift) % 256:02X}" for c in colours.pop()))
        set_style(element, "opacity", "1.0")
    return str(soup), texts_below(soup.body) if soup.body else []


def set_style(element, name: str, value: str) -> None:
    """In the element's own style, from which all goes whose name begins alike."""
    styles = [s for s in element.get("style", "").split(";") if s.strip() and not s.strip().startswith(name)]
    element["style"] = "; ".join([*styles, f"{name}: {value} !important"]).strip()


def texts_below(body) -> list[Text]:
    from bs4 import Comment, NavigableString

    colour_of = {None: (0, 0, 0)}
    texts = []
    for node in [body, *body.descendants]:
        outer = colour_of[id(node.parent) if node is not body else None]
        if not isinstance(node, NavigableString):
            colour_of[id(node)] = named_colour(node) or outer
        elif not isinstance(node, Comment) and outer != NO_COLOUR and (text := node.strip()):
            texts.append((text.lower(), list(outer)))
    return texts


NO_COLOUR = (-1, -1, -1)  # one that the original finds and cannot use


def named_colour(element) -> tuple[int, ...] | None:
    """What the last entry of an element's style with "color" in it says, whatever it is the colour of."""
    named = [s for s in element.get("style", "").split(";") if "color" in s and "background-color" not in s]
    value = named[-1].partition(":")[2].partition(":")[0].strip().replace(" !important", "") if named else ""
    if value.startswith("#"):
        digits = re.match("#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", value)
        return tuple(int(pair, 16) for pair in digits.groups()) if digits else NO_COLOUR
    try:
        numbers = value[4:-1].split(",") if value.startswith("rgb") else ImageColor.getrgb(value)
        red, green, blue = (int(number) % 256 for number in numbers[:3])
        return red, green, blue
    except ValueError:
        return None
