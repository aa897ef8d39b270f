"""Seeded flaws in a program, such as a model could have made: drafts to refine, errors to audit the reward with.

`mutate` puts one to three of them into a program, which still parses; `spans` finds where they can go.
"""

import ast
import re
import xml.etree.ElementTree as ElementTree

import numpy as np

COLOURS = ("red", "blue", "green", "orange", "purple", "black", "gray", "teal", "brown", "pink", "yellow", "cyan")
COLOUR = (
    rf"(?<!url\()(?<!href=[\"'])(?<![\w)\]])#(?:[\da-fA-F]{{6}}|[\da-fA-F]{{3}})\b"  # C#CCC is a molecule
    rf"|(?<![\w#.\\/-])(?:{'|'.join(COLOURS)})(?![\w-])"
)
WORD = r"(?<![\\&%\w{])[A-Za-z]{3,}"
SVG_GEOMETRY = r"\b(?:c?[xy][12]?|r[xy]?|width|height|d|points|transform|font-size)\s*=\s*[\"']([^\"']*)"
TEX_BODY = r"(?s)\\begin\{document\}(.*)|(\A(?!.*\\begin\{document\}).*)"
TEX_LABEL = (
    r"(?:node\s*(?:\[[^\]]*\]\s*)?(?:\([^)]*\)\s*)?(?:at\s*\([^)]*\)\s*)?|label\s*=\s*|title\s*=\s*)\{([^{}]+)\}"
)
# language -> what is left alone, then kind of flaw -> (where to look: group of a match, or anywhere; what to change)
UNSEEN = {
    "python": r"(?m)\A(?:#.*\n|\s)*(?s:(\"\"\"|''').*?\1)|#(?![\da-fA-F]{3,6}\b).*$"
    r"|(?:subplots?|reshape|range|GridSpec|seed|default_rng)\([^)]*\)",
    "svg": r"(?s)<!--.*?-->|<(?:defs|title|metadata)\b.*?</(?:defs|title|metadata)>",
    "html": r"(?s)<!--.*?-->|<(?:title|script)\b.*?</(?:title|script)>",
    "latex": r"(?m)(?<!\\)%.*$",
    "mermaid": r"(?m)%%.*$",
}
FLAWS = {
    "python": {
        "number": ("", r"(?<=[\s(,=\[*/+-])\d+(?:\.\d+)?(?=[\s),\]*/+-])"),
        "drop": ("", r"(?m)^[ \t]*\w+\.(?!show|save|close|use|add_|Write|Finish|Draw)\w+\(.*\)[ \t]*\n"),
        "label": (r"(?:title|label|text|annotate|legend)\w*\s*[(=][^)\n]*?[\"']([^\"'\n]+)", WORD),
        "smiles": (r"(?i)(?:FromSmiles\(|loadMolecule\(|smi\w*\s*=)\s*r?[\"']([^\"'\n]+)", r".+"),
    },
    "svg": {
        "number": (SVG_GEOMETRY, r"(?<![\d.#])(?:\d+\.\d+|[2-9]|\d{2,})(?![\d.])"),  # 0 and 1 may be flags of an arc
        "drop": ("", r"<(?:rect|circle|ellipse|line|poly\w+|path)\b[^<>]*/>|<text\b[^<>]*>[^<>]*</text>"),
        "label": (r"<(?:text|tspan)\b[^<>]*>([^<>]+)<", WORD),
    },
    "html": {
        "number": ("", r"(?<![\w#.])\d+(?:\.\d+)?(?=px|em|rem|%|vh|vw|pt)"),
        "drop": ("", r"<(p|h\d|li|button|a|span|td|div|label)\b[^<>]*>[^<>]*\w[^<>]*</\1>|<img\b[^<>]*>"),
        "label": (r"<(?!style)\w+[^<>]*>([^<>{}]+)<", WORD),
    },
    "latex": {
        "number": (TEX_BODY, r"(?<=[(,=\s{-])\d+(?:\.\d+)?(?=[),;\spcme\]}])"),
        "drop": (TEX_BODY, r"(?m)^[ \t]*\\(?:draw|node|fill|filldraw|addplot|path|shade)\b.*;[ \t]*\n"),
        "label": (TEX_LABEL, WORD),
    },
    "mermaid": {
        "number": ("", r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])"),
        "drop": ("", r"(?m)^.*(?:--|==|->>|-\.).*\n"),
        "label": (r"[\[({|\"]([^\[\](){}|\"<>]+)[\])}|\"]|:([^\n]+)", WORD),
    },
}


def spans(code: str, language: str, region: str, pattern: str, unseen: str | None = None) -> list[tuple[int, int]]:
    """Where `pattern` is found inside the last group of `region` ("": anywhere), as character spans, region by region.
    What nobody sees in that language is left out, and what `unseen` matches."""
    hidden = f"{UNSEEN[language]}|{unseen}" if unseen else UNSEEN[language]
    hidden = [hit.span() for hit in re.finditer(hidden, code)]
    places = [hit.span(hit.lastindex) for hit in re.finditer(region, code)] if region else [(0, len(code))]
    hits = (hit for start, end in places for hit in re.compile(pattern).finditer(code, start, end))
    return [hit.span() for hit in hits if hit[0] and not any(start <= hit.start() < end for start, end in hidden)]


def _other_molecules(smiles: str) -> list[str]:
    """The molecule with another atom of the same valence, or with one carbon more where a valence is free."""
    bare = re.sub(r"\[.*?\]", lambda hit: "." * len(hit[0]), smiles)  # bracket atoms are left alone
    swap = {"Cl": "Br", "Br": "Cl", "F": "Cl", "O": "S"}
    swaps = [(*hit.span(), swap[hit[0]]) for hit in re.finditer(r"Cl|Br|F|(?<!=)O(?!s)", bare)]
    longer = [(*hit.span(), "CC") for hit in re.finditer(r"C(?=C(?!l))", bare)]
    first = [(0, 0, "C")] * bool(re.match(r"C(?![l(=#])|c1|[NO][Cc]", bare))
    last = [(len(bare), len(bare), "C")] * bool(re.search(r"(?<![=#])[CNO]$", bare))
    return [smiles[:start] + new + smiles[end:] for start, end, new in swaps + longer + first + last]


def _flaw(old: str, kind: str, rng: np.random.Generator) -> str:
    """What stands in the place of `old` in the flawed program."""
    if kind == "number":
        decimals, value = len(old.partition(".")[2]), float(old) * rng.choice([0.4, 0.6, 1.5, 2.0])
        return f"{value if round(value, decimals) not in (0, float(old)) else float(old) + 1:.{decimals}f}"
    if kind == "colour":
        return f"#{rng.integers(1 << 24):06x}" if old.startswith("#") else COLOURS[rng.integers(len(COLOURS))]
    if kind == "label":
        at = rng.integers(len(old) - 1)
        return old[:at] + old[at + 1] + old[at] + old[at + 2 :]
    if kind == "smiles":
        changed = _other_molecules(old)
        return changed[rng.integers(len(changed))] if changed else old
    return ""  # drop


def _well_formed(code: str, language: str) -> bool:
    try:
        if language == "python":
            ast.parse(code)
        elif language == "svg":
            ElementTree.fromstring(code.encode())
    except (SyntaxError, ValueError, RecursionError):  # ElementTree.ParseError is a SyntaxError
        return False
    return True


def mutate(code: str, language: str, rng: np.random.Generator) -> str:
    """`code` with one to three seeded flaws a model could have made: a number, a colour, a label, something left out.

    Python still parses and svg stays well-formed. Raises ValueError where nothing can be changed.
    """
    if not _well_formed(code, language):
        raise ValueError(f"cannot mutate this {language} program: it does not parse")
    flawed = code
    for _ in range(rng.integers(1, 4)):
        kinds = FLAWS[language] | {"colour": ("", COLOUR)}
        places = {kind: found for kind, where in kinds.items() if (found := spans(flawed, language, *where))}
        for kind in rng.permutation(sorted(places) * 4):  # some changes break the syntax: try others
            start, end = places[kind][rng.integers(len(places[kind]))]
            edited = flawed[:start] + _flaw(flawed[start:end], kind, rng) + flawed[end:]
            if edited not in (code, flawed) and _well_formed(edited, language):
                flawed = edited
                break
    if flawed == code:
        raise ValueError(f"cannot mutate this {language} program: it has no number, colour, label or element to change")
    return flawed
