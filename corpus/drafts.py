"""Drafts for refinement: flawed programs that still draw something, and something visibly else than the target.

A draft is made by seeded flaws (`corpus/flaws.py`, and the kinds below). One whose picture is too much like the target
gets another flaw; one that does not render, or is too far off, starts again from the right program.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from corpus.flaws import COLOUR, COLOURS, FLAWS, _flaw, _well_formed, spans
from prompts import LANGUAGES

BAND = (0.3, 0.97)  # visual score of a draft's picture against the target
TRIES = 10
# language -> what says how things are arranged: where to look, and what stands there instead
LAYOUT = {
    "python": [
        (r"(?<=figsize=\()\s*\d+(?:\.\d+)?", lambda old, rng: f"{float(old) * rng.choice([0.7, 1.4]):.1f}"),
        (r"(?<=loc=)[\"'](?:upper|lower|best|center)[\w ]*[\"']", lambda old, rng: repr(_other(old, LEGEND, rng))),
        (r"\bbarh?(?=\((?![^\n]*\b(?:height|width)=))", lambda old, rng: "bar" if old == "barh" else "barh"),
        (r"\bset_aspect\([^()]*\)", lambda old, rng: "set_aspect('auto')"),
        (r"(?<=tight_layout)\(\)", lambda old, rng: "(pad=4)"),
    ],
    "svg": [
        (r"(?<=viewBox=[\"'])[^\"']+", lambda old, rng: _shifted(old, rng)),
        (r"(?<=text-anchor=[\"'])\w+", lambda old, rng: _other(old, ("start", "middle", "end"), rng)),
        (r"(?<=<g)(?=[\s>])", lambda old, rng: f' transform="translate({rng.integers(5, 40)} {rng.integers(5, 40)})"'),
    ],
    "html": [
        (r"(?<=flex-direction:)\s*\w+(?=[;\"'}])", lambda old, rng: " column" if "row" in old else " row"),
        (r"(?<=text-align:)\s*\w+", lambda old, rng: f" {_other(old.strip(), ('left', 'center', 'right'), rng)}"),
        (r"(?<=justify-content:)\s*[\w-]+", lambda old, rng: f" {_other(old.strip(), JUSTIFY, rng)}"),
        (r"(?<=display:)\s*(?:flex|grid)", lambda old, rng: " block"),
        (r"(?<=<body)(?=>)", lambda old, rng: f' style="margin: {rng.integers(30, 90)}px"'),
    ],
    "latex": [
        (r"(?<=[\[,])\s*(?:above|below|left|right)(?=[\s,=\]])", lambda old, rng: _other(old.strip(), SIDES, rng)),
        (r"(?<=\\begin\{tikzpicture\})(?!\s*\[)", lambda old, rng: f"[xscale={rng.choice([0.6, 1.5])}]"),
        (r"(?<=\\begin\{tikzpicture\}\[)", lambda old, rng: f"xscale={rng.choice([0.6, 1.5])}, "),
    ],
    "mermaid": [(r"(?<=graph )(?:TD|TB|LR|RL|BT)|(?<=flowchart )(?:TD|TB|LR|RL|BT)", lambda old, rng: _turned(old))],
}
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
    "python": r"(?m:^.*(?:ToFile|ToImage|MolTo\w*|\.figure|subplots?|Compute2DCoords)\(.*\n)",
    "latex": r"(?m:^.*(?:node|coordinate)\s*(?:\[[^\]\n]*\]\s*)?\([A-Za-z].*\n|^[^;\n]*\\foreach.*\n)",
}
VALUES = r"(?<=\[)\s*-?\d+(?:\.\d+)?(?:\s*,\s*-?\d+(?:\.\d+)?){2,}\s*(?=\])"  # of a chart's series
KINDS = ("number", "colour", "label", "drop", "smiles", "order", "layout")


def _other(old: str, options: Sequence[str], rng: np.random.Generator) -> str:
    left = [option for option in options if option != old.strip("\"'")]
    return left[rng.integers(len(left))]


def _turned(old: str) -> str:
    return "LR" if old in ("TD", "TB", "BT") else "TD"


def _shifted(box: str, rng: np.random.Generator) -> str:
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", box)]
    if len(numbers) != 4:
        return box
    x, y, width, height = numbers
    grow = rng.choice([0.8, 1.25])
    return f"{x + 0.1 * width * rng.choice([-1, 1]):g} {y:g} {width * grow:g} {height * grow:g}"


def _places(code: str, language: str) -> dict[str, list]:
    """kind -> where it can be put: spans of the code, with what the kind needs besides."""
    needed = NEEDED.get(language)
    found = {kind: spans(code, language, *where) for kind, where in FLAWS[language].items()}
    found["drop"] = spans(code, language, *FLAWS[language]["drop"], unseen=needed)
    if language == "python" and len(found["drop"]) < 2:  # the only call may be all that is drawn
        del found["drop"]
    found["colour"] = spans(code, language, "", COLOUR)
    elements = spans(code, language, "", ORDER[language], unseen=needed)
    pairs = [(a, b) for a, b in zip(elements, elements[1:], strict=False) if code[slice(*a)] != code[slice(*b)]]
    if language in ("python", "latex"):  # nothing between them that one could need
        pairs = [(a, b) for a, b in pairs if a[1] == b[0]]
    found["order"] = [(a[0], b[1], a, b) for a, b in pairs]
    if language == "python":
        found["order"] += [(*place, None, None) for place in spans(code, language, "", VALUES)]
    found["layout"] = []
    for pattern, change in LAYOUT[language]:
        hits = (hit.span() for hit in re.finditer(pattern, code))
        found["layout"] += [(*span, change) for span in hits]
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
    elif kind == "layout":
        new = place[2](old, rng)
    elif kind == "colour":
        new = _flaw(old, kind, rng)
        while new == old:
            new = COLOURS[rng.integers(len(COLOURS))]
    else:
        new = _flaw(old, kind, rng)
    return code[:start] + new + code[end:]


def flawed(
    code: str, language: str, rng: np.random.Generator, count: int = 1, right: str | None = None
) -> tuple[str, list[str]]:
    """(`code` with `count` flaws, their kinds). Fewer, or none, where nothing can be changed that still parses. It does
    not become `right`, the program without flaws (`code` if not given): two flaws can undo each other."""
    right, kinds = right or code, []
    for _ in range(count):
        places = _places(code, language)
        for kind in rng.permutation(sorted(places) * 3):
            edited = _changed(code, kind, places[kind][rng.integers(len(places[kind]))], rng)
            if edited not in (code, right) and _well_formed(edited, language):
                code = edited
                kinds.append(str(kind))
                break
    return code, kinds


@dataclass
class Draft:
    """A sample's draft in the making. state: "open", "kept", or why there is none."""

    code: str
    language: str
    rng: np.random.Generator
    text: str = ""
    kinds: list[str] = field(default_factory=list)
    visual: float = 0.0
    image: object = None
    tries: int = 0
    state: str = "open"

    def propose(self) -> str | None:
        """The next program to try, None if there is nothing to change."""
        base, kinds = (self.text, self.kinds) if self.kinds else (self.code, [])
        count = 1 if self.tries else int(self.rng.integers(1, 3))
        text, new = flawed(base, self.language, self.rng, count, self.code)
        if not new:
            self.state = "nothing to change"
            return None
        self.text, self.kinds, self.tries = text, [*kinds, *new], self.tries + 1
        return text

    def judge(self, rendering, visual: float, band: tuple[float, float], counts: Counter) -> None:
        """Keep it, go on from it, or start again. visual: score of `rendering` against the target, in [0, 1]."""
        drawn = rendering.image is not None
        outcome = "in the band" if drawn and band[0] <= visual <= band[1] else "too alike" if drawn else "failed"
        outcome = "too far" if drawn and visual < band[0] else outcome
        counts[self.language, "first" if self.tries == 1 else "later", outcome] += 1
        if outcome == "in the band":
            self.visual, self.image, self.state = visual, rendering.image, "kept"
        elif self.tries >= TRIES:
            self.state = "no draft in the band"
        elif outcome != "too alike" or len(self.kinds) > 6:
            self.kinds = []


assert set(LAYOUT) == set(ORDER) == set(LANGUAGES)
