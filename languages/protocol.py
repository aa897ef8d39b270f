"""What a worker and its caller say to one another: the part that the trainer's side runs, which decodes no picture.

Request on stdin: `REQUEST`, then the program. Answer on stdout: `HEADER`, then raw RGB pixels and what the picture says
(`Word`), or the text of an error.
When the worker is ready for a request, the first one too, it says so by a `HEADER` of zeros; a kind that `prepares`
says so once more before it answers, when all is there that programs of this sort need: their time begins then.

Nobody in a worker looks at the clock: the caller does, and ends a program that runs `alone`, in a process of its own,
by killing that process, others with the whole worker.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import sandbox

MAX_ERROR, MAX_PAGE, MAX_FACTS = 2000, 32 << 20, 1 << 20  # characters of an error text, bytes of a page, of facts
MAX_WORDS = 1 << 18  # bytes of what a picture says
# width, height, bytes that follow: RGB pixels and words, or if width is 0 an error text, or what height says
HEADER, PAGE, FACTS = struct.Struct("<III"), 2, 3
REQUEST = struct.Struct("<QII")  # bytes of the program, width and height of the canvas to draw on, 0 x 0: none
PICTURES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".gif": "gif", ".webp": "webp"}  # suffix -> image/...


@dataclass
class Options:
    """What a worker must know, sent as JSON on its command line. timeout in seconds, memory in MiB. files: pictures
    that web pages may show, name -> path."""

    timeout: float
    memory_mb: int
    svg_side: int
    max_pixels: int
    layers: sandbox.Layers
    files: dict[str, str] = field(default_factory=dict)


class ProgramError(Exception):
    """The program is at fault; the text goes back to the caller."""


class ProgramTimeout(ProgramError):
    """It was killed, as it ran too long: there is no use in another way."""


class ToolMissing(Exception):
    """Something is not installed; the text says what."""


@dataclass(frozen=True)
class Kind:
    """A kind of worker (`worker.py`).

    make: Options -> a function from a program to an answer, called in the worker as it starts. The function
    may have `prepare`, for what all programs of a sort need, and `tidy`, for after an answer: no program's time counts.
    """

    make: Callable
    alone: bool = False  # each program in a process of its own, which alone is killed when it runs too long
    prepares: bool = False  # it has `prepare`
    browser: bool = False  # it holds the browser, which shows the pictures beside a page
    facts: bool = False  # it answers with what is in a picture, as JSON
    canvas: bool = False  # it draws in any size; others have a size of their own
    files: Callable[[], dict[str, str]] = dict  # environment variable -> the path that it tells, for the worker to read


class BrowserPage(Exception):
    """Not a picture yet: an html page, whose part of `width` x `height` px behind the margin a browser has to draw, in
    `scale` times as many pixels; 0 x 0 px is what its element "drawing" measures. The page says so itself, in a comment
    at its start."""

    LANGUAGE = "html"  # whose worker draws it
    MARGIN = 8  # px, what a browser gives a page's body
    BEGINS = "<!--part"
    PART = re.compile(BEGINS + r" ([0-9]{1,5}) ([0-9]{1,5}) ([0-9.]{1,9})-->")

    def __init__(self, width: int, height: int, html: bytes, scale: float = 1.0):
        sides = (min(max(0, side), 99999) for side in (width, height))
        self.html = "{} {} {} {:.4f}-->".format(self.BEGINS, *sides, scale).encode() + html

    @classmethod
    def of(cls, html: bytes) -> BrowserPage:
        """What another process answered, its part included."""
        page = cls.__new__(cls)
        page.html = html
        return page

    @staticmethod
    def part(html: str) -> tuple[int, int, float] | None:
        """width, height, scale of the part that a page says is meant; None where all of it is."""
        try:
            width, height, scale = BrowserPage.PART.match(html).groups()
            return int(width), int(height), float(scale)
        except (AttributeError, ValueError):
            return None


class Word(NamedTuple):
    """A word that a picture shows: its letters, the box it was drawn in, px from the picture's left and top, and its
    colour, "rrggbb" or "" where that is not known. In the order in which they were drawn."""

    text: str
    left: int
    top: int
    right: int
    bottom: int
    colour: str = ""


WORD_LINE = re.compile(r"(-?\d{1,6}) (-?\d{1,6}) (-?\d{1,6}) (-?\d{1,6}) ([0-9a-f]{6}|) (\S{1,200})")


def pack_words(words: Iterable[Word]) -> bytes:
    """A line each; what is beyond MAX_WORDS is cut off."""
    lines = "".join(f"{w.left} {w.top} {w.right} {w.bottom} {w.colour} {w.text}\n" for w in words)
    return lines.encode(errors="replace")[:MAX_WORDS]


def unpack_words(payload: bytes) -> tuple[Word, ...]:
    """What a worker says that a picture shows, without the lines that say nothing."""
    found = filter(None, map(WORD_LINE.fullmatch, payload.decode(errors="replace").split("\n")))
    return tuple(Word(match[6], *map(int, match.group(1, 2, 3, 4)), match[5]) for match in found)


def is_sound(width: int, height: int, size: int, max_pixels: int) -> bool:
    """Whether a HEADER may be true: of a picture, neither empty nor too large, of an error's text, or of a page."""
    if not width:
        return 0 < size <= {PAGE: MAX_PAGE, FACTS: MAX_FACTS}.get(height, 8 * MAX_ERROR)
    return 0 < width * height <= max_pixels and 0 <= size - 3 * width * height <= MAX_WORDS


def read_bytes(fd: int, size: int, clock: sandbox.Clock | None = None) -> bytes:
    """Up to `size` bytes, fewer at the end of the stream. Raises TimeoutError at the clock's limit."""
    parts = []
    while size > 0:
        if clock:
            clock.wait(fd)
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def printable(text: bytes) -> str:
    """The text of an error as a caller may show it: it came from a program, and must not steer a terminal."""
    shown = text.decode(errors="replace")[: MAX_ERROR + 7]
    return "".join(c if c.isprintable() or c == "\n" else " " for c in shown).strip() or "failed"
