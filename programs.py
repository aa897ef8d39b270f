"""The programs themselves: one function per domain, from dice and their difficulty to code. synth.py calls them."""

import json
import math
import re
from dataclasses import dataclass

import numpy as np

# domain -> language
LANGUAGE_OF = {"svg": "svg", "chart": "python", "html": "html", "latex": "latex", "molecule": "python"}
DOMAINS = tuple(LANGUAGE_OF)
# Names known to CSS, matplotlib and TeX; the first are those most easily told apart in a small picture.
NAMES = ("red", "blue", "green", "orange", "purple", "black", "cyan", "teal", "brown", "magenta", "gray", "olive")
PALETTES = (
    ("#264653", "#2a9d8f", "#e9c46a", "#f4a261", "#e76f51"),
    ("#0b3954", "#087e8b", "#6fb1c8", "#ff5a5f", "#c81d25"),
    ("#1d3557", "#457b9d", "#7cc6c3", "#e63946", "#f2b134"),
)
WORDS = ("Aurora", "Harbor", "Meadow", "Summit", "Lantern", "Orchard", "Canyon", "Willow", "Ember", "Pioneer", "Atlas")
TOPICS = (  # title, x label, y label, categories
    ("Rainfall", "Month", "Rain (mm)", ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug")),
    ("Visitors", "City", "People (thousands)", ("Oslo", "Rome", "Lima", "Cairo", "Kyoto", "Perth", "Quito", "Bonn")),
    ("Energy mix", "Source", "Output (TWh)", ("Wind", "Solar", "Hydro", "Coal", "Gas", "Oil", "Waste", "Tidal")),
)
PHRASES = ("Fresh ideas for every season", "Built by people who care", "Open all week", "Tools for careful work")
MENU = ("Home", "About", "Shop", "Blog", "Team", "Contact", "Events", "Help")
SHAPES = {
    "circle": '<circle cx="{cx}" cy="{cy}" r="{rx}" fill="{colour}"{more}/>',
    "rect": '<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{colour}"{more}/>',
    "triangle": '<polygon points="{cx},{y} {right},{bottom} {x},{bottom}" fill="{colour}"{more}/>',
    "ellipse": '<ellipse cx="{cx}" cy="{cy}" rx="{rx}" ry="{ry}" fill="{colour}"{more}/>',
    "diamond": '<path d="M{cx} {y}L{right} {cy}L{cx} {bottom}L{x} {cy}Z" fill="{colour}"{more}/>',
}
HOUSE = '<rect y="-18" width="26" height="24" fill="{wall}"/><polygon points="-3,-18 13,-32 29,-18" fill="{roof}"/>'
TREE = '<rect x="10" y="-10" width="5" height="16" fill="brown"/><circle cx="12" cy="-18" r="11" fill="{green}"/>'
CALLS = {  # one series on one pair of axes
    "bar": "{ax}.bar({labels}, {values}{style})",
    "line": '{ax}.plot({labels}, {values}, marker="{mark}"{style})',
    "scatter": '{ax}.scatter({more}, {values}, marker="{mark}", s={size}{style})',
    "pie": "{ax}.pie({values}, labels={labels})",
    "barh": "{ax}.barh({labels}, {values}{style})",
    "area": "{ax}.fill_between(range({n}), {values}, alpha=0.4{style})",
    "box": "{ax}.boxplot([{values}, {more}])",
    "heatmap": '{ax}.imshow([{values}, {more}], cmap="{cmap}", aspect="auto")',
}
# SMILES with slots: `*` takes any group, `~` one that begins with carbon (its atom is N, O or a carbonyl's neighbour).
SMILES = (
    "c1ccc(*)cc1* c1cc(*)ccc1* c1cnc(*)cc1* c1csc(*)c1* c1ccc2cc(*)ccc2c1* C1CCC(*)CC1* C1CCC(*)C1* C1CCN(~)CC1* "
    "c1cc(*)c2[nH]ccc2c1* C1COC(*)CO1 c1nc(*)cs1 CC(*)CC* CC=CC(*)C* CCC(*)C*",
    "C(=O)N~ CN~ O~ C* CC* /C=C/C(=O)N~ C#C~ S(=O)(=O)N~ [C@@H](C)~ [C@H](O)C~ CO~",
    "C O N F Cl CC OC C#N Br C(C)C C(=O)O C(F)(F)F N(C)C [N+](=O)[O-] C(N)=O",
)
CORES, LINKS, GROUPS = (line.split() for line in SMILES)
PATTERNS = ("a1aaaaa1", "C(=O)N", "C=O", "[#6][#6]")  # what may be highlighted


@dataclass
class Dice:
    """One seeded source of choices, and how rich they may be (`d`, the difficulty in [0, 1])."""

    rng: np.random.Generator
    d: float

    def pick(self, options):
        return options[int(self.rng.integers(len(options)))]

    def some(self, options, k: int) -> list:
        return [options[int(i)] for i in self.rng.permutation(len(options))[:k]]

    def whole(self, low: int, high: int, step: int = 1) -> int:
        """low, low + step, ... up to high."""
        return low + step * int(self.rng.integers((high - low) // step + 1))

    def wants(self, start: float) -> bool:
        """Whether to use a feature never seen up to difficulty `start` and nearly always from 0.4 above it."""
        return bool(self.rng.random() < min(0.95, (self.d - start) / 0.4))

    def count(self, low: int, high: int) -> int:
        """How many elements: about `low` at difficulty 0, about `high` at 1."""
        middle = low + self.d * (high - low)
        return self.whole(max(low, int(0.75 * middle)), max(low, min(high, int(1.1 * middle + 1))))

    def colours(self, k: int) -> list[str]:
        """k <= 5 colours that differ: common names first, designers' palettes later."""
        return self.some(self.pick(PALETTES), k) if self.wants(0.3) else self.some(NAMES[: 5 + int(8 * self.d)], k)

    def values(self, n: int) -> list:
        """n positive numbers: digits at first, then a random walk, finally of large decimals."""
        if self.d < 0.35:
            return [self.whole(1, 9) for _ in range(n)]
        trend = self.rng.uniform(3, 8) + self.rng.uniform(-0.4, 0.8) * np.arange(n) + self.rng.normal(0, 1.2, n)
        walk = np.maximum(0.5, trend) * (1 if self.d < 0.6 else 12)
        return [round(float(v), 1) if self.d > 0.5 else round(float(v)) + 1 for v in walk]


def place(dice: Dice, count: int, side: int, step: int, sizes: list[int]) -> list[tuple[int, int, int, int]]:
    """Up to `count` boxes (x, y, w, h) on a grid, none over another, sorted left to right, then top to bottom."""
    boxes = []
    for _ in range(40 * count):
        w, h = dice.pick(sizes), dice.pick(sizes)
        x, y = dice.whole(0, side - w, step), dice.whole(0, side - h, step)
        if all(x >= bx + bw or bx >= x + w or y >= by + bh or by >= y + h for bx, by, bw, bh in boxes):
            boxes.append((x, y, w, h))
    return sorted(boxes[:count])


def svg(dice: Dice) -> str:
    width, height, lines = (svg_landscape if dice.wants(0.35) and dice.pick((True, False)) else svg_shapes)(dice)
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">', *lines, "</svg>"])


SCENES = ((0.1, (64, 8)), (0.3, (64, 4)), (0.6, (128, 4)), (math.inf, (200, 5)))  # below this difficulty: side, grid


def svg_shapes(dice: Dice) -> tuple[int, int, list[str]]:
    """Shapes that do not hide one another, on a coarse grid."""
    d, kinds, lines = dice.d, list(SHAPES)[: 3 + int(max(0, dice.d - 0.2) * 8)], []
    side, step = next(size for below, size in SCENES if d < below)
    count = dice.whole(1, 2 if d < 0.1 else 3) if d < 0.3 else dice.count(2, 12)
    sizes = [side // 4, side // 8 * 3, side // 2] if count < 5 else list(range(2 * step, side // 3, 2 * step))
    ground = dice.pick(("ivory", "aliceblue", "lavender", "mistyrose"))
    lines += [f'<rect width="{side}" height="{side}" fill="{ground}"/>'] * dice.wants(0.3)
    colours = dice.colours(5)
    for k, (x, y, w, h) in enumerate(place(dice, count, side, step, sizes)):
        kind = dice.pick(kinds)
        w, h = (min(w, h),) * 2 if kind == "circle" else (w, h)
        box = dict(x=x, y=y, w=w, h=h, rx=w // 2, ry=h // 2, right=x + w, bottom=y + h, cx=x + w // 2, cy=y + h // 2)
        more = ' stroke="black" stroke-width="2"' * (dice.wants(0.5) and dice.pick((True, False)))
        more += f' opacity="0.{dice.whole(5, 9)}"' * dice.wants(0.6)
        more += f' transform="rotate({dice.whole(-30, 30, 5)} {box["cx"]} {box["cy"]})"' * dice.wants(0.7)
        lines.append(SHAPES[kind].format(**box, colour=colours[k % 5], more=more))
    return side, side, lines


def svg_landscape(dice: Dice) -> tuple[int, int, list[str]]:
    """A sky with a sun or a moon, clouds, two hills, houses and trees."""
    width, height = dice.pick(((200, 150), (240, 160), (320, 200)))
    top, bottom, sun = dice.pick((("#7ec8f2", "#fdf6e3", "gold"), ("#0d1b3d", "#6a5a8c", "ivory")))
    (wall, roof, hill, far), ground = dice.some(dice.pick(PALETTES), 4), height - dice.whole(30, 50)
    stops = f'<stop offset="0" stop-color="{top}"/><stop offset="1" stop-color="{bottom}"/>'
    lines = [f'  <defs><linearGradient id="sky" x2="0" y2="1">{stops}</linearGradient></defs>']
    lines += [f'  <rect width="{width}" height="{height}" fill="url(#sky)"/>']
    lines += [f'  <circle cx="{dice.whole(20, width - 20)}" cy="{dice.whole(20, 45)}" r="14" fill="{sun}"/>']
    for _ in range(dice.count(0, 4)):
        x, y, r = dice.whole(20, width - 20), dice.whole(15, 55), dice.whole(12, 24, 3)
        lines += [f'  <ellipse cx="{x}" cy="{y}" rx="{r}" ry="{r // 3}" fill="white" opacity="0.7"/>']
    for colour, y in ((far, ground - dice.whole(15, 30)), (hill, ground)):
        curve = f"C{width // 3} {y + dice.whole(-25, 20)} {2 * width // 3} {y + dice.whole(-25, 20)} {width} {y}"
        lines += [f'  <path d="M0 {y}{curve}V{height}H0Z" fill="{colour}"/>']
    for slot in sorted(dice.some(range(width // 40), dice.count(2, 8))):
        item = dice.pick((HOUSE, TREE)).format(wall=wall, roof=roof, green=dice.pick(("#2d6a4f", "#52b788")))
        where = f"translate({40 * slot + 6} {ground + dice.whole(4, 16)}) scale({dice.pick((0.8, 1, 1.2))})"
        lines += [f'  <g transform="{where}">{item}</g>']
    words = f'font-family="serif" font-size="14" fill="white">{dice.pick(WORDS)} Valley'
    return width, height, lines + [f'  <text x="8" y="{height - 6}" {words}</text>'] * dice.wants(0.5)


def chart(dice: Dice) -> str:
    """A tiny bare chart, or a figure of one to four labelled panels."""
    if not dice.wants(0.25):
        return chart_small(dice)
    rows, columns = dice.pick(((1, 2), (2, 1), (2, 2))) if dice.wants(0.55) else (1, 1)
    lines = ["import matplotlib.pyplot as plt", ""]
    lines += [f'plt.style.use("{dice.pick(("ggplot", "bmh", "seaborn-v0_8-whitegrid"))}")'] * dice.wants(0.6)
    if rows * columns == 1:
        lines += ["fig, ax = plt.subplots(figsize=(5, 3.5))", *chart_panel(dice, "ax")]
    else:
        lines.append(f"fig, axes = plt.subplots({rows}, {columns}, figsize=({4 * columns + 1}, {3 * rows}))")
        for k in range(rows * columns):
            lines += ["", *chart_panel(dice, f"axes[{k // 2}, {k % 2}]" if rows == columns else f"axes[{k}]")]
    return "\n".join([*lines, "plt.tight_layout()", "plt.show()"])


def chart_small(dice: Dice) -> str:
    """One kind of mark over 64 x 64 pixels. One unit of value is 8 pixels, so every number can be read off."""
    kind, (colour,), n = dice.pick(("bar", "line", "scatter", "pie")), dice.colours(1), dice.whole(3, 5)
    values, xs = [dice.whole(1, 7) for _ in range(n)], sorted(dice.some(range(1, 8), n))
    draw = {
        "bar": f'plt.bar(range({n}), {values}, color="{colour}")\nplt.ylim(0, 8)',
        "line": f'plt.plot({values}, color="{colour}", linewidth=4)\nplt.ylim(0, 8)',
        "scatter": f'plt.scatter({xs}, {values}, color="{colour}")\nplt.axis([0, 8, 0, 8])',
        "pie": f"plt.pie({dice.some(range(1, 6), 3)}, colors={json.dumps(dice.some(NAMES[:6], 3))})",
    }[kind]
    lines = ["import matplotlib.pyplot as plt", "plt.figure(figsize=(1, 1), dpi=64)", "plt.subplots_adjust(0, 0, 1, 1)"]
    return "\n".join([*lines, draw] + ['plt.axis("off")'] * (kind != "pie"))


def chart_panel(dice: Dice, ax: str) -> list[str]:
    """The calls that fill one pair of axes: one to three series, then titles, labels, grid and legend."""
    title, x_label, y_label, categories = dice.pick(TOPICS)
    kind, n = dice.pick(list(CALLS)[: 4 + int(5 * dice.d)]), dice.whole(3, 5 + int(3 * dice.d))
    series = dice.whole(2, 3) if kind in ("line", "scatter", "area") and dice.wants(0.3) else 1
    lines = []
    for name, colour in zip(dice.some(WORDS, series), dice.colours(series), strict=True):
        style = f', color="{colour}"' + f', label="{name}"' * (series > 1)
        fields = dict(values=dice.values(n), more=dice.values(n), labels=json.dumps(categories[:n]), n=n, style=style)
        fields |= dict(mark=dice.pick("os^D"), size=dice.whole(20, 100, 10))
        lines.append(CALLS[kind].format(ax=ax, **fields, cmap=dice.pick(("viridis", "Blues", "magma", "YlGnBu"))))
    lines += [f'{ax}.set_title("{title}")'] * dice.wants(0.2)
    if dice.wants(0.3) and "{labels}" in CALLS[kind] and kind != "pie":
        x, y = ("y", "x") if kind == "barh" else ("x", "y")
        lines += [f'{ax}.set_{x}label("{x_label}")', f'{ax}.set_{y}label("{y_label}")']
    lines += [f"{ax}.grid(alpha=0.3)"] * (dice.wants(0.5) and kind not in ("pie", "heatmap"))
    return lines + [f"{ax}.legend()"] * (series > 1)


def html(dice: Dice) -> str:
    """Coloured bands split into columns, with one large word in each; or a page."""
    if dice.wants(0.25):
        return html_page(dice)
    body = '<body style="margin: 0; font: 60px sans-serif; color: white; text-align: center">'
    lines = ["<!DOCTYPE html>", "<html>", body]
    for _ in range(dice.whole(1, 3)):
        height = dice.whole(100, 300, 100)
        lines.append('<div style="display: flex">')
        for colour in dice.some(NAMES[:6], dice.whole(1, 2 + int(2 * dice.d))):
            style = f"flex: 1; line-height: {height}px; background: {colour}"
            lines.append(f'  <div style="{style}">{dice.pick(WORDS)}</div>')
        lines.append("</div>")
    return "\n".join([*lines, "</body>", "</html>"])


def html_page(dice: Dice) -> str:
    """A small site: header with navigation, a banner, perhaps cards, a table and a footer."""
    brand, (dark, hero, line) = dice.pick(WORDS), dice.some(dice.pick(PALETTES), 3)
    font, page = dice.pick(("sans-serif", "Georgia, serif", "monospace")), dice.pick(("white", "#f4f4f0", "#eef2f7"))
    radius, pad, align = dice.whole(0, 16, 4), dice.whole(24, 72, 8), dice.pick(("left", "center"))
    css = [f"body {{ margin: 0; font-family: {font}; color: #222; background: {page}; }}"]
    css += [f"header {{ background: {dark}; color: white; padding: 20px 40px; display: flex; gap: 32px; }}"]
    css += ["nav a { color: white; margin-right: 20px; text-decoration: none; }"]
    css += [f"main {{ max-width: {dice.pick((700, 820, 960))}px; margin: 0 auto; padding: 24px; }}"]
    css += [f".hero {{ background: {hero}; color: white; padding: {pad}px; text-align: {align}; }}"]
    links = "".join(f'<a href="#">{link}</a>' for link in dice.some(MENU, dice.count(2, 6)))
    body = ["<header>", f"  <strong>{brand}</strong>", f"  <nav>{links}</nav>", "</header>", "<main>"]
    body += ['  <div class="hero">', f"    <h1>{dice.pick(PHRASES)}</h1>"]
    body += [f"    <p>{dice.pick(PHRASES)}.</p>", "  </div>"]
    if dice.wants(0.3):
        look = f"background: white; border-top: 6px solid {line}; border-radius: {radius}px; box-shadow: 0 1px 4px #aaa"
        css += [".cards { display: flex; gap: 20px; margin: 24px 0; }", f".card {{ flex: 1; padding: 16px; {look}; }}"]
        cards = [f"<h3>{word}</h3><p>{dice.pick(PHRASES)}.</p>" for word in dice.some(WORDS, dice.count(2, 4))]
        body += ['  <div class="cards">', *(f'    <div class="card">{card}</div>' for card in cards), "  </div>"]
    if dice.wants(0.4):
        (title, *_, categories), columns = dice.pick(TOPICS), dice.whole(2, 4)
        css += ["table { width: 100%; border-collapse: collapse; }", f"th {{ background: {line}; color: white; }}"]
        css += ["th, td { padding: 10px; text-align: left; border-bottom: 1px solid #ccc; }"]
        lines = ["".join(f"<th>{name}</th>" for name in (title, *categories[:columns]))]
        for word in dice.some(WORDS, dice.count(2, 6)):
            lines += ["".join(f"<td>{cell}</td>" for cell in (word, *dice.values(columns)))]
        body += ["  <table>", *(f"    <tr>{row}</tr>" for row in lines), "  </table>"]
    body += ["</main>"]
    if dice.wants(0.4):
        css += ["footer { background: #222; color: #ccc; padding: 18px 40px; text-align: center; }"]
        body += [f"<footer>{brand} {dice.whole(1990, 2025)}. {dice.pick(PHRASES)}.</footer>"]
    head = ["<!DOCTYPE html>", "<html>", "<head>", f"  <title>{brand}</title>", "  <style>", *("    " + c for c in css)]
    return "\n".join([*head, "  </style>", "</head>", "<body>", *body, "</body>", "</html>"])


def latex(dice: Dice) -> str:
    """A bare tikzpicture, which the renderer wraps, or a standalone document."""
    kind = dice.pick((latex_graph, latex_plot)) if dice.wants(0.25) else latex_shapes
    options, lines = kind(dice)
    lines = [r"\begin{tikzpicture}" + options, *lines, r"\end{tikzpicture}"]
    if dice.wants(0.3):
        package = "pgfplots" if kind is latex_plot else "tikz"
        head = [r"\documentclass[border=4pt]{standalone}", rf"\usepackage{{{package}}}"]
        lines = [*head, r"\begin{document}", *lines, r"\end{document}"]
    return "\n".join(lines)


def latex_shapes(dice: Dice) -> tuple[str, list[str]]:
    """Filled shapes inside a frame, which keeps their place visible after cropping."""
    lines = [r"\draw (0,0) rectangle (8,8);"]
    for x, y, w, h in place(dice, dice.count(1, 6), 8, 1, [2, 4] if dice.d < 0.3 else [2, 3, 4]):
        r, colour = min(w, h) / 2, dice.pick(NAMES[: 5 + int(7 * dice.d)])
        circle = f"({x + r:g},{y + r:g}) circle ({r:g})"
        triangle = f"({x},{y}) -- ({x + w},{y}) -- ({x + w / 2:g},{y + h}) -- cycle"
        lines.append(rf"\fill[{colour}] {dice.pick((circle, triangle, f'({x},{y}) rectangle ({x + w},{y + h})'))};")
    return "", lines


def latex_graph(dice: Dice) -> tuple[str, list[str]]:
    """Nodes with words or formulas, on a circle or in rows, joined by labelled arrows in order."""
    n, colour, columns = dice.count(3, 9), dice.pick(NAMES), dice.pick((0, 2, 3))
    style = f"{'draw' if columns else 'draw, circle'}, {colour}, text=black, fill={colour}!15, thick"
    edge, lines = dice.pick(("", ", thick", ", dashed", f", {colour}")) if dice.wants(0.3) else "", []
    for k in range(n):
        a, b = dice.whole(2, 9), dice.whole(2, 9)
        formula = dice.pick((rf"\int_0^{a} x^{b}\,dx", rf"\sum_{{k=1}}^{a} k^{b}", rf"\sqrt{{x^{a} + {b}}}"))
        text = rf"$v_{k}$"
        if columns:
            text = rf"${formula}$" if dice.wants(0.4) else dice.pick(WORDS)
        where = f"({4 * (k % columns)},{-2 * (k // columns)})" if columns else f"({360 * k / n:.0f}:{1 + n / 4:g})"
        lines.append(rf"\node[state] ({k}) at {where} {{{text}}};")
    for k in range(n - 1 if columns else n):
        weight = f" node[midway, fill=white] {{{dice.whole(1, 9)}}}" * dice.wants(0.5)
        lines.append(rf"\draw[->{edge}] ({k}) to{weight} ({(k + 1) % n});")
    return f"[state/.style={{{style}}}]", lines


def latex_plot(dice: Dice) -> tuple[str, list[str]]:
    """Functions, points or bars in pgfplots axes."""
    kind, series = dice.pick(("function", "points", "bars")), dice.count(1, 3)
    options = {"function": "domain=-3:3, samples=60", "points": "ymin=0", "bars": "ybar, ymin=0, bar width=6pt"}[kind]
    options += ", grid=major" * dice.wants(0.4) + f", title={{{dice.pick(WORDS)}}}" * dice.wants(0.4)
    lines = [rf"\begin{{axis}}[{options}, legend pos=outer north east]"]
    for colour in dice.some(NAMES[:8], series):
        a, b, mark = dice.whole(1, 4), dice.whole(-3, 3), dice.pick(("*", "square*", "triangle*"))
        curve = dice.pick((f"{a}*sin(deg({a}*x))", f"{a}*x^2 + {b}", f"x^3 - {a}*x", f"{4 * a}*exp(-x^2)"))
        points = " ".join(f"({x},{y})" for x, y in enumerate(dice.values(dice.whole(4, 6)), 1))
        style = {"function": f"{colour}, thick", "points": f"{colour}, mark={mark}", "bars": f"fill={colour}!60"}[kind]
        lines += [rf"\addplot[{style}] " + (f"{{{curve}}};" if kind == "function" else f"coordinates {{{points}}};")]
    lines += [rf"\legend{{{', '.join(dice.some(WORDS, series))}}}"] * dice.wants(0.5)
    return "", [*lines, r"\end{axis}"]


def grow(dice: Dice, pieces: int, core: bool = True, carbon: bool = False, rings: int = 0) -> str:
    """SMILES of `pieces` cores and links by turns, groups in the slots left over; `rings` ring digits are in use."""
    fragments = [f for f in (CORES if core else LINKS) if f[0] in "cC[/" or not carbon]
    fragment = re.sub(r"\d", lambda digit: str(int(digit[0]) + rings), dice.pick(fragments))
    slots = re.findall(r"\(?[*~]\)?", fragment)
    main = dice.whole(0, len(slots) - 1)
    for k, slot in enumerate(slots):
        group, carbon = "", "~" in slot
        if k == main and pieces > 1:
            group = grow(dice, pieces - 1, not core, carbon, rings + 2 * core)
        elif not core or dice.wants(-0.1):
            group = dice.pick([g for g in GROUPS[: 6 + int(9 * dice.d)] if not carbon or g[0] == "C" and g != "Cl"])
        fragment = fragment.replace(slot, f"({group})" if slot[0] == "(" and group else group, 1)
    return fragment


def molecule(dice: Dice) -> str:
    """A script that draws one molecule with rdkit or indigo. The SMILES is parsed, sanitised and made canonical."""
    from rdkit import Chem

    mol = Chem.MolFromSmiles(grow(dice, min(7, dice.count(1, 7))))
    smiles, side = Chem.MolToSmiles(mol), 300 if dice.d < 0.3 else dice.pick((300, 400, 500))
    if dice.wants(0.2) and dice.pick((True, False)):
        lines = ["from indigo import Indigo", "from indigo.renderer import IndigoRenderer", "", "indigo = Indigo()"]
        lines += ["renderer = IndigoRenderer(indigo)", f'mol = indigo.loadMolecule("{smiles}")', "mol.layout()"]
        for option in ('output-format", "png"', f'image-size", {side}, {side}', 'background-color", 1.0, 1.0, 1.0'):
            lines.append(f'indigo.setOption("render-{option})')
        return "\n".join([*lines, 'renderer.renderToFile(mol, "molecule.png")'])
    lines = ["from rdkit import Chem", "from rdkit.Chem import Draw", "", f'mol = Chem.MolFromSmiles("{smiles}")']
    if not dice.wants(0.3):
        return "\n".join([*lines, f'Draw.MolToFile(mol, "molecule.png", size=({side}, {side}))'])
    lines.append(f"drawer = Draw.MolDraw2DCairo({side}, {dice.pick((side, side * 3 // 4))})")
    lines += ["drawer.drawOptions().addStereoAnnotation = True"] * dice.wants(0.5)
    more, pattern = "", dice.pick([p for p in PATTERNS if mol.HasSubstructMatch(Chem.MolFromSmarts(p))])
    if dice.wants(0.5):
        lines.append(f'atoms = mol.GetSubstructMatch(Chem.MolFromSmarts("{pattern}"))')
        more = ", highlightAtoms=atoms"
    more += f', legend="{dice.pick(WORDS)} {dice.whole(1, 99)}"' * dice.wants(0.5)
    lines += [f"Draw.rdMolDraw2D.PrepareAndDrawMolecule(drawer, mol{more})", "drawer.FinishDrawing()"]
    return "\n".join([*lines, 'drawer.WriteDrawingText("molecule.png")'])


MAKERS = dict(zip(DOMAINS, (svg, chart, html, latex, molecule), strict=True))
