"""Pages, whole in either direction; figures that a page draws; diagrams that are none."""

import numpy as np
import pytest
from test_render import draws, need

import render
import sandbox
from languages import LANGUAGES, protocol

pytestmark = pytest.mark.skipif(not sandbox.probe().safe, reason="no sandbox works on this machine")
PATIENCE = 300.0  # seconds: nothing here is about time
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(scope="module")
def renderer():
    need("html")
    with render.Renderer(workers=1, timeout=PATIENCE, cache_mb=0) as shared:
        yield shared


def draws_part(renderer, width, height, body, scale=1.0):
    """A page that another worker left to the browser: its Rendering."""
    html = f"<!DOCTYPE html><html data-drawing><body>{body}</body></html>".encode()
    worker = render.Worker("html", renderer.options, renderer.python)
    try:
        return worker.render(protocol.BrowserPage(width, height, html, scale).html.decode())
    finally:
        worker.kill()


DONE = "<script>document.documentElement.removeAttribute('data-drawing')</script>"


def test_a_wide_page_is_whole(renderer):
    wide = "<body style='margin:0'><div style='width:2000px;height:100px;background:linear-gradient(90deg,red,blue)'>"
    image = draws(renderer, f"<!DOCTYPE html>{wide}", "html")
    assert image.size == (2000, 720)
    assert image.getpixel((0, 50)) == RED and image.getpixel((1999, 50)) == BLUE
    assert image.getpixel((1999, 200)) == WHITE


def test_a_wide_page_keeps_its_window(renderer):
    """vw, media queries and what is fixed follow the 1280 px of the window."""
    page = """<!DOCTYPE html><style>body { margin: 0 } @media (min-width: 1300px) { p { background: red } }
    p { background: blue; width: 100vw; height: 100px; margin: 0 } div { width: 1500px; height: 1000px }
    b { position: fixed; right: 0; top: 200px; width: 50px; height: 50px; background: red }</style><p></p><b></b>
    <div>"""
    image = draws(renderer, page, "html")
    assert image.size == (1500, 1100)
    assert image.getpixel((1279, 50)) == BLUE and image.getpixel((1281, 50)) == WHITE
    assert image.getpixel((1279, 225)) == RED and image.getpixel((1281, 225)) == WHITE


@pytest.mark.parametrize("side", ["width", "height"])
def test_a_very_long_page_is_drawn_smaller_and_whole(renderer, side):
    across = "90deg, " if side == "width" else ""
    page = (
        f"<!DOCTYPE html><body style='margin:0'><div style='{side}:20000px;background:linear-gradient({across}red,blue)"
    )
    image = draws(renderer, page + (";height:720px'>" if side == "width" else "'>"), "html")
    assert image.width * image.height <= 4_000_000
    long, short = (image.width, image.height) if side == "width" else (image.height, image.width)
    assert long / short == pytest.approx(20000 / (720 if side == "width" else 1280), rel=0.02)
    start, end = image.getpixel((0, 0)), image.getpixel((image.width - 1, image.height - 1))
    assert np.abs(np.subtract(start, RED)).max() < 30 and np.abs(np.subtract(end, BLUE)).max() < 30


def test_a_declared_encoding_is_not_believed(renderer):
    page = "<html><head>{}</head><body><p>Café “quotes”</p></body></html>"
    plain = draws(renderer, page.format(""), "html")
    assert draws(renderer, page.format('<meta charset="gb2312">'), "html").tobytes() == plain.tobytes()


# ---- what scripts find, and that it is the same every time -----------------------------------------------------------

SAYS = """<!DOCTYPE html><html data-drawing><body>x<script>(async () => (%s) || "it is not so")().then(
    said => said === "it is not so" ? Promise.reject(said) : document.documentElement.removeAttribute("data-drawing")
).catch(error => document.documentElement.setAttribute("data-drawing-failed", error))</script></body></html>"""


@pytest.fixture(scope="module")
def worker(renderer):
    worker = render.Worker("html", renderer.options, renderer.python)
    yield worker
    worker.kill()


def finds(worker, script):
    """Whether a page's script has a true value, however long that takes; a page that waits for it is a figure's."""
    page = protocol.BrowserPage(90, 90, (SAYS % script).encode(), 1.0).html.decode()
    assert worker.is_ready() and worker.render(page).error is None


TRUE = {  # of a page's script
    "date without new": 'Date() === new Date().toString() && Date().startsWith("Wed Jan 01 2025")',
    "date of a date": "new Date(5).getTime() == 5 && new Date(2020, 1).getMonth() == 1 && Date.UTC(1970, 0) == 0",
    "class of dates": "new class extends Date { year() { return this.getFullYear(); } }().year() == 2025",
    "a date's own class": "new Date() instanceof Date && new (new Date().constructor)().getFullYear() == 2025",
    "date that a page sets": "(Date.now = () => 5) && Date.now() == 5",
    "formatted now": 'new Intl.DateTimeFormat("en").format() == "1/1/2025"',
    "formatted date": 'new Intl.DateTimeFormat("en").format(new Date(5)) == "1/1/1970"',
    "parts of now": 'new Intl.DateTimeFormat("en").formatToParts().at(-1).value == "2025"',
    "last modified": 'new Date(document.lastModified).getFullYear() == 2025 && document.lastModified[2] == "/"',
    "time origin": "new Date(performance.timeOrigin).getFullYear() == 2025",
    "temporal": "!self.Temporal || Temporal.Now.plainDateISO().year == 2025 && Temporal.Now.instant() "
    '.epochMilliseconds < Date.UTC(2026, 0) && Temporal.Now.zonedDateTimeISO("Asia/Tokyo").hour >= 21',
    "secure context": "isSecureContext && caches && navigator.clipboard",
    "random id": 'crypto.randomUUID() == "a00087fb-f747-4cb8-adfe-747d23673f27" && crypto.randomUUID() != '
    "crypto.randomUUID()",
    "random values": 'crypto.getRandomValues(new Uint8Array(3)).join() == "160,0,135"',
    "no random values": "(() => { try { crypto.getRandomValues([1]); } catch { return true; } })()",
    "digest": '(await crypto.subtle.digest("SHA-1", new Uint8Array(3))).byteLength == 20',
    "digits of words": "new Set(crypto.getRandomValues(new Uint32Array(9))).size == 9",
}


@pytest.mark.parametrize("name", TRUE)
def test_what_a_script_finds(worker, name):
    finds(worker, TRUE[name])


LEAVES = """caches.open("x").then(cache => cache.put("/a", new Response("x"))).then(async () => {
    const folder = await navigator.storage.getDirectory();
    await folder.getFileHandle("a", { create: true });
    localStorage.a = document.cookie = "a=1";
    const base = indexedDB.open("x");
    await new Promise(done => base.onsuccess = done);
    return true;
})"""
FINDS_NOTHING = """(async () => {
    const names = [...await caches.keys(), ...(await indexedDB.databases()), ...Object.keys(localStorage)];
    for await (const name of (await navigator.storage.getDirectory()).keys()) names.push(name);
    for (const worker of await navigator.serviceWorker.getRegistrations()) names.push(worker);
    return !names.length && !document.cookie;
})()"""


def test_what_a_secure_page_stores_the_next_does_not_find(worker):
    finds(worker, f"await {LEAVES}")
    finds(worker, f"await {FINDS_NOTHING}")


def test_a_page_registers_no_service_worker_and_shares_no_clipboard(worker):
    for asked in ('serviceWorker.register("worker.js")', 'clipboard.writeText("x")', "clipboard.readText()"):
        finds(worker, f"await navigator.{asked}.then(() => false, () => true)")


LINE = "display: inline-block; width: 100%; overflow: hidden; "
LATE = "<script>const start = performance.now(); while (performance.now() < start + %d); requestAnimationFrame</script>"
MOVING = {  # what moves -> the same at rest
    "svg": (
        '<svg><rect width="90" height="90"><animate attributeName="width" from="9" to="300" dur="1s" '
        'repeatCount="indefinite"/><set attributeName="fill" to="lime" begin="0.1s"/></rect></svg>',
        '<svg><rect width="90" height="90"></rect></svg>',
    ),
    "svg that turns": (
        '<svg><rect width="90" height="90"><animateTransform attributeName="transform" type="rotate" from="0" to="360" '
        'dur="1s"/><animateMotion path="M0 0H99" dur="1s"/></rect></svg>',
        '<svg><rect width="90" height="90"></rect></svg>',
    ),
    "marquee": (
        '<marquee scrollamount="90">News</marquee><p>x',
        f'<div style="{LINE} visibility: hidden">News</div><p>x',
    ),
    "marquee within one": (
        '<marquee scrollamount="90"><marquee direction="down">News</marquee></marquee><p>x',
        '<marquee style="visibility: hidden"><marquee direction="down">News</marquee></marquee><p>x',
    ),
    "marquee that alternates": (
        '<marquee behavior="alternate" scrollamount="90">News</marquee><p>x',
        '<marquee behavior="alternate" scrolldelay="99999999" truespeed>News</marquee><p>x',
    ),
}


@pytest.mark.parametrize("name", MOVING)
def test_what_moves_is_at_rest(renderer, name):
    moving, rest = MOVING[name]
    expected = draws(renderer, f"<!DOCTYPE html><body>{rest}{LATE % 0}</body>", "html").tobytes()
    for wait in (0, 60):  # ms
        assert draws(renderer, f"<!DOCTYPE html><body>{moving}{LATE % wait}</body>", "html").tobytes() == expected


# ---- what another worker leaves to the browser -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [(300, 200), (2000, 1500)])
def test_the_part_that_is_meant(renderer, size):
    square = "<div style='width:{}px;height:{}px;background:blue;box-sizing:border-box;border:3px solid red'></div>"
    image = draws_part(renderer, *size, square.format(*size) + "<p>more</p>" + DONE).image
    assert image.size == size
    for x, y in ((0, 0), (size[0] - 1, size[1] - 1)):
        assert image.getpixel((x, y)) == RED
    assert image.getpixel((5, 5)) == BLUE


def test_scale_gives_more_pixels_of_the_same_layout(renderer):
    body = "<svg width='100' height='50' style='display:block'><circle cx='50' cy='25' r='20'/></svg>" + DONE
    once, thrice = (draws_part(renderer, 100, 50, body, scale).image for scale in (1, 3))
    assert once.size == (100, 50) and thrice.size == (300, 150)
    dark = [(np.asarray(image.convert("L")) < 128).mean() for image in (once, thrice)]
    assert dark[0] == pytest.approx(dark[1], abs=0.01)
    greys = [np.isin(np.asarray(image.convert("L")), (0, 255), invert=True).mean() for image in (once, thrice)]
    assert greys[1] < greys[0] / 2, "enlarged, not drawn in more pixels"
    page = draws(renderer, LANGUAGES["html"].sample, "html")  # and nothing is left of it
    assert page.width == 1280


def test_a_forged_page_cannot_ask_for_a_huge_picture(renderer):
    for start in (
        "<!--part 99999 99999 99-->",
        "<!--part 1 99999 0-->",
        "<!--part 99999 1 9.9.9-->",
        "<!--part 0 0 1-->",
    ):
        worker = render.Worker("html", renderer.options, renderer.python)
        try:
            rendering = worker.render(start + "<h1>x</h1>")
        finally:
            worker.kill()
        assert rendering.image is None or rendering.image.width * rendering.image.height <= 4_000_000
    # nor is an answer believed that begins as one, or that says it is still being drawn
    assert renderer.render("<!--part 300 100 2.0--><h1>x</h1>", "html").image.size == (1280, 720)
    assert renderer.render("<html data-drawing><h1>x</h1></html>", "html").image.size == (1280, 720)
    draws(renderer, LANGUAGES["html"].sample, "html")


def test_a_figure_that_cannot_be_drawn_ends_at_once(renderer):
    failed = "<script>document.documentElement.setAttribute('data-drawing-failed', 'no such colour')</script>"
    assert draws_part(renderer, 90, 90, failed).error == "browser: no such colour"
    network = "<script>fetch('http://else.test/map.json').catch(error => "
    network += "document.documentElement.setAttribute('data-drawing-failed', 'x'))</script>"
    assert draws_part(renderer, 90, 90, network).error == (
        "browser: it wants http://else.test/map.json, and there is no network"
    )
    assert draws_part(renderer, 90, 90, "<p>x</p>" + DONE).error is None


def test_webgl(renderer):
    page = """<body style="margin:0"><canvas id="c" width="200" height="100"></canvas><script>
    const gl = c.getContext("webgl"); gl.clearColor(0, 0, 1, 1); gl.clear(gl.COLOR_BUFFER_BIT)</script><p>text</p>"""
    assert draws(renderer, page, "html").getpixel((100, 50)) == BLUE


@pytest.mark.parametrize(
    "when",
    [
        "new IntersectionObserver(e => e[0].isIntersecting && see()).observe(document.body)",
        "new ResizeObserver(see).observe(document.body)",
        "requestAnimationFrame(see)",
    ],
)
def test_what_a_page_does_when_it_is_first_drawn_is_seen(renderer, when):
    page = "<body style='height:600px'>x<script>const see = () => document.documentElement.style.background = 'red';"
    for _ in range(5):  # without waiting, it is not always
        assert draws(renderer, f"{page}\n{when}</script></body>", "html").getpixel((600, 600)) == RED


# ---- mermaid ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["error", "info", "info showInfo", "%% a comment\nerror", "---\ntitle: T\n---\n error \n"]
)
def test_mermaids_own_messages_are_no_diagrams(renderer, code):
    need("mermaid")
    result = renderer.render(code, "mermaid")
    assert result.image is None and "is not a diagram" in result.error
    draws(renderer, LANGUAGES["mermaid"].sample, "mermaid")


def test_mermaid_says_what_is_wrong_without_a_trace(renderer):
    need("mermaid")
    assert "No diagram type detected" in (error := renderer.render("not a diagram", "mermaid").error)
    assert "anonymous" not in error and "    at " not in error
    picture = 'flowchart LR\n A@{ img: "https://else.test/a.png", label: "x", w: 60, h: 60 } --> B'
    assert "network" in renderer.render(picture, "mermaid").error


DIAGRAM = "flowchart LR\n    A[Code] --> B{{Right?}}\n"
AROUND = {
    "a text": "Here is the diagram:\n```mermaid\nDIAGRAM```\nIt shows a choice.",
    "a text with a fence of another": "First:\n```python\nx = 1\n```\nthen:\n  ~~~ mermaid\nDIAGRAM  ~~~\n",
    "a fence without a name": "Here:\n```\nDIAGRAM\n```",
    "a fence without an end": "```mermaid\nDIAGRAM",
    "a div": '<div class="mermaid">\nDIAGRAM</div>',
    "a pre of a page": "<html><body><h1>x</h1><pre id=a class='mermaid big'>\nESCAPED\n</pre></body></html>",
}


@pytest.mark.parametrize("around", AROUND)
def test_what_stands_around_a_diagram(renderer, around):
    need("mermaid")
    code = AROUND[around].replace("DIAGRAM", DIAGRAM).replace("ESCAPED", DIAGRAM.replace(">", "&gt;"))
    assert draws(renderer, code, "mermaid").tobytes() == draws(renderer, DIAGRAM, "mermaid").tobytes()
