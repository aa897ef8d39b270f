"""Drafts for refinement: flawed programs that still draw something, and something visibly else than the target.

A draft is made by seeded flaws (`flaws.py`, and the kinds below), one upon the other, and its picture is steered
into a band of scores: too much like the target, and it gets more flaws; too far off or broken, and it goes back half
way to the last program that was too alike. What is drawn on the way is a proposal. A draft is what is kept: it
rendered, and its score lies in the band. Of a long page or figure most flaws in some place are not seen, so beneath
such a one goes a flaw of the whole picture, its "style": nine of ten proposals are drafts.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from flaws import COLOUR, COLOURS, replacement, spans, well_formed
from languages import LANGUAGES

BAND = (0.3, 0.97)  # visual score of a draft's picture against the target
TRIES = 10  # proposals, after which a row goes without a draft
MOST = 8  # flaws in one program
# What is known of each language follows; of one that is not named, only its own flaws are used (`Language.flaws`).
# language -> share of single flaws of a kind that leave the score above the band, on the real programs of LOG.md
ALIKE = {
    "python": {
        "style": 0.04,
        "layout": 0.25,
        "number": 0.34,
        "drop": 0.38,
        "order": 0.58,
        "colour": 0.6,
        "smiles": 0.33,
    },
    "svg": {"style": 0.0, "layout": 0.05, "drop": 0.33, "colour": 0.37, "number": 0.55, "order": 0.76},
    "html": {"style": 0.01, "layout": 0.68, "drop": 0.55, "order": 0.59, "colour": 0.57, "number": 0.51},
    "latex": {"style": 0.0, "layout": 0.4, "drop": 0.48, "number": 0.47, "colour": 0.65, "order": 1.0},
    "mermaid": {"style": 0.0, "layout": 0.0, "drop": 0.1},  # of made diagrams: there are no real ones
}
ENOUGH = 0.2  # flaws are added until the odds that they leave the score there are less, taken as independent
SIZES = r"Cairo\(|\bsize=\(|render-image-(?:width|height|size)[\"'], *"  # of a molecule's picture, px
FIGURE = r"\w.*\b(?:figure|subplots|subplot_mosaic)\("
# language -> what the whole picture hangs on: its margins, proportions, theme, size of text. A little wrong, it is seen
# in nearly every picture, and seldom too far. Where to look, and what stands there instead
STYLE = {
    "python": [
        (
            r"(?:(?<=figsize=\()|(?<=figaspect\()|(?<=figsize[\"']\] = ))\d+(?:\.\d*)?",
            lambda old, rng: f"{float(old) * rng.choice([0.85, 0.9, 1.12, 1.2]):.1f}",
        ),
        (rf"(?:{SIZES})\d{{3,}}", lambda old, rng: _resized(old, rng)),
        (
            rf"(?<=import matplotlib\.pyplot as plt\n)(?!(?s:.*)(?:figsize=|\n{FIGURE}))"
            rf"|(?m:^(?={FIGURE}(?!.*figsize=)))",
            lambda old, rng: f"plt.rcParams.update({{{PARAMETERS[rng.integers(len(PARAMETERS))]}}})\n",
        ),
    ],
    "svg": [
        (r"(?<=viewBox=[\"'])[^\"']+", lambda old, rng: _shifted(old, rng)),
        (
            r"<svg\b(?![^>]*viewBox)[^>]*?\bwidth=[\"']\d+",
            lambda old, rng: re.sub(r"\d+$", lambda width: f"{int(width[0]) * rng.choice([0.85, 1.2]):.0f}", old),
        ),
    ],
    "html": [
        (
            r"(?i)(?=</head>)|(?<!</head>)(?<!</head>\n)(?=<body)|\A(?!(?s:.*)<(?:!doctype|head|body)\b)",
            lambda old, rng: f"<style>html {{ padding: {rng.integers(12, 25)}px }}</style>\n",
        )
    ],
    "latex": [
        (r"(?<=\\begin\{tikzpicture\})(?!\s*\[)", lambda old, rng: f"[{_stretched(rng)}]"),
        (r"(?<=\\begin\{tikzpicture\}\[)", lambda old, rng: f"{_stretched(rng)}, "),
        (r"(?<=\\begin\{document\})(?!(?s:.*)\\begin\{tikzpicture\})", lambda old, rng: "\\Large "),
    ],
    "mermaid": [
        (r"\A(?!%%\{)", lambda old, rng: f'%%{{init: {{"theme": "neutral", "themeVariables": {_larger(rng)}}}}}%%\n')
    ],
}
# language -> what says how some things are arranged
LAYOUT = {
    "python": [
        (r"(?<=loc=)[\"'](?:upper|lower|best|center)[\w ]*[\"']", lambda old, rng: repr(_other(old, LEGEND, rng))),
        (
            r"\bbarh?(?=\((?![^\n]*\b(?:height|width|bottom|left)=))",
            lambda old, rng: "bar" if old == "barh" else "barh",
        ),
        (r"\bset_aspect\([^()]*\)", lambda old, rng: "set_aspect('auto')"),
        (r"(?<=tight_layout)\(\)", lambda old, rng: "(pad=4)"),
        (r"(?m)^(?=plt\.show\(\))", lambda old, rng: f"plt.gca().{AXES[rng.integers(len(AXES))]}\n"),
    ],
    "svg": [
        (r"(?<=text-anchor=[\"'])\w+", lambda old, rng: _other(old, ("start", "middle", "end"), rng)),
        (r"(?<=<g)(?=[\s>])", lambda old, rng: f' transform="scale({rng.choice([0.85, 0.9, 1.15])})"'),
    ],
    "html": [
        (r"(?<=flex-direction:)\s*\w+(?=[;\"'}])", lambda old, rng: " column" if "row" in old else " row"),
        (r"(?<=text-align:)\s*\w+", lambda old, rng: f" {_other(old.strip(), ('left', 'center', 'right'), rng)}"),
        (r"(?<=justify-content:)\s*[\w-]+", lambda old, rng: f" {_other(old.strip(), JUSTIFY, rng)}"),
        (r"(?<=display:)\s*(?:flex|grid)", lambda old, rng: f" inline-{old.strip()}"),
    ],
    "latex": [
        (r"(?<=[\[,])\s*(?:above|below|left|right)(?=\s*[,=\]])", lambda old, rng: _other(old.strip(), SIDES, rng))
    ],
    "mermaid": [(r"(?<=graph )(?:TD|TB|LR|RL|BT)|(?<=flowchart )(?:TD|TB|LR|RL|BT)", lambda old, rng: _turned(old))],
}
PARAMETERS = (
    "'figure.figsize': (7.2, 4.9), 'figure.facecolor': '#f0f0f0'",
    "'figure.figsize': (6, 5.1), 'axes.facecolor': 'whitesmoke'",
    "'figure.figsize': (7, 5), 'font.size': 12",
)
AXES = ("invert_yaxis()", "invert_xaxis()", "set_axis_off()")
LEGEND = ("upper left", "upper right", "lower left", "lower right", "center")
JUSTIFY = ("flex-start", "center", "flex-end", "space-between")
SIDES = ("above", "below", "left", "right")
# language -> elements of which two neighbours can change places
ORDER = {
    "python": r"(?m)^[ \t]*\w+\.(?:bar|barh|plot|scatter|text|annotate|fill\w*|set_\w+)\(.*\)[ \t]*\n",
    "svg": r"<(?:rect|circle|ellipse|line|poly\w+|path)\b[^<>]*/>|<text\b[^<>]*>[^<>]*</text>",
    "html": r"<(p|h\d|li|button|a|td|div|span)\b[^<>]*>[^<>]*\w[^<>]*</\1>",
    "latex": r"(?m)^[ \t]*\\(?:draw|node|fill|filldraw|addplot)\b.*;[ \t]*\n",
    "mermaid": r"(?m)^.*(?:--|==|->>|-\.).*\n",
}
# language -> what has to stay for a program to run: the call that draws, names that others use
NEEDED = {
    "python": r"(?m:^.*render-(?:image|output).*\n)"
    r"|(?m:^.*(?:ToFile|ToImage|MolTo\w*|AndDraw\w*|\.figure|subplots?|Compute2DCoords|\.layout)\(.*\n)",
    "latex": r"(?m:^.*(?:node|coordinate)\s*(?:\[[^\]\n]*\]\s*)?\(\w.*\n|^[^;\n]*\\foreach.*\n"
    r"|^.*name path.*\n)",
}
# language -> where other words or numbers would end the program: subscripts, shapes, edges in order, words of an
# interface, parts of a colour
FRAGILE = {
    "python": r"(?<=[\w\])])\[[^\[\]\n]*\]|\b(?:zeros|ones|empty|full)\([^\n]*|\bshape\b[^\n]*"
    r"|\b(?:bins|levels|boundaries|connect)\s*=\s*[\[(][^\])]*[\])]|(?i:colou?r)\w*\s*[=(]\s*[(\[][\d.,\s]*[)\]]"
    rf"|render-[\w-]*color[^\n]*|subplots_adjust\([\d., ]*\)|figsize=\([^)]*\)|(?:{SIZES})[^)]*\)"
    r"|\b(?:[vh]a|\w*coords|\w+alignment|\w+_type|\w*style|marker|transform|which|axis)\s*=\s*[\"'][^\"'\n]*[\"']",
    "latex": r"\b\w+/\.style\s*(?:\d+ args)?|label=\{\[[^\]]*\]|(?<!circle)(?<!circle )\([\w.]+\)"
    r"|\\foreach[^{\n]*\{[^{}]*\}|\{\{[\d, ]*\}\}",
    "mermaid": r"(?m:^.*\d{4}-\d\d-\d\d.*$|^.*\bafter\b.*$|^\s*\w+Format\b.*$)",
}
ELEMENT = r"(?m)^ {2,}(?!end\b|subgraph\b)\S.*\n|^(?!title\b).*:\s*\d.*\n"  # of diagrams without arrows
VALUES = r"(?<=\[)\s*-?\d+(?:\.\d+)?(?:\s*,\s*-?\d+(?:\.\d+)?){2,}\s*(?=\])"  # of a chart's series
KINDS = ("number", "colour", "label", "drop", "smiles", "order", "layout", "style")


def _other(old: str, options: Sequence[str], rng: np.random.Generator) -> str:
    left = [option for option in options if option != old.strip("\"'")]
    return left[rng.integers(len(left))]


def _turned(old: str) -> str:
    return {"TD": "BT", "TB": "BT", "BT": "TD", "LR": "RL", "RL": "LR"}[old]  # the shape stays


def _resized(old: str, rng: np.random.Generator) -> str:
    before, size = re.fullmatch(r"(\D*)(\d+)", old).groups()
    return f"{before}{round(int(size) * rng.choice([0.84, 0.9, 1.12, 1.18]))}"


def _shifted(box: str, rng: np.random.Generator) -> str:
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", box)]
    if len(numbers) != 4:
        return box
    x, y, width, height = numbers
    right, down = rng.permutation([0.012, 0.006]) * rng.choice([-1, 1], 2)
    grow = rng.choice([0.97, 0.985, 1.02])
    return f"{x + right * width:g} {y + down * height:g} {width * grow:g} {height * grow:g}"


def _larger(rng: np.random.Generator) -> str:
    return f'{{"fontSize": "{rng.choice([14, 16, 18])}px"}}'


def _stretched(rng: np.random.Generator) -> str:
    stretch, size = rng.choice([0.8, 0.87, 1.15]), rng.choice([0.85, 1.15, 1.25])
    return f"{rng.choice(['xscale', 'yscale'])}={stretch}, every node/.append style={{scale={size}}}"


def _places(code: str, language: str) -> dict[str, list]:
    """kind -> where it can be put: spans of the code, with what the kind needs besides."""
    fragile = FRAGILE.get(language)
    needed = "|".join(filter(None, (NEEDED.get(language), fragile)))
    if language == "latex" and code.count("\\addplot") == 1:  # an axis without a plot has no range
        needed += r"|(?m:^.*\\addplot.*\n)"
    flaws = LANGUAGES[language].flaws
    found = {kind: spans(code, language, *where, unseen=fragile) for kind, where in flaws.items()}
    found["drop"] = spans(code, language, *flaws["drop"], unseen=needed) if "drop" in flaws else []
    if language == "mermaid":
        found["drop"] += spans(code, language, "", ELEMENT, unseen=needed)
    if len(found["drop"]) < {"python": 2, "svg": 3}.get(language, 0):  # one of few may be all that is drawn
        del found["drop"]
    found["colour"] = spans(code, language, "", COLOUR)
    elements = spans(code, language, "", ORDER[language], unseen=needed) if language in ORDER else []
    pairs = [(a, b) for a, b in zip(elements, elements[1:], strict=False) if code[slice(*a)] != code[slice(*b)]]
    if language in ("python", "latex"):  # nothing between them that one could need
        pairs = [(a, b) for a, b in pairs if a[1] == b[0]]
    found["order"] = [(a[0], b[1], a, b) for a, b in pairs]
    if language == "python":
        found["order"] += [(*place, None, None) for place in spans(code, language, "", VALUES, unseen=fragile)]
    for kind, changes in (("layout", LAYOUT.get(language, ())), ("style", STYLE.get(language, ()))):
        found[kind] = [(*hit.span(), change) for pattern, change in changes for hit in re.finditer(pattern, code)]
    return {kind: where for kind, where in found.items() if where}


def _changed(code: str, kind: str, place: tuple, rng: np.random.Generator) -> str:
    start, end = place[:2]
    old = code[start:end]
    if kind == "order":
        if place[2] is None:  # a series of values
            values = old.split(",")
            new = ",".join(values[i] for i in rng.permutation(len(values)))
        else:
            (a, b), (c, d) = place[2:]
            new = code[c:d] + code[b:c] + code[a:b]
    elif kind in ("layout", "style"):
        new = place[2](old, rng)
    elif kind == "colour":
        new = replacement(old, kind, rng)
        while new == old:
            new = COLOURS[rng.integers(len(COLOURS))]
    else:
        new = replacement(old, kind, rng)
    return code[:start] + new + code[end:]


def flawed(
    code: str, language: str, rng: np.random.Generator, right: str | None = None, kinds: Sequence[str] = KINDS
) -> tuple[str, str]:
    """(`code` with one more flaw, its kind), or (code, "") where nothing can be changed that still parses. It does not
    become `right`, the program without flaws (`code` if not given): two flaws can undo each other."""
    places = _places(code, language)
    for kind in rng.permutation(sorted(places.keys() & set(kinds)) * 3).tolist():
        edited = _changed(code, kind, places[kind][rng.integers(len(places[kind]))], rng)
        if edited not in (code, right or code) and well_formed(edited, language):
            return edited, kind
    return code, ""


@dataclass
class Draft:
    """A sample's draft in the making. state: "open", "kept", or why there is none.

    programs: with 0, 1, 2 .. flaws, each one more than the last. Of those that were drawn, [low] is too alike and
    [high], if there is one, is too far or breaks; what is asked for is between them, or further on."""

    code: str
    language: str
    rng: np.random.Generator
    programs: list[tuple[str, str]] = field(default_factory=list)  # (text, kind of the last flaw)
    low: int = 0
    high: int | None = None
    at: int = 0  # the one that was proposed
    visual: float = 0.0
    image: object = None
    tries: int = 0
    state: str = "open"

    @property
    def text(self) -> str:
        return self.programs[self.at][0]

    @property
    def kinds(self) -> list[str]:
        return [kind for _, kind in self.programs[1 : self.at + 1]]

    def propose(self) -> str | None:
        """The next program to try, None if there is nothing to change."""
        if self.high is not None:
            self.at = (self.low + self.high) // 2
        else:
            self._grow()
            if self.low == len(self.programs) - 1:
                self.state = "nothing to change"
                return None
            self.at = len(self.programs) - 1
        self.tries += 1
        return self.text

    def _grow(self) -> None:
        """As many flaws more as are likely to be seen, or one where the last one went too far. Beneath the first that
        may well not be seen there goes one of the whole picture's; in the place of a first one too far, that one."""
        if not self.programs or self.low >= MOST:
            self.programs, self.low, self.at = [(self.code, "")], 0, 0
        odds, alike, went_too_far = ALIKE.get(self.language, {}), 1.0, self.at > self.low
        while alike > ENOUGH and len(self.programs) <= MOST:
            text, kind = self._flawed("style") if went_too_far and self.tries == 1 else ("", "")
            if not kind:
                text, kind = self._flawed(*KINDS)
            if not kind:
                break
            alike *= 0.0 if went_too_far else odds.get(kind, 1.0 if kind == "label" else 0.5)
            if alike > ENOUGH and all(kind != "style" for _, kind in self.programs):
                styled, style = self._flawed("style")
                if style:
                    self.programs.append((styled, style))
                    alike *= odds[style]
                    text, kind = self._flawed(kind)
            if kind:
                self.programs.append((text, kind))

    def _flawed(self, *kinds: str) -> tuple[str, str]:
        return flawed(self.programs[-1][0], self.language, self.rng, self.code, kinds)

    def judge(self, rendering, visual: float, band: tuple[float, float], counts: Counter) -> None:
        """Keep it, or note on which side of the band it is. visual: score of `rendering` against the target."""
        drawn = rendering.image is not None
        outcome = "too alike" if drawn else "failed"
        if drawn and band[0] <= visual <= band[1]:
            outcome = "in the band"
        outcome = "too far" if drawn and visual < band[0] else outcome
        counts[self.language, "first" if self.tries == 1 else "later", outcome] += 1
        if outcome == "in the band":
            self.visual, self.image, self.state = visual, rendering.image, "kept"
            return
        if self.tries >= TRIES:
            self.state = "no draft in the band"
        if outcome == "too alike":
            self.low = self.at
        else:
            self.high = self.at
        if self.high == self.low + 1:  # one flaw leads across the band: another in its place
            del self.programs[self.high :]
            self.high = None
