"""The page of `answer.py --serve`: drop a picture, watch its program being written, correct it and draw again.

    GET  /           the page (live.html)
    POST /answer     {"picture": base64, "kind", "best_of", "refine", "again"}    the model answers
    POST /correct    the same, and "code"                                         the model corrects this program
    POST /draw       {"picture": base64, "kind", "code"}                          draws this program

What comes back is a line of JSON for each event, as it happens: {"target"}, {"writing", "number", "round"} every few
tokens, {"answers"} once they are drawn and scored, {"error"}, at last {"done"}.

Only this machine is served, and of its browser only this page: other sites could send requests here too, but not with
our Origin, nor under another name that leads here (Host). What a model says travels as JSON, and the page shows it as
text; what it draws comes as pixels from the renderer's sandbox, never as its svg. The content security policy lets
nothing else run.
"""

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

import data
import rollout
from languages import LANGUAGES
from pictures import upright
from records import Record
from report.page import content_policy, thumbnail

PAGE = Path(__file__).with_name("live.html")
MOST_BYTES = 24 << 20  # of a request: a picture of 18 MB, as base64
MOST_PIXELS = 50_000_000
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")  # Pillow would start other programs for some of the rest
MOST_ANSWERS, MOST_ROUNDS = 64, 16
SHOWN = 720  # px of a picture's longer side on the page


class Gone(Exception):
    """Nobody listens any more: the page was closed, or its Stop was pressed."""


class WatchedEngine(rollout.Engine):
    """An engine that tells what is being written, every few tokens, before it goes on."""

    watch: Callable[[list[rollout.Request]], None] | None = None

    def decode_steps(self, rows: int, groups: int, temperature: float) -> None:
        if self.watch:
            self.watch(self.slots.arranged[0])
        super().decode_steps(rows, groups, temperature)


def kinds() -> list[dict]:
    """What can be asked for: {"kind", "label"} of each."""
    every = [(domain, thing, one) for one in LANGUAGES.values() for domain, thing in one.domains.items()]
    return [{"kind": domain, "label": f"{thing}: {one.codes.get(domain, one.code)}"} for domain, thing, one in every]


def decoded(picture) -> Image.Image:
    """The picture of a request. Raises ValueError, in one sentence, for what is none."""
    try:
        content = base64.b64decode(picture, validate=True)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, which are too many")
            image.load()
            return upright(image)
    except Image.UnidentifiedImageError:
        raise ValueError(f"This is not a picture that can be read; use one of {', '.join(FORMATS)}.") from None
    except Exception as error:  # Pillow raises a dozen types on hostile bytes
        raise ValueError(f"The picture cannot be read: {error}.") from None


def whole_number(asked: dict, name: str, least: int, most: int) -> int:
    value = asked.get(name, least)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} has to be a whole number from {least} to {most}.")
    return value


def shown(record: Record, label: str) -> dict:
    """An answer as the page has it."""
    score, image = record.score, record.rendering.image
    numbers = {"visual": score.visual, "coarse": score.coarse, "mean": score.fine_mean(), "total": score.total}
    return numbers | {
        "label": label,
        "code": record.code,
        "text": record.text,
        "image": image and thumbnail(image, SHOWN),
        "error": record.rendering.error if image is None else None,
        "detail": record.detail if record.failure else "",
        "grid": score.grid,
        "fine": score.fine,
        "tokens": record.tokens,
    }


class Live:
    """What the page can ask for. answerer, sample_of: of answer.py."""

    def __init__(self, answerer, sample_of: Callable, settings):
        self.answerer, self.sample_of, self.settings = answerer, sample_of, settings
        self.one_at_a_time = threading.Lock()
        policy = answerer.policy
        policy.engine = WatchedEngine(policy)

    def page(self) -> tuple[bytes, str]:
        """The page and its content security policy."""
        page = PAGE.read_text(encoding="utf-8")
        policy = (
            content_policy(page) + "; connect-src 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'"
        )
        kind = self.sample_of(Image.new("RGB", (1, 1)), self.settings.language).domain
        start = {"model": self.settings.model, "kinds": kinds(), "kind": kind, "most": MOST_BYTES * 3 // 4 - 10_000}
        start |= {"best_of": self.settings.best_of, "refine": self.settings.refine}
        return page.replace("{{start}}", json.dumps(start).replace("<", "\\u003c")).encode(), policy

    def events(self, path: str, asked: dict, send: Callable[[dict], None]) -> None:
        """Do what is asked, and send what happens. Raises ValueError, in one sentence, for what cannot be done."""
        again = whole_number(asked, "again", 0, 1_000_000)
        seed = self.settings.seed + 100 * again
        sample = self.sample_of(decoded(asked.get("picture")), str(asked.get("kind")), seed)
        code = asked.get("code")
        if path != "/answer" and not (isinstance(code, str) and code.strip()):
            raise ValueError("There is no program to draw.")
        G = whole_number(asked, "best_of", 1, MOST_ANSWERS)
        refine = whole_number(asked, "refine", 0, MOST_ROUNDS)
        send({"target": thumbnail(sample.image, SHOWN)})
        if not self.one_at_a_time.acquire(blocking=False):
            send({"waiting": True})
            self.one_at_a_time.acquire()
        try:
            if path == "/draw":
                send({"answers": [shown(self.answerer.draw(sample, code), "drawn by you")]})
                return
            if path == "/correct":
                sample = data.as_refinement(sample, code)
            self.answer(sample, G, refine, 0.0 if G == 1 and not again else 1.0, seed, send)
        finally:
            self.one_at_a_time.release()

    def answer(self, sample, G: int, refine: int, temperature: float, seed: int, send) -> None:
        """Send the answers of each round, and before them what is being written."""
        policy, told, first = self.answerer.policy, 0, "corrected" if sample.draft else "answer"

        def watch(running: list[rollout.Request]) -> None:
            request = running[0]  # the first of those that are not done
            text = policy.decode(request.ids[: request.length].tolist()).rstrip("\ufffd")  # half a character
            _, several, number = request.group.prompt.sample_id.partition("#")  # as rounds.refine names an answer
            send({"writing": text, "number": int(number) if several else request.index, "round": told})

        policy.engine.watch = watch
        try:
            for records in self.answerer.answer(sample, G, refine, temperature, seed):
                names = [f"{first} {1 + r.index}" if G > 1 else first for r in records]
                names = [f"{name}, round {told}" if told else name for name in names]
                send({"answers": [shown(record, name) for record, name in zip(records, names, strict=True)]})
                told += 1
        finally:
            policy.engine.watch = None


class Handler(BaseHTTPRequestHandler):
    """A request to a `Server`. Raises nothing: what goes wrong is sent."""

    server_version, sys_version, timeout = "nanovinci", "", 60  # s that a silent connection may last

    def do_GET(self) -> None:
        if self.is_refused():
            return
        if self.path != "/":
            return self.refuse(404, "There is nothing here.")
        page, policy = self.server.live.page()
        self.begin(200, "text/html; charset=utf-8", {"Content-Security-Policy": policy, "Content-Length": len(page)})
        self.wfile.write(page)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MOST_BYTES:
            return self.refuse(413, "The picture is too large.")
        body = self.rfile.read(int(length))  # before any refusal, which would be lost with what was not read
        if self.is_refused():
            return
        if self.path not in ("/answer", "/correct", "/draw"):
            return self.refuse(404, "There is nothing here.")
        if self.headers.get_content_type() != "application/json":  # which other sites cannot send without asking
            return self.refuse(415, "Only JSON is read here.")
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            return self.refuse(400, "This is no JSON object.")
        self.begin(200, "application/x-ndjson", {})
        with contextlib.suppress(Gone):
            try:
                self.server.live.events(self.path, asked, self.send)
            except (ValueError, RuntimeError, OSError) as error:
                self.send({"error": str(error)})
            self.send({"done": True})

    def is_refused(self) -> bool:
        """Whether it is not for this server: under another name, or from another site's page."""
        ours = [f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")]
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in ours and (origin is None or origin in [f"http://{name}" for name in ours]):
            return False
        self.refuse(403, f"Open http://{ours[0]} on this machine.")
        return True

    def refuse(self, status: int, why: str) -> None:
        self.begin(status, "text/plain; charset=utf-8", {})
        self.wfile.write(why.encode())

    def begin(self, status: int, kind: str, headers: dict) -> None:
        self.send_response(status)
        always = {"Content-Type": kind, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        always |= {"Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin"}
        for name, value in (always | headers).items():
            self.send_header(name, str(value))
        self.end_headers()

    def send(self, event: dict) -> None:
        """An event. Raises Gone where nobody listens, which ends what was being done for it."""
        try:
            self.wfile.write(json.dumps(event).encode() + b"\n")
            self.wfile.flush()
        except OSError:
            raise Gone from None

    def log_message(self, *_) -> None:
        """Nothing: the terminal is for what goes wrong."""


class Server(ThreadingHTTPServer):
    """Serves the page to this machine. Raises OSError where the port is taken."""

    daemon_threads = True

    def __init__(self, live: Live, port: int = 0):
        self.live = live
        super().__init__(("127.0.0.1", port), Handler)


def serve(answerer, sample_of: Callable, settings) -> None:
    """Until Ctrl-C. settings: of answer.py. Raises OSError where the port is taken."""
    try:
        server = Server(Live(answerer, sample_of, settings), settings.port)
    except (OSError, OverflowError) as error:
        raise OSError(f"Port {settings.port} cannot be had ({error}); give another --port.") from None
    print(f"Open http://127.0.0.1:{server.server_port} (Ctrl-C ends it)", flush=True)
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
