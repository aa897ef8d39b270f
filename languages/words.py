"""What a picture says: its words, each with the box that it was drawn in, noted where a worker draws them.

An image carries them in its `info`, protocol.Word each; whoever cuts or scales an image says so here. A
line's words share its length by their letters. What is nearly transparent is no word; the rest is for who looks at the
picture: whether a word can be seen there (rewards/text.py).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from PIL import Image

from languages.protocol import Word

MOST = 4000  # words of a picture
FAINT = 0.2  # opacity below which nobody reads a word
WORDS = object()  # their key: no text, which a program could set without meaning to


def words_of(image: Image.Image) -> list[Word]:
    return image.info.get(WORDS, [])


def with_words(image: Image.Image, words: Iterable[Word]) -> Image.Image:
    """The image, with what it says; where that cannot be read, it says nothing: it never costs the picture."""
    image.info.pop(WORDS, None)
    with contextlib.suppress(Exception):
        image.info[WORDS] = list(itertools.islice(words, MOST))
    return image


def carried(old: Image.Image, new: Image.Image, scale=1.0, left: float = 0, top: float = 0) -> Image.Image:
    """`new`, the part of `old` from (left, top) on, `scale` times as large, with the words that are there."""

    def moved(word: Word) -> Word:
        box = ((word.left - left) * scale, (word.top - top) * scale, (word.right - left) * scale)
        return word._replace(**whole(*box, (word.bottom - top) * scale))

    return with_words(new, map(moved, words_of(old)))


def whole(left: float, top: float, right: float, bottom: float) -> dict[str, int]:
    """A box in whole px, none of it left out. ValueError or OverflowError for what is no number."""
    return dict(left=math.floor(left), top=math.floor(top), right=math.ceil(right), bottom=math.ceil(bottom))


def hex_colour(red: float, green: float, blue: float, opacity: float = 1.0) -> str:
    """ "rrggbb" of values in 0 .. 1, as on white paper."""
    values = (255 * (opacity * min(1.0, max(0.0, value)) + 1 - opacity) for value in (red, green, blue))
    return "".join(f"{round(value):02x}" for value in values)


def in_line(
    text: str, x: float, y: float, width: float, above: float, below: float, angle: float = 0.0, colour: str = ""
) -> Iterator[Word]:
    """The words of a line that begins at (x, y) on its baseline and is so wide, reaching so far above and below it, all
    in px; angle: degrees, counterclockwise."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    for found in re.finditer(r"\S+", text):
        along = [width * at / len(text) for at in found.span()]
        corners = [(x + u * cos - v * sin, y - u * sin - v * cos) for u in along for v in (-below, above)]
        xs, ys = zip(*corners, strict=True)
        with contextlib.suppress(ValueError, OverflowError):  # a place that is no number
            yield Word(found[0], **whole(min(xs), min(ys), max(xs), max(ys)), colour=colour)


# ---- matplotlib ------------------------------------------------------------------------------------------------------


def watch_matplotlib() -> None:
    """Every Agg renderer keeps the lines that it draws since it was last cleared, to be asked by `of_canvas`."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.patheffects import PathEffectRenderer

    clear = RendererAgg.clear

    def cleared(self) -> None:
        self.lines = []
        clear(self)

    def noted(draw_text):
        @functools.wraps(draw_text)
        def draw(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
            agg = getattr(self, "_renderer", self) if isinstance(self, PathEffectRenderer) else self
            lines = getattr(agg, "lines", None)
            if lines is not None and len(lines) < MOST:
                lines.append((x, y, s, prop, angle, ismath, gc.get_rgb(), gc.get_alpha()))
            return draw_text(self, gc, x, y, s, prop, angle, ismath, mtext)

        return draw

    RendererAgg.clear = cleared
    for kind in (RendererAgg, PathEffectRenderer):
        kind.draw_text = noted(kind.draw_text)


def of_canvas(canvas) -> Iterator[Word]:
    """The words of a figure that was drawn last on this canvas."""
    from matplotlib import text

    dpi = canvas.figure.dpi
    for x, y, s, prop, angle, ismath, rgb, alpha in getattr(canvas.renderer, "lines", ()):
        opacity = (1.0 if alpha is None else alpha) * (1.0 if alpha is not None or len(rgb) < 4 else rgb[3])
        if opacity < FAINT:
            continue
        with contextlib.suppress(Exception):  # whatever a program put there
            measure = text._get_text_metrics_with_cache  # which has just been asked this
            width, height, descent = measure(canvas.renderer, s, prop, ismath=ismath, dpi=dpi)
            said = plain(s) if ismath else s
            yield from in_line(
                said, x, y, width, height - descent, descent, angle or 0.0, hex_colour(*rgb[:3], opacity)
            )


def plain(formula: str) -> str:
    """What a formula of matplotlib's says, without what it looks like: `$\\\\alpha^{10}$` is α10."""
    from matplotlib._mathtext_data import tex2uni

    look = "math(?:default|regular|[a-z]{2,4})|text(?:bf|it|rm|tt)?|operatorname|left|right|[dt]?frac|sqrt"
    formula = re.sub(rf"\\(?:{look})(?![A-Za-z])", "", formula)
    formula = re.sub(r"\\([A-Za-z]+)[ ]?", lambda name: chr(tex2uni[name[1]]) if name[1] in tex2uni else "", formula)
    return re.sub(r"(?<!\\)[${}^_]", "", re.sub(r"\\[,;:! ]", " ", formula)).replace("\\", "")


# ---- pages of a PDF file ---------------------------------------------------------------------------------------------


class Letter(NamedTuple):
    """Boxes in points, (left, bottom, right, top): of the ink, and of the room that the letter has in its line."""

    index: int
    text: str
    ink: tuple[float, float, float, float]
    room: tuple[float, float, float, float]
    angle: float


def of_pdf_page(page, scale: float) -> Iterator[Word]:
    """The words of a page of pypdfium2's, drawn with so many px a point. TeX writes no spaces: where a word ends is
    seen by the gap. (pdfium, which would say so as well, says another thing where type is a tenth larger.)"""
    from pypdfium2 import raw

    textpage, height = page.get_textpage(), page.get_height()
    for letters in words_by_gaps(letters_of(raw, textpage)):
        colour = pdf_colour(raw, textpage, letters[0].index)
        if colour is not None:
            lefts, bottoms, rights, tops = zip(*(letter.ink for letter in letters), strict=True)
            box = (min(lefts), height - max(tops), max(rights), height - min(bottoms))
            text = "".join(letter.text for letter in letters)
            yield Word(text, **whole(*(scale * side for side in box)), colour=colour)


def letters_of(raw, textpage) -> Iterator[Letter | None]:
    """None for a space."""
    for index in range(min(textpage.count_chars(), 10 * MOST)):
        text = chr(raw.FPDFText_GetUnicode(textpage, index))
        if text.isprintable() and not text.isspace():
            boxes = textpage.get_charbox(index), textpage.get_charbox(index, loose=True)
            yield Letter(index, text, *boxes, raw.FPDFText_GetCharAngle(textpage, index))
        elif text.isspace() or not raw.FPDFText_IsGenerated(textpage, index):
            yield None


def words_by_gaps(letters: Iterable[Letter | None]) -> Iterator[list[Letter]]:
    word, space = [], False
    for letter in letters:
        if letter is None:
            space = True
            continue
        if word and not goes_on(word[-1], letter, space):
            yield word
            word = []
        word.append(letter)
        space = False
    if word:
        yield word


def goes_on(last: Letter, letter: Letter, space: bool) -> bool:
    """Whether a word goes on with a letter: no gap along their line, none across it, as for an index. Lines that are
    neither level nor upright say nothing of gaps."""
    quarters = last.angle / (math.pi / 2)
    if abs(quarters - round(quarters)) > 0.01:
        return not space
    along, across = (0, 1) if round(quarters) % 2 == 0 else (1, 0)
    high = max(box[across + 2] - box[across] for box in (last.room, letter.room))
    gaps = [
        max(a[k], b[k]) - min(a[k + 2], b[k + 2])
        for a, b, k in ((last.room, letter.room, along), (last.ink, letter.ink, across))
    ]
    return max(gaps) <= 0.13 * high


def pdf_colour(raw, textpage, index: int) -> str | None:
    """A letter's; None if nobody sees it."""
    from ctypes import byref, c_uint

    channels = [c_uint() for _ in range(4)]
    if not raw.FPDFText_GetFillColor(textpage, index, *map(byref, channels)):
        return ""
    red, green, blue, opacity = (channel.value / 255 for channel in channels)
    return hex_colour(red, green, blue, opacity) if opacity >= FAINT else None


# ---- web pages -------------------------------------------------------------------------------------------------------

# [text, left, top, right, bottom, colour, opacity] of each word, in px of the page; frames of the page's own included.
# After two frames, as a picture that is asked for at the same time: a marquee's text is in its place only then.
# Runs in a world of its own; elements may be named like properties, though.
IN_PAGE = """(async most => {
    for (const _ of "12") await new Promise(requestAnimationFrame);
    const words = [], opacities = new Map(), range = new Range();
    const get = (page, name) => Reflect.get(Document.prototype, name, page);
    const opacity = element => {
        if (!element) return 1;
        if (!opacities.has(element))
            opacities.set(element, getComputedStyle(element).opacity * opacity(element.parentElement));
        return opacities.get(element);
    };
    const add = (text, box, dx, dy, style, element) => {
        if (!box.width || !box.height || words.length >= most) return;
        const filled = element instanceof element.ownerDocument.defaultView.SVGElement;
        const colour = !filled ? style.webkitTextFillColor : style.fill == "none" ? style.stroke : style.fill;
        words.push([text, box.left + dx, box.top + dy, box.right + dx, box.bottom + dy, colour, opacity(element)]);
    };
    const collect = (page, dx, dy) => {
        const root = get(page, "documentElement");
        if (!root) return;
        const walker = Document.prototype.createTreeWalker.call(page, root, NodeFilter.SHOW_TEXT);
        for (let node; words.length < most && (node = walker.nextNode());) {
            const element = node.parentElement;
            if (!element || !/\\S/.test(node.data) || !element.getClientRects().length) continue;
            const style = getComputedStyle(element);
            if (style.visibility != "visible" || ["TEXTAREA", "SCRIPT", "STYLE"].includes(element.tagName)) continue;
            for (const word of node.data.matchAll(/\\S+/g)) {
                range.setStart(node, word.index);
                range.setEnd(node, word.index + word[0].length);
                add(word[0], range.getBoundingClientRect(), dx, dy, style, element);
            }
        }
        const all = selector => Document.prototype.querySelectorAll.call(page, selector);
        for (const field of all("input:not([type=hidden], [type=checkbox], [type=radio], [type=password]), textarea")) {
            const text = field.value || field.placeholder || "", box = field.getBoundingClientRect();
            const style = getComputedStyle(field);
            if (style.visibility != "visible") continue;
            const letters = Math.min(box.width / Math.max(1, text.length), parseFloat(style.fontSize) * 0.6);
            for (const word of text.matchAll(/\\S+/g)) {
                const left = box.left + word.index * letters, width = word[0].length * letters;
                add(word[0], { left, width, right: left + width, top: box.top, bottom: box.bottom, height: box.height },
                    dx, dy, style, field);
            }
        }
        for (const frame of all("iframe")) {
            let inside = null;
            try { inside = frame.contentDocument; } catch {}
            const box = frame.getBoundingClientRect();
            if (inside) collect(inside, dx + box.left + frame.clientLeft, dy + box.top + frame.clientTop);
        }
    };
    collect(document, scrollX, scrollY);
    return JSON.stringify(words);  // read faster than what DevTools makes of arrays
})"""


def of_page(evaluate, left: float, top: float, scale: float) -> Iterator[Word]:
    """The words of the page that a browser shows, of which a picture begins at (left, top), with `scale` px for one of
    the page's. evaluate(expression) runs script in a world of its own and gives its value."""
    for text, *box, colour, opacity in json.loads(evaluate(f"{IN_PAGE}({MOST})")):
        seen = seen_colour(colour, opacity)
        if seen is not None:
            with contextlib.suppress(TypeError, OverflowError):  # a place that is no number
                sides = (scale * (side - start) for side, start in zip(box, (left, top, left, top), strict=True))
                yield Word(text, **whole(*sides), colour=seen)


@functools.lru_cache(1000)
def seen_colour(css: str, opacity: float) -> str | None:
    """What a computed colour looks like on white paper, "" where that is not known; None if nobody sees it."""
    channels = [float(value) for value in re.findall(r"[0-9.]+", css)] if css.startswith("rgb") else []
    opacity *= channels[3] if len(channels) == 4 else 1.0
    if opacity < FAINT:
        return None
    return hex_colour(*(value / 255 for value in channels[:3]), opacity) if channels else ""
