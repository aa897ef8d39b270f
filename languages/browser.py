"""One Chromium inside a browser worker (`worker.py`), driven over its DevTools pipe.

One page goes from document to document, as a fresh browser context for each would take longer than most pages. It waits
in an empty document of the address that all share; a job writes its html there. After the picture a new empty document
takes its place, which ends every script of the old one, and the address's storage is emptied.

The pipe carries JSON that ends with a zero byte: commands out, answers and events in
(https://chromedevtools.github.io/devtools-protocol).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import io
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import sandbox
from languages.protocol import PICTURES

NO_SUCH_SESSION = -32001  # a code of DevTools
PAGE_WIDTH, PAGE_HEIGHT = 1280, 720  # px
MAX_SIDE, LONGEST_PAGE = 8192, 32768  # px of a picture, and of a page: what is beyond is cut off
MOST_UNSCALED = 64_000_000  # px of a picture that is not drawn smaller
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--mute-audio", "--hide-scrollbars"]  # the sandbox is ours
FLAGS += ["--force-color-profile=srgb", "--disable-dev-shm-usage", "--block-new-web-contents"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-quic", "--disable-background-networking"]
FLAGS += [
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-sync",
    "--disable-extensions",
    "--disable-breakpad",
]
FLAGS += ["--disable-component-update", "--disable-default-apps", "--disable-field-trial-config"]
FLAGS += ["--disable-back-forward-cache", "--disable-hang-monitor", "--disable-ipc-flooding-protection"]
FLAGS += ["--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--password-store=basic"]
FLAGS += ["--disable-backgrounding-occluded-windows", "--disable-prompt-on-repost", "--allow-pre-commit-input"]
FLAGS += ["--disable-client-side-phishing-detection", "--metrics-recording-only", "--enable-automation"]
# Translate and the like look at pages; frames stay in their page's process, where SAME_EVERY_TIME reaches them
FLAGS += [
    "--disable-features=Translate,MediaRouter,OptimizationHints,PaintHolding,HttpsUpgrades,IsolateSandboxedIframes"
]
# A mouse: what (hover: hover) in a style sheet asks for
FLAGS += ["--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"]

# A clock that starts at a fixed date with the page, and seeded randomness: the same page gives the same picture.
SAME_EVERY_TIME = """(() => {
    const RealDate = Date, start = 1735732800000, frame = self.requestAnimationFrame;
    const passed = Performance.prototype.now.bind(performance);
    let zero = 0, state = 1;
    const now = () => start + Math.floor(passed() - zero);
    Date = new Proxy(RealDate, {  // no class: it is also called without `new`
        construct: (real, given, called) => Reflect.construct(real, given.length ? given : [now()], called),
        apply: () => new RealDate(now()).toString(),
    });
    RealDate.now = now, RealDate.prototype.constructor = Date;
    const getter = (type, name, get) => Object.defineProperty(type.prototype, name, { get, configurable: true });
    const Format = Intl.DateTimeFormat, { formatToParts } = Format.prototype;
    const format = Object.getOwnPropertyDescriptor(Format.prototype, "format").get;
    getter(Format, "format", function () {
        const formatted = format.call(this);
        return (date = now()) => formatted(date);
    });
    Format.prototype.formatToParts = function (date = now()) { return formatToParts.call(this, date); };
    if (self.Temporal) {
        const here = () => Temporal.Now.timeZoneId();
        const zoned = (zone = here()) => Temporal.Instant.fromEpochMilliseconds(now()).toZonedDateTimeISO(zone);
        Object.assign(Temporal.Now, {
            instant: () => zoned().toInstant(),
            zonedDateTimeISO: zoned,
            plainDateTimeISO: zone => zoned(zone).toPlainDateTime(),
            plainDateISO: zone => zoned(zone).toPlainDate(),
            plainTimeISO: zone => zoned(zone).toPlainTime(),
        });
    }
    getter(Document, "lastModified", () => {
        const date = new RealDate(now()), two = number => String(number).padStart(2, "0");
        const day = [date.getMonth() + 1, date.getDate(), date.getFullYear()].map(two).join("/");
        return day + " " + [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
    });
    getter(Performance, "timeOrigin", () => start);
    Performance.prototype.now = () => passed() - zero;
    self.requestAnimationFrame = callback => frame(time => callback(time - zero));
    const random = Math.random = () => {
        state = (state + 0x6D2B79F5) | 0;
        let t = Math.imul(state ^ (state >>> 15), 1 | state);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const { getRandomValues } = Crypto.prototype;
    const seeded = bytes => bytes.forEach((_, i) => { bytes[i] = 256 * random(); });
    Crypto.prototype.getRandomValues = function (array) {
        getRandomValues.call(this, array);  // which refuses what is no array of whole numbers, or too long
        seeded(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
        return array;
    };
    if (Crypto.prototype.randomUUID) Crypto.prototype.randomUUID = () => {
        const bytes = new Uint8Array(16);
        seeded(bytes);
        bytes[6] = bytes[6] & 15 | 64, bytes[8] = bytes[8] & 63 | 128;  // a random one, of version 4
        const digits = Array.from(bytes, byte => byte.toString(16).padStart(2, "0")).join("");
        return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
    };
    self.close = () => {};  // nor would it close a page that a person opened
    self.beginAnew = () => { [zero, state] = [passed(), 1]; };
    if (self === top) {  // what the page before may have left behind
        name = "";
        sessionStorage.clear();
        if (history.state !== null) history.replaceState(null, "");
        [outerWidth, outerHeight] = [innerWidth, innerHeight];  // a young browser does not know them yet
    }
})()"""
# Animations of a style sheet at their end (endless ones at their start, as Playwright has it), those of svg left out as
# librsvg leaves them out, and a marquee before its first step: one that a clock does not move begins anew as a copy.
AT_REST = """page => {
    const all = selector => [...Document.prototype.querySelectorAll.call(page, selector)];
    for (const moving of all("svg :is(animate, animateMotion, animateTransform, set)")) moving.remove();
    const slow = marquee => ["scrolldelay", "truespeed"].forEach(name => marquee.setAttribute(name, 1e9));
    all("marquee").forEach(slow);
    for (const marquee of all("marquee:not(marquee marquee)")) marquee.replaceWith(marquee.cloneNode(true));
    for (const animation of Document.prototype.getAnimations.call(page)) {
        if (animation.effect?.getComputedTiming().endTime === Infinity) animation.cancel();
        else try { animation.finish(); } catch {}
    }
}"""
# Loaded, fonts there, focus where it belongs, all at rest, no blinking caret.
# Runs in a world of its own, where what the page redefined is not seen; elements may be named like properties, though.
SIZE_WHEN_LOADED = """(async () => {
    const get = name => Reflect.get(Document.prototype, name, document);
    const loaded = done => EventTarget.prototype.addEventListener.call(window, "load", done);
    if (get("readyState") != "complete") await new Promise(loaded);
    await get("fonts").ready;
    const root = get("documentElement"), frame = () => new Promise(requestAnimationFrame);
    const failed = () => root?.getAttribute("data-drawing-failed");
    while (FIGURE && root?.hasAttribute("data-drawing") && !failed()) await frame();
    if (FIGURE && root?.hasAttribute("data-drawing")) throw failed();
    const ended = image => new Promise(done => ["load", "error"].forEach(
        event => EventTarget.prototype.addEventListener.call(image, event, done)));
    if (PICTURES) await Promise.all([...get("images")].filter(i => !i.complete && i.loading != "lazy").map(ended));
    if (WAITS || PICTURES) await frame().then(frame);
    if (root?.querySelector("[autofocus]")) await frame();
    (AT_REST)(document);
    const hidden = new CSSStyleSheet();
    hidden.replaceSync("* { caret-color: transparent !important }");
    Reflect.set(Document.prototype, "adoptedStyleSheets", [...get("adoptedStyleSheets"), hidden], document);
    return [Math.max(innerWidth, root?.scrollWidth ?? 0), Math.max(innerHeight, root?.scrollHeight ?? 0)];
})()""".replace("AT_REST", AT_REST)

# Fetched and decoded, and kept for as long as the page is shown
HAVE_PICTURES = """Promise.all((globalThis.kept = ADDRESSES.map(address => {
    const picture = new Image();
    picture.src = address;
    return picture;
})).map(picture => picture.decode().catch(() => {}))).then(() => 0)"""


class BrowserError(Exception):
    """A command failed, a script threw: the page is at fault, and the text says how."""


class BrowserLost(Exception):
    """The browser ended, the page crashed, or it does not answer."""


FAILURES = (BrowserError, BrowserLost)


def chromium_path() -> str | None:
    """The browser to start: the system's, else the newest that Playwright downloaded."""
    named = ("chromium-headless-shell", "chromium", "google-chrome")
    if found := next(filter(None, map(shutil.which, named)), None):
        return found
    programs = "headless_shell", "chrome-headless-shell", "chrome"
    downloads = (path for name in programs for path in Path(browsers_folder()).glob(f"chromium*-*/*/{name}"))
    return str(max(downloads, key=lambda path: int(re.search(r"-(\d+)/", str(path))[1]), default="")) or None


def browsers_folder() -> str:
    """Where Playwright keeps the browsers it downloaded."""
    return os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or str(Path.home() / ".cache/ms-playwright")


def browser_files() -> dict[str, str]:
    """What a worker has to read that looks for the browser (`Kind.files`)."""
    return {"PLAYWRIGHT_BROWSERS_PATH": browsers_folder()}


def memory_below() -> int:
    """Bytes that the processes below this one hold for themselves alone."""
    pages = 0
    for pid in sandbox.descendants(os.getpid()):
        with contextlib.suppress(OSError, ValueError):  # ended meanwhile
            _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
            pages += int(resident) - int(shared)
    return pages * resource.getpagesize()


class DevTools:
    """Commands to a Chromium that is started here, and its answers. `on` maps an event's name to what is done then."""

    def __init__(self, program: str):
        self.on: dict[str, Callable[[dict], None]] = {}
        self.session, self.count, self.received, self.answers = None, 0, bytearray(), {}
        commands, self.commands = os.pipe()
        self.events, events = os.pipe()
        sandbox.widen_pipe(self.events)
        inherited = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (commands, events)]
        command = [program, "--remote-debugging-pipe", f"--user-data-dir={tempfile.mkdtemp()}", *FLAGS]
        subprocess.Popen(  # it takes commands on descriptor 3 and answers on 4
            command, preexec_fn=lambda: [os.dup2(fd, 3 + i) for i, fd in enumerate(inherited)], pass_fds=(3, 4)
        )
        for fd in (commands, events, *inherited):
            os.close(fd)

    def post(self, method: str, **parameters) -> int:
        """Send a command without waiting; returns its number. It goes to the page's session, once there is one."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        rest = memoryview(json.dumps(message).encode() + b"\0")
        try:
            while rest:
                rest = rest[os.write(self.commands, rest) :]
        except BrokenPipeError:
            raise BrowserLost("the browser ended") from None
        return self.count

    def send(self, method: str, clock: sandbox.Clock | None = None, **parameters) -> dict:
        """The answer to a command, within the clock's limit. Raises BrowserError, BrowserLost."""
        return self.answer(self.ask(method, **parameters), clock)

    def ask(self, method: str, **parameters) -> int:
        """Send a command whose answer is taken later; returns its number, by which `answer` has to take it."""
        number = self.post(method, **parameters)
        self.answers[number] = None  # none that nobody waits for is kept
        return number

    def answer(self, number: int, clock: sandbox.Clock | None = None) -> dict:
        while self.answers[number] is None:
            self.receive(clock)
        answer = self.answers.pop(number)
        if answer.get("error", {}).get("code") == NO_SUCH_SESSION:
            raise BrowserLost("the page is closed")
        if "error" in answer:
            raise BrowserError(answer["error"]["message"])
        return answer["result"]

    def receive(self, clock: sandbox.Clock | None) -> None:
        """Wait for what comes next; keep answers, act on events."""
        try:
            if clock:
                clock.wait(self.events)
        except TimeoutError:
            raise BrowserLost("the browser does not answer") from None
        part = os.read(self.events, 1 << 20)
        if not part:
            raise BrowserLost("the browser ended")
        *messages, rest = part.split(b"\0")
        for message in messages:
            message = json.loads(bytes(self.received) + message)
            self.received.clear()
            if message.get("id") in self.answers:
                self.answers[message["id"]] = message
            elif act := self.on.get(message.get("method")):
                act(message["params"])
        self.received += rest


class Browser:
    """A Chromium with one page. memory_bytes: how much more it may hold after a job than at the start. files: pictures
    that lie beside the page, {name: bytes}."""

    # Served by us; no such host exists. Below localhost a page is a secure context, as a file that one opens nearly
    # is; and unlike under https, addresses of http reach us, so that what a page wants can be said.
    ORIGIN = "http://page.localhost"
    ADDRESS = f"{ORIGIN}/folder/"

    def __init__(self, program: str, memory_bytes: int, files: dict[str, bytes] | None = None):
        """Raises BrowserLost if it does not start."""
        self.pictures = {}  # address -> what is answered
        for name, content in (files or {}).items():
            kind = [{"name": "content-type", "value": f"image/{PICTURES[Path(name).suffix.lower()]}"}]
            answer = {"responseHeaders": kind, "body": base64.b64encode(content).decode()}
            self.pictures[self.ADDRESS + name] = answer
        self.devtools = devtools = DevTools(program)
        context = devtools.send("Target.createBrowserContext")  # keeps nothing on the disk
        devtools.send("Browser.setDownloadBehavior", behavior="deny", **context)
        target = devtools.send("Target.createTarget", url="about:blank", **context)["targetId"]
        devtools.session = devtools.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        devtools.on = {
            "Fetch.requestPaused": self._serve,
            "Page.frameNavigated": self._navigated,
            "Page.loadEventFired": self._loaded,
            "Page.javascriptDialogOpening": self._close_dialog,
            "Inspector.targetCrashed": self._crashed,
        }
        self.frame = devtools.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        self.scale = self.shown_scale = 0.0  # of the screen, of the last screenshot: pixels for a px of the page
        self.set_scale(1)
        devtools.send("Emulation.setFocusEmulationEnabled", enabled=True)
        devtools.send("Page.addScriptToEvaluateOnNewDocument", source=SAME_EVERY_TIME)
        devtools.send("Fetch.enable", patterns=[{"urlPattern": "*"}])
        for domain in ("Page", "Inspector"):
            devtools.send(f"{domain}.enable")
        self.empties, self.arrived, self.shown, self.refused = 0, None, None, ""
        self.world, self.world_of = 0, None  # where `evaluate` runs, and the document that it is in
        self.leave(patience=30)
        devtools.send("Input.dispatchMouseEvent", type="mouseMoved", x=-9, y=-9)  # the mouse hovers over nothing
        self.most_memory = memory_below() + memory_bytes

    def _serve(self, request: dict) -> None:
        """The page itself gets an empty document when we ask for one, and its pictures the files beside it; nothing
        else is answered."""
        number, kind = request["requestId"], request["resourceType"]
        picture = self.pictures.get(request["request"]["url"].partition("?")[0]) if kind == "Image" else None
        if picture:
            self.devtools.post("Fetch.fulfillRequest", requestId=number, responseCode=200, **picture)
        elif kind != "Document":
            self.refused = self.refused or request["request"]["url"]
            self.devtools.post("Fetch.failRequest", requestId=number, errorReason="BlockedByClient")
        elif self.empties and request["frameId"] == self.frame:
            self.empties = 0
            html = [{"name": "content-type", "value": "text/html; charset=utf-8"}]
            self.devtools.post("Fetch.fulfillRequest", requestId=number, responseCode=200, responseHeaders=html)
        else:  # "no content": the page stays where it is
            self.devtools.post("Fetch.fulfillRequest", requestId=number, responseCode=204)

    def _navigated(self, event: dict) -> None:
        if event["frame"]["id"] == self.frame:
            self.arrived = event["frame"]["loaderId"]

    def _loaded(self, _: dict) -> None:
        self.shown = self.arrived

    def _close_dialog(self, dialog: dict) -> None:
        self.devtools.post("Page.handleJavaScriptDialog", accept=dialog["type"] == "beforeunload")

    def _crashed(self, _: dict) -> None:
        raise BrowserLost("the page crashed (out of memory?)")

    def open(self, html: str) -> None:
        """Write a page into the empty document that waits for it."""
        self.refused = ""  # the first address that it asks for in vain
        self.shows = [address for address in self.pictures if address.removeprefix(self.ADDRESS) in html]
        if self.shows:  # a page that is written into another does not wait for what has to be fetched
            self.evaluate(HAVE_PICTURES.replace("ADDRESSES", json.dumps(self.shows)))
        self.waits = "Observer" in html or "requestAnimationFrame" in html  # for the first frame that is drawn
        self.run("beginAnew()")
        self.devtools.send("Page.setDocumentContent", frameId=self.frame, html=html)

    def leave(self, patience: float = 2.0) -> None:
        """Make room for the next page. Where a script still runs and will not stop for so many seconds that the browser
        has had, end this worker."""
        clock, send = sandbox.Clock(os.getpid(), patience), self.devtools.send
        try:
            self.empties = 1
            loader = send("Page.navigate", clock, url=self.ADDRESS).get("loaderId", "none: it failed")
            while self.arrived != loader:
                self.devtools.receive(clock)
            send("Network.clearBrowserCookies", clock)  # those for the whole domain are not the origin's
            send("Storage.clearDataForOrigin", clock, origin=self.ORIGIN, storageTypes="all")
            while self.shown != loader:
                self.devtools.receive(clock)
            send("Page.resetNavigationHistory", clock)
        except FAILURES:
            self.end()

    def is_bloated(self) -> bool:
        """Whether it holds garbage that would slow the next page down."""
        return memory_below() > self.most_memory

    def end(self) -> None:
        """End this worker; a job that was not answered gets another."""
        sandbox.kill_below(os.getpid())
        os._exit(1)

    def size(self, figure: bool = False) -> tuple[int, int]:
        """Width and height of the page in px, when it has loaded; a figure's, when it says that it is drawn."""
        facts = {"WAITS": self.waits, "FIGURE": figure, "PICTURES": bool(self.shows)}
        script = re.sub("WAITS|FIGURE|PICTURES", lambda name: str(facts[name[0]]).lower(), SIZE_WHEN_LOADED)
        width, height = self.evaluate(script)
        return int(width), int(height)

    def set_scale(self, scale: float) -> None:
        """How many pixels of the screen make a px of the pages from here on."""
        if scale == self.scale:
            return
        self.scale = scale
        screen = {"screenWidth": PAGE_WIDTH, "screenHeight": PAGE_HEIGHT, "deviceScaleFactor": scale, "mobile": False}
        self.devtools.send("Emulation.setDeviceMetricsOverride", width=PAGE_WIDTH, height=PAGE_HEIGHT, **screen)

    def evaluate(self, expression: str):
        """The value of a script that runs in a world of its own in the page, which all of a document's share: to make
        one takes longer than most scripts. Raises BrowserError if it throws."""
        if self.world_of != self.arrived:
            world = self.devtools.send("Page.createIsolatedWorld", frameId=self.frame)
            self.world, self.world_of = world["executionContextId"], self.arrived
        return self.run(expression, contextId=self.world)

    def run(self, expression: str, **where):
        """The value of a script among the page's own. Raises BrowserError if it throws."""
        how = {"awaitPromise": True, "returnByValue": True, **where}
        answer = self.devtools.send("Runtime.evaluate", expression=expression, **how)
        if wrong := answer.get("exceptionDetails"):
            thrown = wrong.get("exception", {})
            raise BrowserError(thrown.get("description") or str(thrown.get("value", wrong["text"])))
        return answer["result"].get("value")

    def screenshot(
        self, width: int, height: int, left: int = 0, top: int = 0, meanwhile: Callable[[], None] = lambda: None
    ) -> Image.Image:
        """A part of the page. One that is larger than a picture may be is drawn smaller. meanwhile: what is done while
        the browser draws."""
        width, height = (min(max(1, side), LONGEST_PAGE) for side in (width, height))
        scale = min(1.0, MAX_SIDE / max(width, height), (PAGE_WIDTH * MAX_SIDE / (width * height)) ** 0.5)
        how = {"format": "png", "optimizeForSpeed": True}
        outside = left + width > PAGE_WIDTH or top + height > PAGE_HEIGHT
        how["captureBeyondViewport"] = outside  # that lays the page out twice again
        clip = {"x": left, "y": top, "width": width, "height": height, "scale": scale}
        picture = self.devtools.ask("Page.captureScreenshot", clip=clip, **how)
        self.shown_scale = scale * self.scale
        meanwhile()
        answer = self.devtools.answer(picture)
        return Image.open(io.BytesIO(base64.b64decode(answer["data"])))

    def unscaled(self, width: int, height: int) -> Image.Image:
        """The page in its own pixels, drawn in parts. What is beyond MOST_UNSCALED of them is cut off below."""
        width = min(width, MAX_SIDE)
        height = max(1, min(height, LONGEST_PAGE, MOST_UNSCALED // width))
        step = max(1, PAGE_WIDTH * MAX_SIDE // width)
        if height <= step:
            return self.screenshot(width, height)
        whole = Image.new("RGB", (width, height))
        for top in range(0, height, step):
            whole.paste(self.screenshot(width, min(step, height - top), 0, top), (0, top))
        return whole
