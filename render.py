"""Code + language -> picture, fast, in a sandbox. Knows nothing of models.

    python render.py chart.py page.html -o pictures    # one PNG each; the language follows the suffix
    python render.py --doctor                          # what works on this machine, what to install

In Python:

    with Renderer() as renderer:
        rendering = renderer.render("<svg ...", "svg")      # or submit(...), which gives a Future
        rendering = renderer.render("<svg ...", "svg", target.size)      # drawn onto the canvas of its target

One supervisor thread per slot takes jobs from one queue. It owns one warm worker (`languages/worker.py`) per language,
started when first needed. A job's limit is on the time that it has had, not on what it waited for a core that others
had (`sandbox.Clock`); a job that goes beyond is killed, and so is the worker's whole process tree when it breaks.
Nothing that comes from a program is parsed, decoded or run in this process: workers answer with raw pixels, or where
not a language but a kind with `facts` is asked for (`protocol.Kind`), with what is in a picture.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image

import languages
import sandbox
from languages import KINDS, LANGUAGES, REQUIREMENTS, SUFFIXES, protocol
from languages.protocol import HEADER, REQUEST, BrowserPage, Options, ToolMissing, Word

WORKER = Path(languages.__file__).parent / "worker.py"
MAX_CODE = 4 << 20  # characters of a program
TOO_LONG = "timeout: the program ran longer than {:g} s"


@dataclass
class Rendering:
    """image: RGB, alpha composited on white; None if there is an `error`. seconds: how long the job took, without
    queueing, by the clock on the wall: on a busy machine that may be more than the `timeout`. words: what the picture
    shows in writing, as far as its language's worker knows; a hostile program can say what it likes."""

    image: Image.Image | None
    error: str | None
    seconds: float
    facts: bytes | None = None  # JSON, from a kind of worker with `facts`
    words: tuple[Word, ...] = ()
    words_are_read: bool = False  # off the picture, perhaps not all of them


def interpreter() -> str:
    """The Python that programs run in: $NANOVINCI_RENDER_PYTHON, else that of .venv/render, which `make` builds from
    requirements-render.txt, else this one."""
    built = [Path(folder, "render/bin/python") for folder in (sys.prefix, Path(__file__).parent / ".venv")]
    found = next((str(path) for path in built if path.is_file()), sys.executable)
    return os.environ.get("NANOVINCI_RENDER_PYTHON") or found


@functools.cache
def folders_of(python: str) -> tuple[str, ...]:
    """What an interpreter reads. Raises RuntimeError where it cannot draw."""
    ask = "import sys, PIL; print(sys.prefix, sys.base_prefix, *(p for p in sys.path if '-packages' in p), sep='\\n')"
    try:
        answer = subprocess.run(
            [python, "-c", ask], capture_output=True, text=True, env=sandbox.clean_environment("/tmp")
        )
    except OSError as error:
        raise RuntimeError(f"{python}, which generated programs are to run in, does not start: {error}") from None
    if answer.returncode:
        install = f"{python} -m pip install -r {REQUIREMENTS}"
        raise RuntimeError(f"Generated programs cannot be drawn by {python}, which lacks Pillow: {install}")
    return tuple(answer.stdout.split("\n"))


class Worker:
    """One sandboxed worker process, as its supervisor sees it."""

    START_SECONDS, TIDY_SECONDS, DYING_SECONDS = 60.0, 5.0, 1.0  # that it may have had (sandbox.Clock)
    ENDED = "the renderer's process ended (out of memory, or a crash in a drawing library)"

    def __init__(self, name: str, options: Options, python: str):
        """Start one of the kind of this name and wait until it is ready. Raises ToolMissing where that is hopeless,
        OSError where it is not."""
        self.options, self.kind, self.jobs = options, KINDS[name], 0
        self.scratch = None
        if not options.layers.bwrap:
            self.scratch = tempfile.TemporaryDirectory(prefix="nanovinci-", ignore_cleanup_errors=True)
        inside = self.scratch.name if self.scratch else "/tmp"
        files, prefix = self.kind.files(), []
        if options.layers.bwrap:
            ours = [str(WORKER.parent), sandbox.__file__, *files.values()]
            ours += options.files.values() if self.kind.browser else ()
            prefix = sandbox.bwrap_command([*sandbox.system_paths(folders_of(python)), *ours])
        self.process = subprocess.Popen(
            [*prefix, python, str(WORKER), "--worker", name, json.dumps(asdict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=sandbox.clean_environment(inside) | files,
            start_new_session=True,
        )
        sandbox.widen_pipe(self.process.stdout.fileno())
        try:
            _, final, payload = self.receive(self.clock(self.START_SECONDS))
        except (OSError, TimeoutError) as error:
            self.kill()
            raise OSError(f"the {name} worker does not start: {error or 'it takes too long'}") from None
        if payload:
            self.kill()
            raise (ToolMissing if final else OSError)(payload.decode(errors="replace"))
        if self.process.poll() is not None:  # bwrap ended before its child asked to die with it: that child reads on
            self.kill()
            raise OSError(self.ENDED)
        self.own = sandbox.descendants(self.process.pid) if self.kind.alone else []  # what belongs to no job

    def clock(self, limit: float) -> sandbox.Clock:
        return sandbox.Clock(self.process.pid, limit)

    def receive(self, clock: sandbox.Clock) -> tuple[int, int, bytes]:
        """One answer (width, height, payload), checked: the worker is not trusted. Raises OSError or TimeoutError."""
        pipe = self.process.stdout.fileno()
        header = protocol.read_bytes(pipe, HEADER.size, clock)
        if len(header) < HEADER.size:
            raise OSError(self.ENDED)
        width, height, size = HEADER.unpack(header)
        if any((width, height, size)) and not protocol.is_sound(width, height, size, self.options.max_pixels):
            raise OSError("the renderer's process answered nonsense")
        payload = protocol.read_bytes(pipe, size, clock)
        if len(payload) < size:
            raise OSError(self.ENDED)
        return width, height, payload

    def is_ready(self) -> bool:
        """Whether it may take a job: alive, not too old (browsers grow), done with what the last one left behind."""
        with contextlib.suppress(OSError, TimeoutError):
            return self.jobs == 0 or self.jobs < 2000 and not any(self.receive(self.clock(self.TIDY_SECONDS)))
        return False

    def render(self, code: str, canvas: tuple[int, int] | None = None) -> Rendering:
        """Run one job. Raises OSError or TimeoutError when the worker is lost, which must then be killed; BrowserPage
        where a browser has to finish the picture."""
        request = code.encode()
        self.process.stdin.write(REQUEST.pack(len(request), *(canvas or (0, 0))) + request)
        self.process.stdin.flush()
        self.jobs += 1
        if self.kind.prepares and any(self.receive(self.clock(self.START_SECONDS))):
            raise OSError("the renderer's process answered nonsense")
        started, late, clock = time.monotonic(), False, self.clock(self.options.timeout)
        try:
            clock.wait(self.process.stdout.fileno())
        except TimeoutError:
            if not self.kind.alone:
                raise
            late = True
            sandbox.kill_below(self.process.pid, self.own)
            clock.limit += self.DYING_SECONDS
        try:
            width, height, payload = self.receive(clock)
        except OSError:
            if late:
                raise TimeoutError from None
            raise
        seconds = time.monotonic() - started
        if late:
            return Rendering(None, TOO_LONG.format(self.options.timeout), seconds)
        if not width and height == protocol.PAGE:
            raise BrowserPage.of(payload)
        if not width and height == protocol.FACTS:
            if not self.kind.facts:
                raise OSError("the renderer's process answered nonsense")
            return Rendering(None, None, seconds, payload)
        if not width:
            return Rendering(None, protocol.printable(payload), seconds)
        pixels = 3 * width * height
        image = Image.frombytes("RGB", (width, height), payload[:pixels])
        return Rendering(image, None, seconds, words=protocol.unpack_words(payload[pixels:]))

    def kill(self) -> None:
        sandbox.kill_tree(self.process)
        self.process.stdout.close()
        with contextlib.suppress(OSError):  # what could not be written to it
            self.process.stdin.close()
        if self.scratch:
            sandbox.remove_folder(self.scratch.name)
            self.scratch.cleanup()


def within(max_pixels: int, width: int, height: int) -> tuple[int, int]:
    """(width, height), scaled down to at most so many pixels."""
    scale = min(1.0, (max_pixels / (width * height)) ** 0.5)
    width = min(max(1, int(width * scale)), max_pixels)
    return width, min(max(1, int(height * scale)), max_pixels // width)


def kind_of(code: str, language: str) -> str:
    """The kind of worker for a program, which may ask for a kind in place of a language."""
    one = LANGUAGES.get(language)
    return one.kind_of(code) if one and one.kind_of else language


class Renderer(contextlib.AbstractContextManager):
    """Renders programs in parallel. As a context manager it closes itself: `close` kills every worker.

    workers: jobs at a time, default one per CPU. timeout: seconds that one program may have, CPU time and sleep, not
    waits for a core (thirty times as many by the clock on the wall, at the very most). memory_mb: MiB a program may
    use. svg_side: px of the longer side of an svg that is drawn onto no canvas; other languages come at their natural
    size, scaled down to max_pixels.
    allow_unsafe: run without a sandbox where the machine allows none; else that raises RuntimeError.
    cache_mb: MiB of pictures kept, so that equal programs are drawn once; `hits` counts them. python: the interpreter
    that programs run in, `interpreter()` if not given. files: name -> path of the pictures that web pages find
    beside them, as a benchmark's own; read only, and no other file.
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout: float = 10.0,
        memory_mb: int = 2048,
        svg_side: int = 448,
        max_pixels: int = 4_000_000,
        allow_unsafe: bool = False,
        cache_mb: int = 256,
        python: str | None = None,
        files: dict[str, str] | None = None,
    ):
        named = python or interpreter()
        self.python = os.path.abspath(shutil.which(named) or named)  # a worker lives in another folder
        folders_of(self.python)
        layers = sandbox.probe()
        if not layers.safe and not allow_unsafe:
            raise RuntimeError(
                "No sandbox works here (neither bubblewrap nor Landlock, or no seccomp), so generated programs could "
                "do all that you can; install bubblewrap, or accept that risk with --allow-unsafe-rendering."
            )
        if not layers.safe:
            print("render.py: NO SANDBOX: generated programs run with all your rights.", file=sys.stderr)
        elif not layers.bwrap:
            print("render.py: bubblewrap does not work here; Landlock and seccomp alone confine.", file=sys.stderr)
        self.options = Options(timeout, memory_mb, svg_side, max_pixels, layers, files or {})
        self.missing: dict[str, str] = {}  # language -> what to install
        self.jobs: queue.SimpleQueue = queue.SimpleQueue()
        self.known: OrderedDict[tuple, Future] = OrderedDict()  # by language, code, canvas; least recently used first
        self.lock, self.cache_bytes, self.kept_bytes, self.hits = threading.Lock(), cache_mb << 20, 0, 0
        self.closed = False
        count = workers or os.cpu_count() or 1
        self.threads = [threading.Thread(target=self._supervise, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def submit(self, code: str, language: str, canvas: tuple[int, int] | None = None) -> Future:
        """A Future of Rendering. It never raises for a bad program: the Rendering carries the error. Equal programs
        may share a Future.

        canvas: (width, height) in px that an svg is drawn onto, its ratio kept, in the middle of white: those of the
        picture that it is to be compared with. Other languages take no notice of it."""
        future: Future = Future()
        error = None
        if language not in languages.CAN_BE_ASKED:
            error = f"unknown language {language!r}; one of {', '.join(LANGUAGES)} is possible"
        elif not code.strip():
            error = "the program is empty"
        elif len(code) > MAX_CODE:
            error = f"the program is longer than {MAX_CODE} characters"
        elif code.encode(errors="ignore").decode() != code:
            error = "the program is not valid Unicode text"
        if language == BrowserPage.LANGUAGE and code.startswith(BrowserPage.BEGINS):  # as only a worker may say it
            code = "\n" + code
        if error:
            future.set_result(Rendering(None, error, 0.0))
            return future
        canvas = within(self.options.max_pixels, *canvas) if canvas and KINDS[language].canvas else None
        job = language, code, canvas
        with self.lock:
            if self.closed:
                raise RuntimeError("This Renderer is closed; make a new one.")
            if job in self.known:
                self.hits += 1
                self.known.move_to_end(job)
                return self.known[job]
            if self.cache_bytes:
                self.known[job] = future
            self.jobs.put((future, *job))
        return future

    def render(self, code: str, language: str, canvas: tuple[int, int] | None = None) -> Rendering:
        """Render one program and wait for it."""
        return self.submit(code, language, canvas).result()

    def _supervise(self) -> None:
        """A slot: its own worker per language, one job at a time."""
        workers: dict[str, Worker] = {}
        while (job := self.jobs.get()) is not None:
            future, language, code, canvas = job
            if future.set_running_or_notify_cancel():
                try:
                    rendering = self._run(workers, code, language, canvas)
                except Exception as error:  # no job may be lost, nor this thread with all that wait for it
                    rendering = Rendering(None, f"the renderer failed: {type(error).__name__}: {error}", 0.0)
                future.set_result(rendering)
                self._keep(rendering)
        for worker in workers.values():
            worker.kill()

    def _keep(self, rendering: Rendering) -> None:
        """Count what is kept; forget the least recently used beyond `cache_bytes`, never one that is being drawn."""
        pixels = lambda image: 3 * image.width * image.height if image else 0  # noqa: E731
        size = lambda result: 500 + pixels(result.image) + len(result.facts or b"") + 300 * len(result.words)  # noqa: E731
        with self.lock:
            self.kept_bytes += size(rendering)
            while self.kept_bytes > self.cache_bytes:
                oldest = next((key for key, future in self.known.items() if future.done()), None)
                if oldest is None:
                    break
                self.kept_bytes -= size(self.known.pop(oldest).result())

    def _run(self, workers: dict[str, Worker], code: str, language: str, canvas=None, again: bool = True) -> Rendering:
        """A worker that is lost in the middle may have been killed from outside: then the job gets a second one."""
        if language in self.missing:
            return Rendering(None, self.missing[language], 0.0)
        kind = kind_of(code, language)
        if kind in workers and not workers[kind].is_ready():
            workers.pop(kind).kill()
        started = time.monotonic()
        try:
            if kind not in workers:
                workers[kind] = Worker(kind, self.options, self.python)
                started = time.monotonic()
            return workers[kind].render(code, canvas)
        except BrowserPage as page:
            if not KINDS[kind].browser:
                return self._run(workers, page.html.decode(errors="replace"), page.LANGUAGE)
            error, again = "the renderer's process answered nonsense", False
        except ToolMissing as missing:
            self.missing[language] = error = str(missing)
        except TimeoutError:
            error, again = TOO_LONG.format(self.options.timeout), False
        except (OSError, ValueError) as lost:
            error = str(lost)
        if kind in workers:
            workers.pop(kind).kill()
        if again and language not in self.missing:
            return self._run(workers, code, language, canvas, again=False)
        return Rendering(None, error, time.monotonic() - started)

    def close(self) -> None:
        """Drop waiting jobs (their futures are cancelled), let running ones end, kill every worker."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self.known.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                self.jobs.get_nowait()[0].cancel()
        for _ in self.threads:
            self.jobs.put(None)
        for thread in self.threads:
            thread.join()

    def __exit__(self, *_) -> None:
        self.close()


# ---- command line ----------------------------------------------------------------------------------------------------


def doctor(renderer: Renderer) -> bool:
    """Print what works here, by doing it. Returns whether every language does."""
    layers = renderer.options.layers
    holds = {"bwrap": layers.bwrap, f"landlock (ABI {layers.landlock})": layers.landlock, "seccomp": layers.seccomp}
    print("sandbox   " + ", ".join(f"{name}: {'holds' if works else 'NOT HERE'}" for name, works in holds.items()))
    print(f"programs  run in {renderer.python}")
    for language in LANGUAGES.values():
        for tool, what in language.tools(renderer.python) if language.tools else ():
            print(f"{tool:9} {what}")
    every = True
    for language in LANGUAGES.values():
        renderer.render(language.sample, language.name)  # warm
        result = renderer.render(language.sample + "\n", language.name)  # not from the cache
        every &= result.error is None
        size = result.image and f"{result.image.width} x {result.image.height} px in {1000 * result.seconds:.0f} ms"
        print(f"{language.name:9} {f'works, {size}' if size else result.error}")
        for name in language.for_metrics:
            error = renderer.render(language.sample, name, (8, 6)).error
            print(f"          {name}, for metrics: {error or 'works'}")
    return every


@dataclass
class Config:
    """Draw programs as PNG files, in a sandbox; the suffix of a file names its language."""

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Programs to draw."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """A .png file for one program, else a folder; default: FILE.png beside each program."""
    doctor: bool = False
    """Say what works on this machine and what to install."""
    timeout: float = 10.0
    """Seconds that one program may have: its CPU time and sleep, not what it waits for a core that others have."""
    workers: int | None = None
    """Programs at a time; default: one per CPU."""
    svg_side: int = 448
    """Longer side of an svg's picture, px."""
    python: str | None = None
    """The interpreter that Python programs run in, with its packages; default: .venv/render, which `make` builds."""
    allow_unsafe_rendering: bool = False
    """Run programs without a sandbox if none works here: they can then do anything you can."""


def read_program(path: Path) -> str:
    """A program's text: UTF-8, else what its first bytes or lines declare. Raises ValueError where neither fits."""
    content = path.read_bytes()
    declared = re.findall(rb"(?:coding[:=]|encoding=|charset=)\s*[\"']?([\w-]+)|\[([\w-]+)\]\{inputenc", content[:4000])
    names = [(one or other).decode() for one, other in declared]
    two_bytes = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    for encoding in ("utf-8-sig", *(["utf-16"] if two_bytes else names)):
        encoding = {"ansinew": "cp1252", "applemac": "mac_roman"}.get(encoding, encoding)
        with contextlib.suppress(UnicodeDecodeError, LookupError):
            return content.decode(encoding)
    raise ValueError("the file is not text in UTF-8, nor in an encoding that it declares")


def targets(files: tuple[Path, ...], output: Path | None) -> list[Path]:
    """A picture's path for each program, no two the same: `chart.png`, `chart.py.png` where another has that name."""
    stems = [path.name[: len(path.name) - len(languages.suffix_of(path))] for path in files]
    plain = [(output or path.parent) / f"{stem}.png" for path, stem in zip(files, stems, strict=True)]
    chosen: list[Path] = []
    for path, target in zip(files, plain, strict=True):
        first = target if plain.count(target) == 1 else target.with_name(f"{path.name}.png")
        others = (target.with_name(f"{path.name}-{count}.png") for count in itertools.count(2))
        chosen.append(next(name for name in itertools.chain([first], others) if name not in chosen))
    return chosen


def draw_files(renderer: Renderer, files: tuple[Path, ...], output: Path | None) -> bool:
    """Draw each file; returns whether all succeeded. Errors go to stderr, a line each, and stop no other file."""
    to_one_file = output is not None and output.suffix.lower() == ".png"
    if to_one_file and len(files) > 1:
        raise ValueError("Several programs cannot become one .png file; give -o a folder.")
    jobs: list[tuple[Path, Path, Future]] = []
    for path, target in zip(files, [output] if to_one_file else targets(files, output), strict=True):
        try:
            if not (suffix := languages.suffix_of(path)):
                raise ValueError(f"the suffix does not name a language; {' '.join(SUFFIXES)} do")
            jobs.append((path, target, renderer.submit(read_program(path), SUFFIXES[suffix])))
        except (OSError, ValueError) as error:
            print(f"{path}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
    for path, target, job in jobs:
        rendering = job.result()
        if rendering.image is None:
            print(f"{path}: {rendering.error}", file=sys.stderr)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        rendering.image.save(target)
        print(f"{target}  {rendering.image.width} x {rendering.image.height}  {rendering.seconds:.2f} s")
    return len(jobs) == len(files) and all(job.result().image for *_, job in jobs)


def main(config: Config) -> None:
    """Exit status 1 if anything failed."""
    if not config.files and not config.doctor:
        sys.exit("render.py: name the programs to draw, or say --doctor; --help tells more.")
    try:
        where = {"svg_side": config.svg_side, "python": config.python, "allow_unsafe": config.allow_unsafe_rendering}
        with Renderer(1 if config.doctor else config.workers, config.timeout, **where) as renderer:
            succeeded = doctor(renderer) if config.doctor else draw_files(renderer, config.files, config.output)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"render.py: {error}")
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    main(tyro.cli(Config))
