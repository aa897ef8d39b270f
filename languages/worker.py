"""The life of a worker: what runs on the other side of the sandbox. `render.py` starts and commands it.

    python languages/worker.py --worker KIND SETTINGS     # never typed by hand

A worker gets ready once (imports, fonts, browser), then answers one program after the other, as `protocol.py` says.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parent.parent)  # not this folder, whose files are named like parts of the library
import sandbox  # noqa: E402
from languages import KINDS, REQUIREMENTS  # noqa: E402
from languages.answers import error_answer  # noqa: E402
from languages.protocol import HEADER, REQUEST, Options, ProgramError, ToolMissing  # noqa: E402


def unfenced(code: str) -> str:
    """What is within the fence, where a program was left in one."""
    fence = re.match(r"\s*(```|~~~)[^\n]*\n(.*?)(?:\n\1|$)", code, re.DOTALL)
    return fence[2] if fence else code


def work(kind: str, settings: str) -> None:
    """A worker's life: get ready, then answer one request after the other until the caller is gone."""
    sandbox.die_with_parent()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # short of memory, the kernel takes us, not the trainer
    options = Options(**json.loads(settings))
    options.layers = sandbox.Layers(**options.layers)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0), os.dup2(nothing, 1)  # what libraries print must not get into the answers
    try:
        render = KINDS[kind].make(options)
    except ImportError as error:
        install = f"{sys.executable} -m pip install -r {REQUIREMENTS.name}"
        ready = error_answer(f"the Python package {error.name} is missing: {install}", final=True)
    except (ToolMissing, OSError) as error:
        ready = error_answer(str(error), final=isinstance(error, ToolMissing))
    else:
        ready, tidy = HEADER.pack(0, 0, 0), getattr(render, "tidy", lambda: None)
    while True:  # "ready" is said before each request, so that nobody's time is spent on tidying up after another
        answers.write(ready)
        answers.flush()
        if not (request := requests.read(REQUEST.size)):
            break
        size, *canvas = REQUEST.unpack(request)
        code = unfenced(requests.read(size).decode("utf-8-sig"))
        if KINDS[kind].prepares:
            render.prepare(code)
            answers.write(HEADER.pack(0, 0, 0))
            answers.flush()
        try:
            answer = render(code, tuple(canvas)) if any(canvas) else render(code)
        except ProgramError as error:
            answer = error_answer(str(error))
        answers.write(answer)
        answers.flush()
        tidy()


if __name__ == "__main__":
    if sys.argv[1:2] != ["--worker"] or len(sys.argv) != 4:
        sys.exit("worker.py: this is the worker of render.py; run `python render.py FILE` instead.")
    work(*sys.argv[2:])
