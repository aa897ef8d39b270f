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
