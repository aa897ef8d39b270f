"""The words of an svg document and where librsvg draws them: the part of its layout that text needs, by estimate.

Widths are those of the Liberation fonts; style sheets count where a selector is one class, name or id. What is further
(text along a path, letters placed one by one) is drawn by the browser, which knows (`words.of_page`).
"""

from __future__ import annotations

import functools
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import ImageColor, ImageFont

from languages import fonts
from languages.protocol import Word
from languages.words import FAINT, hex_colour, in_line

INHERITED = ("fill", "font-size", "font-family", "text-anchor", "visibility")
UNITS = {"": 1, "px": 1, "pt": 4 / 3, "pc": 16, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96, "em": 16, "rem": 16}
UNITS |= {"ex": 7.2, "q": 96 / 101.6}  # px
HIDDEN = {"defs", "symbol", "clipPath", "mask", "pattern", "marker", "style", "title", "desc", "metadata"}
SIZE = 64  # px, of the font that widths are measured with

Matrix = tuple[float, float, float, float, float, float]


def product(a: Matrix, b: Matrix) -> Matrix:
    """First b, then a."""
    return (
        a[0] * b[0] + a[2] * b[1], a[1] * b[0] + a[3] * b[1], a[0] * b[2] + a[2] * b[3], a[1] * b[2] + a[3] * b[3],
        a[0] * b[4] + a[2] * b[5] + a[4], a[1] * b[4] + a[3] * b[5] + a[5],
    )  # fmt: skip


def local(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def transform(text: str) -> Matrix:
    whole: Matrix = (1, 0, 0, 1, 0, 0)
    for name, inside in re.findall(r"(\w+)\s*\(([^)]*)\)", text):
        v = numbers(inside)
        if name == "translate" and v:
            one = (1, 0, 0, 1, v[0], v[1] if len(v) > 1 else 0)
        elif name == "scale" and v:
            one = (v[0], 0, 0, v[-1], 0, 0)
        elif name == "rotate" and v:
            cos, sin = math.cos(math.radians(v[0])), math.sin(math.radians(v[0]))
            x, y = v[1:3] if len(v) > 2 else (0, 0)
            one = (cos, sin, -sin, cos, x - cos * x + sin * y, y - sin * x - cos * y)
        elif name == "matrix" and len(v) == 6:
            one = tuple(v)
        else:
            continue
        whole = product(whole, one)
    return whole


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text)]


def length(text: str, size: float, otherwise: float = 0.0) -> float:
    """px of a length, of which `size` are 1 em."""
    parts = re.match(r"\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*([a-z%]*)", text)
    if not parts:
        return otherwise
    return float(parts[1]) * {"em": size, "rem": 16, "%": size / 100, "ex": size / 2}.get(
        parts[2], UNITS.get(parts[2], 1)
    )


@functools.cache
def font(family: str) -> ImageFont.FreeTypeFont | None:
    """The file that comes nearest; a family that is not here is drawn in Liberation Serif, as is none."""
    name = "arial.ttf" if re.search("sans|arial|helvetica|verdana|tahoma|system-ui", family, re.I) else "times.ttf"
    name = "cour.ttf" if re.search("mono|courier", family, re.I) else name
    path = fonts.file_for(name)
    return ImageFont.truetype(path, SIZE) if path else None


def width_of(text: str, family: str, size: float) -> float:
    known = font(family)
    return known.getlength(text) * size / SIZE if known else 0.55 * size * len(text)


class Words:
    """Walks a document and collects."""

    def __init__(self, root: ElementTree.Element):
        self.words: list[Word] = []
        self.rules = [
            (selector.strip(), declarations)
            for sheet in root.findall(".//{*}style")
            for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", re.sub(r"(?s)/\*.*?\*/", "", sheet.text or ""))
            for selector in selectors.split(",")
            for declarations in [dict(declared(body))]
        ]

    def style(self, element: ElementTree.Element, name: str) -> dict[str, str]:
        own = {key: value for key, value in element.attrib.items() if not key.startswith("{")}
        classes = own.get("class", "").split()
        names = {name, f"#{own.get('id')}", *(f".{one}" for one in classes), *(f"{name}.{one}" for one in classes)}
        for selector, declarations in self.rules:
            own |= declarations if selector in names else {}
        return own | dict(declared(own.get("style", "")))

    def walk(self, element: ElementTree.Element, matrix: Matrix, inherited: dict[str, str], opacity: float) -> None:
        name = local(element)
        if name in HIDDEN:
            return
        style = self.style(element, name)
        if style.get("display") == "none":
            return
        inherited = inherited | {key: style[key] for key in INHERITED if key in style and style[key] != "inherit"}
        inherited["font-size"] = self.size(style, inherited)
        matrix = product(matrix, transform(style.get("transform", "")))
        opacity *= share(style.get("opacity")) * share(style.get("fill-opacity") if name in ("text", "tspan") else None)
        if name == "text":
            self.text(element, matrix, inherited, opacity)
        else:
            for child in element:
                self.walk(child, matrix, inherited, opacity)

    def size(self, style: dict[str, str], inherited: dict) -> float:
        """px. Of inherited styles it is a number already."""
        before = inherited.get("font-size", 16.0)
        before = before if isinstance(before, float) else 16.0
        return length(style["font-size"], before, before) if "font-size" in style else before

    def text(self, element: ElementTree.Element, matrix: Matrix, style: dict, opacity: float) -> None:
        """A text is laid out line by line: a place of its own begins one."""
        lines: list[Line] = []

        def walk(part: ElementTree.Element, style: dict, opacity: float) -> None:
            own, size = self.style(part, local(part)), style["font-size"]
            if not lines or any(name in own for name in ("x", "y", "dx", "dy")):
                x, y = lines[-1].end() if lines else (0.0, 0.0)
                x, y = length(own.get("x", ""), size, x), length(own.get("y", ""), size, y)
                x, y = x + length(own.get("dx", ""), size), y + length(own.get("dy", ""), size)
                lines.append(Line(x, y, style.get("text-anchor", "start")))
            lines[-1].add(part.text, style, opacity)
            for child in part:
                its = self.style(child, local(child))
                if its.get("display") != "none":
                    inner = style | {key: its[key] for key in INHERITED if key in its}
                    inner["font-size"] = self.size(its, style)
                    walk(child, inner, opacity * share(its.get("opacity")) * share(its.get("fill-opacity")))
                lines[-1].add(child.tail, style, opacity)

        walk(element, style, opacity)
        for line in lines:
            self.words += line.words(matrix)


@dataclass
class Line:
    x: float
    y: float
    anchor: str
    runs: list[tuple[str, float, dict, float]] = field(default_factory=list)  # text, its width, style, opacity

    def add(self, text: str | None, style: dict, opacity: float) -> None:
        text = re.sub(r"\s+", " ", text or "")
        if text.strip() or self.runs and text:
            width = width_of(text, style.get("font-family", ""), style["font-size"])
            self.runs.append((text, width, style, opacity))

    def width(self) -> float:
        return sum(width for _, width, _, _ in self.runs)

    def end(self) -> tuple[float, float]:
        return self.x + self.width(), self.y

    def words(self, matrix: Matrix) -> Iterator[Word]:
        a, b, c, d, e, f = matrix
        x = self.x - self.width() * {"middle": 0.5, "end": 1.0}.get(self.anchor, 0.0)
        for text, width, style, opacity in self.runs:
            colour = colour_of(style, opacity)
            if colour is not None:
                at = a * x + c * self.y + e, b * x + d * self.y + f
                size = style["font-size"] * math.hypot(c, d)
                angle = -math.degrees(math.atan2(b, a))
                yield from in_line(text, *at, width * math.hypot(a, b), 0.75 * size, 0.22 * size, angle, colour)
            x += width


def share(text: str | None) -> float:
    found = numbers(text or "")
    return min(1.0, max(0.0, found[0] / (100 if "%" in text else 1))) if found else 1.0


def declared(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split(";"):
        name, colon, value = part.partition(":")
        if colon:
            yield name.strip().lower(), value.replace("!important", "").strip()


def colour_of(style: dict, opacity: float) -> str | None:
    """Of a text's letters; "" where that is not known, None where nobody sees them."""
    fill = style.get("fill", "black")
    if opacity < FAINT or fill in ("none", "transparent") or style.get("visibility") in ("hidden", "collapse"):
        return None
    try:
        red, green, blue, *alpha = ImageColor.getrgb(fill)
    except ValueError:  # a gradient
        return ""
    return hex_colour(red / 255, green / 255, blue / 255, opacity * (alpha[0] / 255 if alpha else 1))


def of_svg(svg: str, size: tuple[float, float], picture: tuple[int, int]) -> Iterator[Word]:
    """The words of a document that measures `size` px, drawn as a picture of `picture` px."""
    if "<text" not in svg:
        return
    root = ElementTree.fromstring(svg.encode())
    box = numbers(root.get("viewBox", ""))
    left, top, across, down = box if len(box) == 4 else (0, 0, *size)
    scale = [picture[0] / across, picture[1] / down]
    if root.get("preserveAspectRatio", "").strip() != "none":
        scale = [min(scale)] * 2
    x, y = (side - factor * extent for side, factor, extent in zip(picture, scale, (across, down), strict=True))
    matrix = (scale[0], 0, 0, scale[1], x / 2 - scale[0] * left, y / 2 - scale[1] * top)
    found = Words(root)
    style = found.style(root, "svg")
    kept = {key: style[key] for key in INHERITED if key in style} | {"font-size": found.size(style, {})}
    for child in root:
        found.walk(child, matrix, kept, 1.0)
    yield from found.words
