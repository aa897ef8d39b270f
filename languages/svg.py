"""Vector graphics: by librsvg inside the worker process, which is fast, or by Chromium, which knows all of svg.

librsvg draws what it is known to draw like a browser: elements, attributes and style from the lists below. A document
with anything else becomes a page for the browser, as does text that asks for more than one font has.

A document is drawn in its own ratio, or onto a canvas: into a viewport of that size, as its preserveAspectRatio says,
which is kept and in the middle where it says nothing. `cairosvg` draws for the numbers of the benchmarks that use it.
"""

from __future__ import annotations

import base64
import io
import os
import re
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from xml.parsers import expat

from PIL import Image

from languages import WORD, Language
from languages.answers import answer_of, confine_worker
from languages.browser import AT_REST, browser_files, chromium_path
from languages.pixels import rasterize_svg
from languages.protocol import MAX_PAGE, BrowserPage, Kind, Options, ProgramError, ToolMissing
from languages.svg_words import UNITS, of_svg
from languages.words import with_words

CAIROSVG = "cairosvg"  # svg once more, by the library that UniSVG, SVG-Bench and the paper's release draw it with


def names(text: str) -> set[str]:
    return set(text.split())


SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ELEMENTS = names(
    "svg g defs symbol use path rect circle ellipse line polyline polygon linearGradient radialGradient stop clipPath "
    "mask pattern marker title desc metadata text tspan style image a filter feBlend feColorMatrix feComposite "
    "feDropShadow feFlood feGaussianBlur feMerge feMergeNode feOffset "
    "animate animateColor animateMotion animateTransform set mpath"  # of which only the start is shown
)
STYLE = names(
    "fill fill-opacity fill-rule stroke stroke-width stroke-opacity stroke-linecap stroke-linejoin stroke-miterlimit "
    "stroke-dasharray stroke-dashoffset color opacity stop-color stop-opacity clip-path clip-rule mask filter marker "
    "marker-start marker-mid marker-end display visibility font font-family font-size font-weight font-style "
    "text-anchor letter-spacing paint-order vector-effect mix-blend-mode isolation shape-rendering text-rendering "
    "color-rendering color-interpolation color-interpolation-filters flood-color flood-opacity pointer-events cursor "
    "enable-background overflow line-height text-align"
)
ATTRIBUTES = STYLE | names(
    "id class style lang role tabindex focusable version baseProfile contentStyleType contentScriptType target type "
    "x y width height rx ry cx cy r x1 y1 x2 y2 fx fy d points viewBox preserveAspectRatio transform offset href dx dy "
    "gradientTransform gradientUnits spreadMethod patternTransform patternUnits patternContentUnits clipPathUnits "
    "maskUnits maskContentUnits markerWidth markerHeight markerUnits refX refY orient filterUnits primitiveUnits in "
    "in2 result stdDeviation mode operator k1 k2 k3 k4 values"
)
TIMING = names("animate animateColor animateMotion animateTransform set mpath")  # no script, nothing moves
FUNCTIONS = names("url rgb rgba hsl hsla matrix translate scale rotate skewX skewY")
RULE = re.compile(r"[\w\s.#,*>-]+\{([^{}@]*)\}")  # one of plain selectors, as librsvg has them
SPECIAL = re.compile(  # units, keywords and selectors that mean other things in a browser, or nothing in librsvg
    r"[0-9.](?:rem|ex|ch|v[wh]|vmin|vmax|q)\b|!important|\b(?:larger|smaller|\w+-(?:small|large)|small|medium|large)\b"
    r"|\b(?:unset|revert|initial|linearRGB|Canvas\w*|\w*Text|AccentColor|Field|Highlight|Mark|Button\w+)\b|\\|^\s*-",
    re.I,
)
PLAIN_TEXT = re.compile("[\t\n -~\u00a1-\u024f\u0370-\u052f\u2013\u2014\u2018\u2019\u201c\u201d\u2022\u2026\u20ac]*")
DPI = {(512, 512): 100}  # of cairosvg: SVG-Bench's

ATTRIBUTE = re.compile(rb"""\s+([^\s=/>]+)\s*=\s*(?:"[^"]*"|'[^']*')""")
START = re.compile(rb"<[^\s/>]+(?:%s)*" % ATTRIBUTE.pattern)  # of an element, up to its end

# The families that a browser takes, in place of fontconfig's guess at the nearest
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<dir>/usr/share/fonts</dir><dir>/usr/local/share/fonts</dir><cachedir>/var/cache/fontconfig</cachedir>
{aliases}
<match><edit name="family" mode="append_last"><string>Liberation Serif</string></edit></match>
<match><edit name="family" mode="append_last"><string>DejaVu Sans</string></edit></match>
</fontconfig>"""
FAMILIES = {
    "Liberation Sans": ("Arial", "Helvetica", "sans-serif"),
    "Liberation Serif": ("Times New Roman", "Times", "serif"),
    "Liberation Mono": ("Courier New", "Courier"),
    "DejaVu Sans Mono": ("monospace",),
    "DejaVu Sans": ("system-ui", "sans"),
}

# Drawn as the browser opens a file of it, but in the size that is wanted and with every animation as in a page
PAGE = """<!DOCTYPE html><html data-drawing><style>body { margin: %(margin)dpx }
iframe { display: block; border: 0; width: %(width)dpx; height: %(height)dpx }</style><body><script>
const root = document.documentElement, frame = document.createElement("iframe");
const bytes = Uint8Array.from(atob("%(svg)s"), character => character.charCodeAt());
frame.onload = async () => {
    const inside = frame.contentDocument, svg = inside.documentElement, wrong = inside.querySelector("parsererror div");
    if (wrong || svg.localName != "svg")
        return root.setAttribute("data-drawing-failed", "svg: " + (wrong?.textContent ?? "no <svg> element"));
    if (!svg.hasAttribute("viewBox")) svg.setAttribute("viewBox", "%(box)s");
    svg.setAttribute("width", %(width)d);
    svg.setAttribute("height", %(height)d);
    const fixed = { width: "%(width)dpx", height: "%(height)dpx", margin: 0, display: "block", position: "static" };
    for (const name of ["max-width", "max-height"]) fixed[name] = "none";
    for (const name of ["min-width", "min-height"]) fixed[name] = 0;
    for (const name in fixed) svg.style.setProperty(name, fixed[name], "important");
    await inside.fonts.ready;
    (%(at_rest)s)(inside);
    root.removeAttribute("data-drawing");
};
frame.src = URL.createObjectURL(new Blob([bytes], { type: "image/svg+xml" }));
document.body.append(frame);
</script></html>"""


class Scan:
    """What a document is made of. needs_browser: it holds something that librsvg would draw otherwise. size: its width
    and height in px, not rounded, as a browser has it. root_at: the byte that its root begins at. ProgramError where it
    is not well-formed, or has no size."""

    def __init__(self, svg: str):
        self.needs_browser = self.keeps_spaces = self.box = False
        self.size, self.root_at = (0.0, 0.0), 0
        self.open: list[str] = []
        self.sheet: list[str] = []
        self.text: list[str] = []
        self.sizes = self.monospace = False  # whether a font has an absolute size, whether a family is that one alone
        parser = expat.ParserCreate("utf-8", " ")  # whatever encoding it declares
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self.start, self.end
        parser.CharacterDataHandler = self.data
        self.parser = parser
        try:
            parser.Parse(svg.encode(), True)
        except expat.ExpatError as error:
            raise ProgramError(f"svg: {error}") from None
        finally:
            del self.parser  # which holds this object
        self.rules("".join(self.sheet))
        words = "".join(self.text)
        self.needs_browser |= not PLAIN_TEXT.fullmatch(words) or self.monospace and not self.sizes
        self.needs_browser |= self.keeps_spaces and bool(words)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        space, _, name = name.rpartition(" ")
        if not self.open:
            self.root(space, name, attributes)
        elif space not in (SVG, ""):  # an editor's own, which no renderer looks at
            name = f"{space} {name}"
        self.open.append(name)
        if " " in name:
            return
        self.needs_browser |= name not in ELEMENTS
        if name in TIMING:
            return
        for attribute, value in attributes.items():
            space, _, attribute = attribute.rpartition(" ")
            if space == XLINK or not space:
                self.attribute(name, attribute, value)
            elif attribute == "space":
                self.keeps_spaces |= value == "preserve"

    def attribute(self, element: str, name: str, value: str) -> None:
        if name == "style":
            self.declarations(value, at_root=len(self.open) == 1)
        elif name.startswith(("data-", "aria-")):
            pass
        elif (element, name) in (("symbol", "width"), ("symbol", "height")):
            self.needs_browser = True
        elif (element, name) == ("style", "type"):
            self.needs_browser |= value != "text/css"
        elif name not in ATTRIBUTES:
            self.needs_browser |= name not in ("title", "show", "actuate", "arcrole")  # of XLink
        elif name == "href":
            outside = value.strip().startswith(("http:", "https:", "//"))
            picture = value.strip().startswith(("#", "data:image/png", "data:image/jpeg", "data:image/jpg"))
            self.needs_browser |= element == "image" and (outside or value.startswith("data:") and not picture)
        elif name in ("x", "y", "dx", "dy") and element in ("text", "tspan"):  # of each letter
            self.needs_browser |= len(value.replace(",", " ").split()) > 1
        elif name in STYLE:
            self.declaration(name, value)
        elif name.lower().endswith("transform"):
            self.needs_browser |= len(self.open) == 1

    def rules(self, sheet: str) -> None:
        """The text of all <style> elements."""
        sheet = re.sub(r"/\*.*?\*/", "", sheet, flags=re.S)
        for declarations in RULE.findall(sheet):
            self.declarations(declarations)
        self.needs_browser |= bool(RULE.sub("", sheet).strip())

    def declarations(self, text: str, at_root: bool = False) -> None:
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        for name, _, value in (part.partition(":") for part in text.split(";") if part.strip()):
            if not (at_root and name.strip() in ("width", "height")):
                name, value = name.strip().lower(), value.strip()
                self.needs_browser |= name not in STYLE and not name.startswith("-inkscape")
                if name in ("font-size", "letter-spacing"):  # a browser ignores one without a unit, outside attributes
                    self.needs_browser |= bool(re.fullmatch(r"[0-9.]*[1-9][0-9.]*", value))
                self.declaration(name, value)

    def declaration(self, name: str, value: str) -> None:
        functions = re.findall(r"([\w-]+)\(", value)
        value = re.sub(r"url\([^)]*\)", "", value) if functions else value
        self.needs_browser |= bool(SPECIAL.search(value)) or any(name not in FUNCTIONS for name in functions)
        if name in ("font-size", "font"):
            absolute = re.search(r"[0-9](?:px|pt|\s*$)|[0-9]\s", value)
            self.sizes |= bool(absolute)
            self.needs_browser |= name == "font" and not absolute
        if name in ("font-family", "font"):
            alone = r"[^,]*?(?:ui-)?monospace[\"']?"  # which makes the size 13 px where there is none
            self.monospace |= bool(re.fullmatch(alone, value, re.I))
            self.needs_browser |= bool(re.search("narrow|modern|math|emoji", value, re.I))

    def end(self, _: str) -> None:
        self.open.pop()

    def data(self, text: str) -> None:
        if self.open[-1] == "style":
            self.sheet.append(text)
        elif self.open[-1] in ("text", "tspan", "a") and text.strip():
            self.text.append(text)
            self.needs_browser |= "\n" in text.strip()

    def root(self, space: str, name: str, attributes: dict[str, str]) -> None:
        if name != "svg":
            raise ProgramError(f"svg: the document is a <{name[:40]}>, not an <svg>")
        if space != SVG:  # no renderer draws it, and a browser makes no element of it that could be asked
            raise ProgramError(f'svg: its namespace is "{space[:80]}", not "{SVG}"')
        self.root_at = self.parser.CurrentByteIndex
        style = dict(part.partition(":")[::2] for part in attributes.get("style", "").lower().split(";"))
        style = {name.strip(): value.strip() for name, value in style.items()}
        sides = [style.get(name) or attributes.get(name, "") for name in ("width", "height")]
        width, height = map(length, sides)
        box = re.split(r"[\s,]+", attributes.get("viewBox", "").strip())
        try:
            *_, across, down = map(float, box)
            self.box = len(box) == 4
        except ValueError:
            across, down = 0.0, 0.0
        if self.box and not (across > 0 and down > 0):
            raise ProgramError("svg: its viewBox has no area, so that nothing is drawn")
        self.needs_browser |= any(re.search(r"(?:em|ex|q)\s*$", side, re.I) for side in sides)
        if not self.box:
            self.needs_browser |= width is None or height is None
            self.size = (300.0 if width is None else width, 150.0 if height is None else height)
        elif width is None and height is None:
            self.size = (across, down)
        else:
            width = height * across / down if width is None else width
            self.size = (width, width * down / across if height is None else height)
        self.needs_browser |= min(self.size) < 1  # of which libvips makes 0
        if not (0 < self.size[0] < 1e9 and 0 < self.size[1] < 1e9):
            raise ProgramError("svg: its width or height is 0, so that nothing is drawn")


def length(text: str) -> float | None:
    """px of a width or height; None if it follows from something else."""
    parts = re.fullmatch(r"\s*\+?([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", text, re.I)
    return float(parts[1]) * UNITS[parts[2].lower()] if parts and parts[2].lower() in UNITS else None


def document(code: str) -> str:
    """The svg document in a text: without what stands around it, and without a declaration that says another encoding
    than UTF-8, which it is, or another version than 1.0, which alone expat and librsvg read."""
    code = code.strip()
    first = re.search(r"<(?:\w+:)?([A-Za-z]\w*)", re.sub(r"<!--.*?-->", "", code, flags=re.S))
    if not code.startswith("<") or first is None or first[1] != "svg":
        start, end = code.find("<svg"), code.rfind("</svg>")
        if start < 0:
            raise ProgramError("svg: there is no <svg> element")
        code = code[start : end + 6] if end > start else code[start:]
    code = re.sub(r"^<\?xml\s[^>]*\?>", "", code)
    if re.search(r"<svg[\s/>]", code) and not re.search(r"<svg\s[^>]*\bxmlns\s*=", code):
        code = re.sub(r"<svg\b", f'<svg xmlns="{SVG}"', code, count=1)
    return code


def sized(svg: bytes, scan: Scan, width: int, height: int) -> bytes:
    """The document with another width and height, in px. What it had becomes its viewBox where it has none."""
    tag = START.match(svg, scan.root_at)
    names = {attribute[1] for attribute in ATTRIBUTE.finditer(tag[0])}
    size = b"width: %dpx !important; height: %dpx !important; " % (width, height)  # as style, which outdoes attributes

    def changed(found: re.Match) -> bytes:
        if found[1] != b"style":
            return found[0]
        begin, quote, rest = found[0].partition(found[0][-1:])
        rest = re.sub(rb"(?i)((?:width|height)\s*:[^;!]*)!\s*important", rb"\1", rest)
        return begin + quote + size + rest  # in front: what it had may end within brackets

    start = ATTRIBUTE.sub(changed, tag[0])
    if b"style" not in names:
        start += b' style="%s"' % size
    if b"viewBox" not in names:
        start += b' viewBox="0 0 %g %g"' % scan.size
    return svg[: scan.root_at] + start + svg[tag.end() :]


def browser_page(code: str, scan: Scan, width: int, height: int) -> BrowserPage:
    values = dict(width=width, height=height, margin=BrowserPage.MARGIN, box="0 0 {:g} {:g}".format(*scan.size))
    page = PAGE % (values | dict(at_rest=AT_REST, svg=base64.b64encode(code.encode()).decode()))
    return BrowserPage(width, height, page.encode())


def use_browser_fonts() -> None:
    """Before fontconfig is first used."""
    alias = '<alias binding="same"><family>{}</family><prefer><family>{}</family></prefer></alias>'
    aliases = "\n".join(alias.format(name, family) for family, names in FAMILIES.items() for name in names)
    path = Path(tempfile.gettempdir(), "fonts.conf")
    path.write_text(FONTS.format(aliases=aliases))
    os.environ["FONTCONFIG_FILE"] = str(path)


def svg_renderer(options: Options) -> Callable[[str], bytes]:
    """librsvg inside the worker process: SVG is data, so one process may draw one document after the other."""
    has_browser = chromium_path() is not None
    use_browser_fonts()
    confine_worker(options, children=False)
    rasterize_svg(LANGUAGE.sample.encode(), 16)

    def draw(code: str, canvas: tuple[int, int] | None) -> Image.Image:
        code = document(code)
        scan = Scan(code)
        side = max(canvas) if canvas else options.svg_side
        natural = tuple(max(1, round(length * side / max(scan.size))) for length in scan.size)
        if scan.needs_browser and has_browser and len(code) < MAX_PAGE // 2:
            raise browser_page(code, scan, *(canvas or natural))
        if canvas in (None, natural):
            picture = rasterize_svg(code.encode(), side, None if scan.needs_browser else scan.size)
        else:
            picture = rasterize_svg(sized(code.encode(), scan, *canvas), size=canvas)
        return with_words(picture, of_svg(code, scan.size, picture.size))

    return lambda code, canvas=None: answer_of(lambda: draw(code, canvas), options)


def cairosvg_renderer(options: Options) -> Callable[[str, tuple[int, int]], bytes]:
    """As UniSVG, SVG-Bench and the paper's release draw: onto a canvas, on white, in fontconfig's own fonts."""
    try:
        import cairosvg
    except OSError:
        raise ToolMissing("cairosvg needs libcairo: apt install libcairo2") from None
    confine_worker(options, children=False)

    def draw(code: str, width: int, height: int) -> Image.Image:
        size = {"output_width": width, "output_height": height, "dpi": DPI.get((width, height), 96)}
        picture = cairosvg.svg2png(document(code).encode(), background_color="white", **size)
        return Image.open(io.BytesIO(picture))

    return lambda code, canvas: answer_of(lambda: draw(code, *canvas), options)


LANGUAGE = Language(
    name="svg",
    suffixes=(".svg",),
    words=r"svg|scalable vector graphics?",
    code="SVG code",
    domains={"svg": "picture"},
    sample='<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 6"><circle cx="4" cy="3" r="2" fill="red"/></svg>\n',
    kinds={"svg": Kind(svg_renderer, canvas=True, files=browser_files)},
    for_metrics={CAIROSVG: Kind(cairosvg_renderer, canvas=True)},
    unseen=r"(?s)<!--.*?-->|<(?:defs|title|metadata)\b.*?</(?:defs|title|metadata)>",
    flaws={
        "number": (
            r"\b(?:c?[xy][12]?|r[xy]?|width|height|d|points|transform|font-size)\s*=\s*[\"']([^\"']*)",
            r"(?<![\d.#])(?:\d+\.\d+|[2-9]|\d{2,})(?![\d.])",  # 0 and 1 may be flags of an arc
        ),
        "drop": ("", r"<(?:rect|circle|ellipse|line|poly\w+|path)\b[^<>]*/>|<text\b[^<>]*>[^<>]*</text>"),
        "label": (r"<(?:text|tspan)\b[^<>]*>([^<>]+)<", WORD),
    },
    parse=lambda code: ElementTree.fromstring(code.encode()),
)
