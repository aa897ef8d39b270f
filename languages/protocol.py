"""What a worker and its caller say to one another, and how either survives the other.

Request on stdin: `REQUEST`, then the program. Answer on stdout: `HEADER`, then raw RGB pixels or the text of an error.
When the worker is ready for a request, the first one too, it says so by a `HEADER` of zeros; those kinds that PREPARE
say so once more before they answer, when all is there that programs of this sort need: their time begins then.

Nobody in a worker looks at the clock: the caller does, and ends a program that runs in a process of its own (ALONE) by
killing that process, others with the whole worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

import sandbox
from languages import ProgramError
from languages.browser import browsers_folder
from languages.pixels import to_rgb

RANDOM_DEVICES = ("/dev/urandom", "/dev/random", "/dev/zero")
MAX_ERROR, MAX_PAGE, MAX_FACTS = 2000, 32 << 20, 1 << 20  # characters of an error text, bytes of a page, of facts
# width, height, bytes that follow: RGB pixels, or if width is 0 an error text, or what height says: a page, or facts
HEADER, PAGE, FACTS = struct.Struct("<III"), 2, 3
REQUEST = struct.Struct("<QII")  # bytes of the program, width and height of the canvas to draw on, 0 x 0: none

PREPARE, ALONE = ("latex",), ("python", "tables", "molecule", "figure facts", "latex")  # kinds of workers


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


class BrowserPage(Exception):
    """Not a picture yet: an html page, whose part of `width` x `height` px behind the margin a browser has to draw, in
    `scale` times as many pixels; 0 x 0 px is what its element "drawing" measures. The page says so itself, in a comment
    at its start."""

    MARGIN = 8  # px, what a browser gives a page's body
    PART = re.compile(r"<!--part ([0-9]{1,5}) ([0-9]{1,5}) ([0-9.]{1,9})-->")

    def __init__(self, width: int, height: int, html: bytes, scale: float = 1.0):
        self.html = f"<!--part {min(max(0, width), 99999)} {min(max(0, height), 99999)} {scale:.4f}-->".encode() + html

    def answer(self) -> bytes:
        if len(self.html) > MAX_PAGE:
            return error_answer(f"the page for the browser is longer than {MAX_PAGE} bytes")
        return HEADER.pack(0, PAGE, len(self.html)) + self.html

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


def is_sound(width: int, height: int, size: int, max_pixels: int) -> bool:
    """Whether a HEADER may be true: of a picture, neither empty nor too large, of an error's text, or of a page."""
    if not width:
        return 0 < size <= {PAGE: MAX_PAGE, FACTS: MAX_FACTS}.get(height, 8 * MAX_ERROR)
    return 0 < width * height <= max_pixels and size == 3 * width * height


def remove_folder(path: str) -> None:
    """Delete a folder, however deep, and whatever a program forbade in it: what is below moves up beside it first."""
    count, pending = 0, [path]
    while pending:
        folder = pending.pop()
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
            for entry in list(os.scandir(folder)):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                count += 1
                os.chmod(entry.path, 0o700)
                os.rename(entry.path, f"{path}-{count}")
                pending.append(f"{path}-{count}")
            os.rmdir(folder)


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


def confine_worker(options: Options, children: bool, sockets: tuple[int, ...] = ()) -> None:
    """Limits and sandbox for a worker that treats its input as data."""
    browser = bool(sockets)
    sandbox.set_limits(options.memory_mb << 20, resource.RLIM_INFINITY, files=4096, browser=browser)
    readable = [*sandbox.system_paths(), *RANDOM_DEVICES, *([browsers_folder(), "/proc", "/sys"] if browser else [])]
    writable = [tempfile.gettempdir(), "/dev/null", *(["/dev/shm"] if browser else [])]
    sandbox.confine(options.layers, readable, writable, children, sockets)


# ---- answers ---------------------------------------------------------------------------------------------------------


def answer_of(draw: Callable[[], Image.Image], options: Options, passing: tuple[type, ...] = ()) -> bytes:
    """The bytes that go back for what `draw` returns or raises, but for exceptions of the types `passing`."""
    try:
        image = to_rgb(draw(), options.max_pixels)
        pixels = image.tobytes()
    except BrowserPage as page:
        return page.answer()
    except ProgramError as error:
        return error_answer(str(error))
    except MemoryError:
        return error_answer("MemoryError: the picture needs more memory than a program may have")
    except passing:
        raise
    except Exception as error:  # untrusted input meets large libraries here
        return error_answer(f"{type(error).__name__}: {error}")
    if 0 in image.size:
        return error_answer(f"the picture is empty: {image.width} x {image.height} px")
    return HEADER.pack(image.width, image.height, len(pixels)) + pixels


def facts_answer(draw: Callable, facts: Callable, passing: tuple[type, ...] = ()) -> bytes:
    """The bytes that go back for what `facts` returns after `draw`, as JSON, or for what either raises."""
    try:
        draw()
        payload = json.dumps(facts()).encode()
    except BrowserPage:
        return error_answer("the figure is drawn by plotly, which has no facts here")
    except ProgramError as error:
        return error_answer(str(error))
    except passing:
        raise
    except Exception as error:  # untrusted input meets large libraries here
        return error_answer(f"{type(error).__name__}: {error}")
    if len(payload) > MAX_FACTS:
        return error_answer(f"the facts are longer than {MAX_FACTS} bytes")
    return HEADER.pack(0, FACTS, len(payload)) + payload


def error_answer(text: str, final: bool = False) -> bytes:
    """final: the worker cannot do its kind of job at all, now or later."""
    text = text if len(text) <= MAX_ERROR else text[: MAX_ERROR // 2] + " [...] " + text[-MAX_ERROR // 2 :]
    payload = (text or "failed").encode(errors="replace")
    return HEADER.pack(0, int(final), len(payload)) + payload


def printable(text: bytes) -> str:
    """The text of an error as a caller may show it: it came from a program, and must not steer a terminal."""
    shown = text.decode(errors="replace")[: MAX_ERROR + 7]
    return "".join(c if c.isprintable() or c == "\n" else " " for c in shown).strip() or "failed"
