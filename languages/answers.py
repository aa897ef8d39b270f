"""What a worker answers (`protocol.py` says in which form), and how one that takes its input as data is confined."""

from __future__ import annotations

import json
import resource
import tempfile
from collections.abc import Callable

from PIL import Image

import sandbox
from languages.browser import browsers_folder
from languages.pixels import to_rgb
from languages.protocol import (
    FACTS,
    HEADER,
    MAX_ERROR,
    MAX_FACTS,
    MAX_PAGE,
    PAGE,
    BrowserPage,
    Options,
    ProgramError,
    pack_words,
)
from languages.words import words_of

RANDOM_DEVICES = ("/dev/urandom", "/dev/random", "/dev/zero")


def confine_worker(options: Options, children: bool, sockets: tuple[int, ...] = ()) -> None:
    """Limits and sandbox for a worker that treats its input as data."""
    browser = bool(sockets)
    sandbox.set_limits(options.memory_mb << 20, resource.RLIM_INFINITY, files=4096, browser=browser)
    readable = [*sandbox.system_paths(), *RANDOM_DEVICES, *([browsers_folder(), "/proc", "/sys"] if browser else [])]
    writable = [tempfile.gettempdir(), "/dev/null", *(["/dev/shm"] if browser else [])]
    sandbox.confine(options.layers, readable, writable, children, sockets)


def answer_of(draw: Callable[[], Image.Image], options: Options, passing: tuple[type, ...] = ()) -> bytes:
    """The bytes that go back for what `draw` returns or raises, but for exceptions of the types `passing`."""
    try:
        image = to_rgb(draw(), options.max_pixels)
        pixels, words = image.tobytes(), pack_words(words_of(image))
    except BrowserPage as page:
        return page_answer(page)
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
    return HEADER.pack(image.width, image.height, len(pixels) + len(words)) + pixels + words


def page_answer(page: BrowserPage) -> bytes:
    if len(page.html) > MAX_PAGE:
        return error_answer(f"the page for the browser is longer than {MAX_PAGE} bytes")
    return HEADER.pack(0, PAGE, len(page.html)) + page.html


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
