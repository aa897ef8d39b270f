"""svg: drawn like a browser draws it, whichever of librsvg and Chromium does it, or refused with a sentence."""

import base64
import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_render import SVG as SMALL
from test_render import draws, need

import render
import sandbox
from languages import svg
from languages.protocol import ProgramError

pytestmark = pytest.mark.skipif(not sandbox.probe().safe, reason="no sandbox works on this machine")
PATIENCE = 300.0  # seconds: nothing here is about time
OPEN = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
WIDE = OPEN + 'viewBox="0 0 200 100">{}</svg>'
BACK = '<rect width="200" height="100" fill="#eef"/>'


@pytest.fixture(scope="module")
def renderer():
    need("svg")
    need("html")
    with render.Renderer(workers=1, timeout=PATIENCE, cache_mb=0) as shared:
        yield shared


def picture_of(kind: str) -> str:
    """A data: address of a red square."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


LIBRSVG = {  # what it draws as a browser does: a browser must not be needed
    "shapes": '<circle cx="50" cy="50" r="40" fill="teal"/><path d="M110 10h80v80z" stroke="red" stroke-width="4"/>',
    "gradient": '<linearGradient id="g"><stop stop-color="red"/><stop offset="1" stop-color="#00f8"/></linearGradient>'
    '<rect width="200" height="100" fill="url(#g)"/>',
    "use and clip": '<clipPath id="c"><circle cx="30" cy="30" r="30"/></clipPath><g id="a" clip-path="url(#c)"><rect '
    'width="60" height="60" fill="navy"/></g><use xlink:href="#a" x="90"/>',
    "style sheet": "<style>.a, g > rect { fill: green } #b { stroke: red; stroke-width: 9 }</style>"
    '<g><rect width="50" height="50"/></g><circle class="a" id="b" cx="120" cy="50" r="30"/>',
    "text": '<text x="10" y="50">Hello, World</text>',
    "text in a family": '<text x="10" y="50" font-family="Segoe UI, Roboto, sans-serif" font-size="24">Hello</text>',
    "text in no such family": '<text x="10" y="50" font-family="Inter" font-size="24">Hello, World</text>',
    "text in a serif": '<text x="100" y="50" text-anchor="middle" font-family="serif" font-weight="bold">Hello</text>',
    "text in code": '<text x="10" y="50" font-family="Consolas, monospace" font-size="20">x = 1</text>',
    "text of a css size": '<style>text { font: italic 30px Arial }</style><text x="10" y="50">Hello</text>',
    "text in em": '<text x="10" y="50" font-size="2em">Hello <tspan dy="1em" fill="red">you</tspan></text>',
    "text in points": '<text x="10" y="50" font-size="20pt">Hello</text>',
    "editor's own": '<g xmlns:e="urn:e" e:label="x"><e:grid/><rect width="90" height="90" style="fill:#f00"/></g>',
    "picture": f'<image width="90" height="90" href="{picture_of("png")}"/>',
    "blur": '<filter id="f"><feGaussianBlur stdDeviation="4"/></filter><circle cx="50" cy="50" r="30" '
    'filter="url(#f)"/>',
}
BROWSER = {  # what librsvg draws otherwise, or not at all
    "background of the root": '<style>svg { background: navy } rect { opacity: 0.5 }</style><circle r="50"/>',
    "variable": '<style>:root { --a: teal }</style><rect width="200" height="50" fill="var(--a)"/>',
    "new colour": '<rect width="200" height="50" fill="oklch(70% .2 200)"/>',
    "mixed colour": '<rect width="200" height="50" style="fill: color-mix(in srgb, red, blue)"/>',
    "transform-origin": '<rect width="90" height="90" fill="red" transform="rotate(45)" transform-origin="45 45"/>',
    "text on a path": '<path id="p" d="M9 90Q99 0 190 90" fill="none"/><text><textPath href="#p">On a path</textPath>'
    "</text>",
    "foreign object": '<foreignObject width="200" height="100"><p xmlns="http://www.w3.org/1999/xhtml" '
    'style="color:red;font-size:40px">HTML</p></foreignObject>',
    "text of a length": '<text x="9" y="50" textLength="180">Hello</text>',
    "letters in their places": '<text x="10 60 110" y="50">abc</text>',
    "baseline": '<text x="9" y="50" font-size="30" dominant-baseline="hanging">Hello</text>',
    "decoration": '<text x="9" y="50" font-size="30" text-decoration="underline">Hello</text>',
    "words apart": '<text x="9" y="50" word-spacing="30">a b c</text>',
    "size by name": '<text x="9" y="50" font-size="x-large">Hello</text>',
    "Chinese": '<text x="9" y="60" font-size="40">你好</text>',
    "signs": '<text x="9" y="60" font-size="40">→ ✓ ☂</text>',
    "lines": '<text x="9" y="60">one\n  two</text>',
    "fixed width alone": '<text x="9" y="60" font-family="monospace">Hello</text>',
    "gif": f'<image width="90" height="90" href="{picture_of("gif")}"/>',
    "webp": f'<image width="90" height="90" href="{picture_of("webp")}"/>',
    "path in css": "<style>path { d: path('M0 0H90V90Z') }</style><path/>",
    "nested rules": "<style>g { rect { fill: green } }</style><g><rect width='90' height='90'/></g>",
    "media": "<style>@media (min-width: 1px) { .a { fill: green } }</style><rect class='a' width='90' height='90'/>",
    "size computed": '<rect style="width: calc(50px + 50px); height: 50px" fill="red"/>',
    "clip shape": '<rect width="90" height="90" style="clip-path: circle(30px at 40px 40px)"/>',
    "size of a symbol": '<symbol id="s" viewBox="0 0 9 9" width="50" height="50"><rect width="9" height="9"/></symbol>'
    '<use href="#s"/>',
    "end of an animation": "<style>@keyframes k { to { fill: lime } } .a { animation: k 1s forwards }</style>"
    '<rect class="a" width="90" height="90"/>',
    "script": '<rect width="90" height="90"/><script>document.querySelector("rect").setAttribute("fill", "red")'
    "</script>",
}


def like_a_page(renderer, code, drawn):
    """Mean difference, of 1, to the document as a part of a page, in the size that it was drawn in."""
    style = f"position: absolute; left: 0; top: 0; width: {drawn.width}px; height: {drawn.height}px"
    inline = code.replace("<svg ", f'<svg style="{style}" ', 1)
    page = draws(renderer, f"<!DOCTYPE html>{inline}", "html")
    page = page.crop((0, 0, *drawn.size))
    return np.abs(np.asarray(drawn, float) - np.asarray(page, float)).mean() / 255


@pytest.mark.parametrize("name", [*LIBRSVG, *BROWSER])
def test_drawn_as_in_a_page(renderer, name):
    code = WIDE.format(BACK + (LIBRSVG | BROWSER)[name])
    assert svg.Scan(svg.document(code)).needs_browser == (name in BROWSER)
    drawn = draws(renderer, code, "svg")
    assert drawn.size == (448, 224)
    nothing = np.abs(np.asarray(drawn, int) - (238, 238, 255)).sum(2)
    assert (nothing > 60).mean() > 0.002, "only the background is drawn"
    assert like_a_page(renderer, code, drawn) < 0.01


def test_colours_that_only_a_browser_knows(renderer):
    """In known numbers, not by comparison with another part of the renderer."""
    wide = draws(renderer, WIDE.format('<style>svg{background:#000080}</style><rect width="50" height="50"/>'), "svg")
    assert wide.getpixel((440, 220)) == (0, 0, 128) and wide.getpixel((9, 9)) == (0, 0, 0)
    variable = '<style>:root{--a:#ff8000}</style><rect width="100" height="100" fill="var(--a)"/>'
    wide = draws(renderer, WIDE.format(variable), "svg")
    assert wide.getpixel((100, 100)) == (255, 128, 0) and wide.getpixel((300, 100)) == (255, 255, 255)


def height_of_letters(image) -> int:
    return int(np.ptp(np.nonzero(np.asarray(image.convert("L")) < 128)[0]))


@pytest.mark.parametrize("where", ["", 'font-size="16"', 'style="font-size:16px"', 'font-size="1em"'])
def test_text_without_a_size_has_16_px(renderer, where):
    letters = draws(renderer, WIDE.format(f'<text x="9" y="60" {where}>HHH</text>'), "svg")
    sized = draws(renderer, WIDE.format('<g font-size="16"><text x="9" y="60">HHH</text></g>'), "svg")
    small = draws(renderer, WIDE.format('<g font-size="12"><text x="9" y="60">HHH</text></g>'), "svg")
    assert height_of_letters(letters) == height_of_letters(sized) > height_of_letters(small) + 2
    root = draws(renderer, OPEN + 'viewBox="0 0 200 100" font-size="12"><text x="9" y="60">HHH</text></svg>', "svg")
    assert height_of_letters(root) == height_of_letters(small)


SIZES = {
    'viewBox="0 0 200 100"': (448, 224),
    'viewBox="0 0 200 100" width="30"': (448, 224),
    'viewBox="0 0 200 100" width="100%" height="100%"': (448, 224),
    'viewBox="0 0 200 100" width="50" height="100"': (224, 448),
    'viewBox="0 0 200 100" width="210mm" height="297mm"': (317, 448),
    'viewBox="0 0 200 100" width="0.4" height="0.1"': (448, 112),
    'viewBox="0 0 200 100" width="90000" height="90000"': (448, 448),
    'viewBox="0,0,200,100"': (448, 224),
    'viewBox="0 0 200 100" style="width: 50px; height: 50px"': (448, 448),
    'width="10em" height="5em"': (448, 224),
    'width="100" height="50"': (448, 224),
    'width="100"': (299, 448),
    'height="300"': (448, 448),
    'width="100%" height="100%"': (448, 224),
    "": (448, 224),
}


@pytest.mark.parametrize("words", SIZES)
def test_longer_side_is_448(renderer, words):
    image = draws(renderer, f'{OPEN}{words}><rect width="50%" height="100%" fill="#008080"/></svg>', "svg")
    assert image.size == SIZES[words]


def test_size_of_a_document_without_viewbox(renderer):
    """It is enlarged whole, by either engine."""
    for extra in ("", "<style>svg { --a: 0 }</style>"):
        code = f'{OPEN}width="100" height="50">{extra}<rect x="50" y="25" width="50" height="25" fill="#f00"/></svg>'
        image = draws(renderer, code, "svg")
        assert image.getpixel((230, 118)) == (255, 0, 0) == image.getpixel((440, 220))
        assert image.getpixel((216, 118)) == (255, 255, 255) == image.getpixel((230, 106))


@pytest.mark.parametrize(
    "start", ['<?xml version="1.0" encoding="iso-8859-1"?>', '<?xml version="1.0" encoding="UTF-16"?>\n']
)
@pytest.mark.parametrize("extra", ["", "<style>svg { --a: 0 }</style>"])
def test_a_declared_encoding_is_not_believed(renderer, start, extra):
    code = WIDE.format(extra + '<text x="9" y="60" font-size="40">café</text>')
    assert draws(renderer, start + code, "svg").tobytes() == draws(renderer, code, "svg").tobytes()


AROUND = {
    "white space before the declaration": '\n  <?xml version="1.0"?>\n{}',
    "byte order mark": "\ufeff{}",
    "a page": "<!DOCTYPE html><html><body><h1>x</h1>{}</body></html>",
    "a text": "Here it is:\n```svg\n{}\n```\nIt shows a square.",
    "comments": "<!-- <b>one</b> -->{}<!-- two -->",
    "version 1.1": '<?xml version="1.1"?>\n{}',
    "version 1.1 with an encoding": "<?xml version='1.1' encoding='latin1' standalone='no'?>{}",
}


@pytest.mark.parametrize("around", AROUND)
def test_what_stands_around_a_document(renderer, around):
    code = WIDE.format('<rect width="100" height="100" fill="teal"/>')
    assert draws(renderer, AROUND[around].format(code), "svg").tobytes() == draws(renderer, code, "svg").tobytes()


def test_without_namespace(renderer):
    code = '<svg viewBox="0 0 2 1"><rect width="1" height="1" fill="{}"/></svg>'
    for colour in ("rgb(0, 128, 0)", "color-mix(in srgb, rgb(0 128 0), rgb(0 128 0))"):
        assert draws(renderer, code.format(colour), "svg").getpixel((99, 99)) == (0, 128, 0)


WRONG = {
    "truncated": (WIDE.format("<path d='M1 1")[:-7], "line 1"),
    "unclosed": (WIDE.format("<g>")[:-6], "line 1"),
    "bare ampersand": (WIDE.format("<text>R&D</text>"), "not well-formed"),
    "unknown entity": (WIDE.format("<text>a&nbsp;b</text>"), "undefined entity"),
    "no quotes": ("<svg width=9 height=9><rect/></svg>", "not well-formed"),
    "unknown prefix": ('<svg viewBox="0 0 9 9"><use xlink:href="#a"/></svg>', "unbound prefix"),
    "no area": (OPEN + 'viewBox="0 0 0 0"><rect width="9" height="9"/></svg>', "no area"),
    "no width": (OPEN + 'width="0" height="9"><rect width="9" height="9"/></svg>', "is 0"),
    "namespace": ('<svg xmlns="http://www.w3.org/200/svg" viewBox="0 0 9 9"><rect/></svg>', "its namespace"),
    "namespace, for the browser": ('<svg xmlns="http://www.w3.org/200/svg" viewBox="0 0 http"/>', "its namespace"),
    "no namespace": ('<svg xmlns="" viewBox="0 0 9 9"><rect/></svg>', "its namespace"),
    "prefix of another": ('<s:svg xmlns:s="urn:s" viewBox="0 0 9 9"><s:rect/></s:svg>', "its namespace"),
    "no svg": ("<p>hello</p>", "no <svg>"),
    "words": ("I cannot draw this.", "no <svg>"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_document_is_refused_with_a_sentence(renderer, name):
    code, words = WRONG[name]
    error = renderer.render(code, "svg").error
    assert error and error.startswith("svg: ") and words in error and "\n" not in error, error


def test_no_document_sees_another_or_moves(renderer):
    """Those that the browser draws, too."""
    script = "<script>document.documentElement.setAttribute('fill', window.name || localStorage.x || 'lime');"
    script += "window.name = localStorage.x = 'red'</script>"
    code = WIDE.format(script + '<rect y="50" width="200" height="50"><animate attributeName="width" from="0" to="200" '
                       'dur="1s"/></rect>')  # fmt: skip
    first = draws(renderer, code, "svg")
    assert first.getpixel((400, 200)) == (0, 255, 0)
    assert draws(renderer, code, "svg").tobytes() == first.tobytes()


WITHOUT_BROWSER = """
import sys
sys.path.insert(0, sys.argv[1])
import sandbox
from languages import protocol, svg
svg.chromium_path = lambda: None
svg.confine_worker = svg.use_browser_fonts = lambda *_, **__: None
draw = svg.svg_renderer(protocol.Options(9.0, 512, 64, 1_000_000, sandbox.Layers(False, 0, False)))
answer = draw(sys.argv[2])
assert protocol.HEADER.unpack_from(answer) == (64, 64, 3 * 64 * 64) and answer[-3:] == bytes((0, 128, 0))
"""


def test_without_a_browser_librsvg_draws_what_it_can():
    picture = SMALL.format('<rect width="9" height="9" fill="rgb(0,128,0)"/><foreignObject/>')
    root = str(Path(render.__file__).parent)
    command = [render.interpreter(), "-c", WITHOUT_BROWSER, root, picture]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_lengths():
    assert svg.length("10") == svg.length(" 10px ") == 10 and svg.length("9e1pt") == pytest.approx(120)
    assert svg.length("25.4mm") == pytest.approx(96) and svg.length(".5in") == 48
    assert svg.length("100%") is svg.length("auto") is svg.length("") is svg.length("-3") is None
    with pytest.raises(ProgramError, match="not an <svg>"):
        svg.Scan("<html/>")
