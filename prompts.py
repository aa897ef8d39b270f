"""The words around a picture: languages, fences, prompts, and flawed drafts to refine. Text in, text out."""

import ast
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict

import numpy as np

# ----------------------------------------------------------------------------------------------------------- languages

LANGUAGES = {  # and the words that name them in a prompt
    "python": r"python3?|py|matplotlib|seaborn|plotly|pyplot|rdkit",
    "svg": r"svg|scalable vector graphics?",
    "html": r"html5?|htm|css",
    "latex": r"latex|tex|tikz|tikzpicture|pgfplots",
    "mermaid": r"mermaid|mmd",
}
ALIASES = {"py": "python", "python3": "python", "tikz": "latex", "tex": "latex", "htm": "html", "mmd": "mermaid"}
NAMED = "|".join(f"(?P<{language}>{words})" for language, words in LANGUAGES.items())
ASKED = re.compile(
    r"(?P<verb>\b(?:write|create|generate|produce|give|output|return|answer|into)\s+(?:\w+\s+){0,3}?)?"
    rf"(?P<in>\b(?:in|to|as|using|with)\s+(?:an?\s+|the\s+)?)?(?P<fence>`{{3,}})?(?<![\w.])(?:{NAMED})\b"
    r"(?P<code>[ -](?:\w+[ -])?(?:code|program|script|source|markup|document|snippet))?"
)
REFUSED = re.compile(
    r"\b(?:not|no|never|without|avoid|instead of|rather than|don't|other than)\s+(?:\w+\s+){0,3}?"
    rf"(?:{'|'.join(LANGUAGES.values())})\b"
)
FENCED = re.compile(r"(?ms)^ {0,3}(`{3,})[^`\n]*\n.*?^ {0,3}\1\s*$")


def mentions(text: str) -> list[tuple[int, str]]:
    """(strength, language) of every mention: `svg code` says more than `write svg`, than `in svg`, than `svg`."""
    hits = [(hit, hit.groupdict()) for hit in ASKED.finditer(text)]
    strengths = [3 if g["code"] or g["fence"] else 2 if g["verb"] else 1 if g["in"] else 0 for _, g in hits]
    return [(s, next(name for name in LANGUAGES if g[name])) for s, (_, g) in zip(strengths, hits, strict=True)]


def language_of(prompt: str) -> str:
    """The language a prompt asks for, which need not be the first it mentions ("python code that draws this svg").

    Fenced code and parentheses are ignored, so are negated mentions. Raises ValueError if no language is named.
    """
    words = FENCED.sub("", prompt.replace("\r\n", "\n")).lower()
    plain = re.sub(r"\([^()]*\)", "", words)
    for text in (REFUSED.sub("", plain), REFUSED.sub("", words), words):
        if found := mentions(text):
            return max(found, key=lambda mention: mention[0])[1]  # the first of the strongest
    raise ValueError(f"the prompt names no language; say one of {', '.join(LANGUAGES)} in it, or add a language column")


def domain_of(language: str, code: str | None) -> str:
    """The domain of a program; python is a chart unless it imports a chemistry toolkit."""
    chemistry = language == "python" and re.search(r"(?m)^\s*(?:from|import)\s+(?:rdkit|indigo)", code or "")
    return "molecule" if chemistry else {"python": "chart"}.get(language, language)


# --------------------------------------------------------------------------------------------------- fences and prompts


def blocks(text: str) -> list[tuple[str, str]]:
    """(tag, content) of every closed, non-empty fenced block that lies in no other, in order.

    Fences are lines of their own as in CommonMark, so backticks inside a string end nothing. A tagged fence inside a
    block opens a nested one: documentation strings with examples survive. An unclosed block does not hide later ones.
    """
    lines, opened, found = text.replace("\r\n", "\n").split("\n"), [], []
    for number, line in enumerate(lines):
        pattern = r" {0,3}(`{3,})\s*([\w+-]*)\s*" if opened else r"(?:.*\s)?(`{3,})[ \t]*([\w+-]*)[^`]*"
        if not (fence := re.fullmatch(pattern, line)):
            continue
        ticks, tag = len(fence[1]), fence[2].lower()
        if opened and ticks < opened[-1][0]:
            continue  # shorter than the fence around it: content
        if tag or not opened:
            opened.append((ticks, ALIASES.get(tag, tag), number))
        else:
            _, tag, start = opened.pop()
            found = [block for block in found if block[1] < start] + [(tag, start, number)]
    contents = [(tag, "\n".join(lines[start + 1 : end])) for tag, start, end in found]
    return [(tag, code) for tag, code in contents if code.strip()]


def extract_code(text: str, language: str) -> str | None:
    """The content of the last fenced block tagged with `language` or an alias of it; None if there is none."""
    codes = [code for tag, code in blocks(text) if tag == language]
    return codes[-1] if codes else None


def fenced(code: str, language: str) -> str:
    longest = max(map(len, re.findall(r"(?m)^ {0,3}(`{3,})", code)), default=2)
    ticks = "`" * (longest + 1)  # three, or more than any line of the code begins with
    return f"{ticks}{language}\n{code}\n{ticks}"


CODE = {"molecule": "Python code", "svg": "SVG code", "html": "HTML code", "latex": "LaTeX TikZ code"}
CODE |= {"chart": "Python matplotlib code", "python": "Python code", "mermaid": "Mermaid code"}
THING = {"chart": "chart", "molecule": "molecule drawing", "html": "web page", "latex": "figure", "mermaid": "diagram"}
DIRECT = (
    "Write {code} that reproduces this {thing}.",
    "Look at this {thing} and write the {code} that draws it.",
    "Give me {code} whose result looks just like this {thing}.",
    "Create {code} that renders to the same {thing}.",
    "Turn this {thing} into {code}, as close as you can.",
    "Which {code} draws this {thing}? Answer with the code alone.",
)
REFINE = (
    "This {code} should draw the picture but has mistakes. Write the corrected {code}.",
    "Fix this {code} so that it draws the picture exactly.",
    "The {code} below does not match the picture. Give me {code} that does.",
    "Compare the picture with this {code} and write improved {code}.",
)


def direct_prompt(language: str, domain: str, rng: np.random.Generator) -> str:
    """One of several natural phrasings that ask for `language` and name it."""
    code = CODE[domain if language == "python" and domain in ("chart", "molecule") else language]
    return DIRECT[rng.integers(len(DIRECT))].format(code=code, thing=THING.get(domain, "picture"))


def refine_prompt(language: str, draft: str, rng: np.random.Generator | None = None) -> str:
    """One of several phrasings that ask to correct `draft`, which follows in a fence; the first one without `rng`."""
    phrasing = REFINE[rng.integers(len(REFINE)) if rng is not None else 0]
    return phrasing.format(code=CODE[language]) + "\n\n" + fenced(draft, language)


# ------------------------------------------------------------------------------------------------------- flawed drafts

COLOURS = ("red", "blue", "green", "orange", "purple", "black", "gray", "teal", "brown", "pink", "yellow", "cyan")
COLOUR = (
    rf"(?<!url\()(?<!href=[\"'])#(?:[\da-fA-F]{{6}}|[\da-fA-F]{{3}})\b|(?<![\w#.\\/-])(?:{'|'.join(COLOURS)})(?![\w-])"
)
WORD = r"(?<![\\&%\w{])[A-Za-z]{3,}"
SVG_GEOMETRY = r"\b(?:c?[xy][12]?|r[xy]?|width|height|d|points|transform|font-size)\s*=\s*[\"']([^\"']*)"
TEX_BODY = r"(?s)\\begin\{document\}(.*)|(\A(?!.*\\begin\{document\}).*)"
TEX_LABEL = (
    r"(?:node\s*(?:\[[^\]]*\]\s*)?(?:\([^)]*\)\s*)?(?:at\s*\([^)]*\)\s*)?|label\s*=\s*|title\s*=\s*)\{([^{}]+)\}"
)
# language -> what is left alone, then kind of flaw -> (where to look: group of a match, or anywhere; what to change)
UNSEEN = {
    "python": r"(?m)#(?![\da-fA-F]{3,6}\b).*$|(?:subplots?|reshape|range|GridSpec|seed|default_rng)\([^)]*\)",
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


def flaw_spans(code: str, language: str) -> dict[str, list[tuple[int, int]]]:
    """Where a flaw of each kind can go, as character spans; kinds without any are left out."""
    unseen = [hit.span() for hit in re.finditer(UNSEEN[language], code)]
    spans = defaultdict(list)
    for kind, (region, pattern) in (FLAWS[language] | {"colour": ("", COLOUR)}).items():
        places = [hit.span(hit.lastindex) for hit in re.finditer(region, code)] if region else [(0, len(code))]
        for hit in (hit for start, end in places for hit in re.compile(pattern).finditer(code, start, end)):
            if hit[0] and not any(start <= hit.start() < end for start, end in unseen):
                spans[kind].append(hit.span())
    return spans


def flaw(old: str, kind: str, rng: np.random.Generator) -> str:
    """What stands in the place of `old` in the flawed program."""
    if kind == "number":
        decimals, value = len(old.partition(".")[2]), float(old) * rng.choice([0.4, 0.6, 1.5, 2.0])
        return f"{value if round(value, decimals) not in (0, float(old)) else float(old) + 1:.{decimals}f}"
    if kind == "colour":
        return f"#{rng.integers(1 << 24):06x}" if old.startswith("#") else COLOURS[rng.integers(len(COLOURS))]
    if kind == "label":
        at = rng.integers(len(old) - 1)
        return old[:at] + old[at + 1] + old[at] + old[at + 2 :]
    if kind == "smiles":  # another atom of the same valence, or one carbon more
        swap = {"Cl": "Br", "Br": "Cl", "F": "Cl", "O": "S"}
        hits = list(re.finditer(r"Cl|Br|F|O(?!s)", re.sub(r"\[.*?\]", lambda hit: "." * len(hit[0]), old)))
        hit = hits[rng.integers(len(hits))] if hits else None
        return old[: hit.start()] + swap[hit[0]] + old[hit.end() :] if hit else old + "C"
    return ""  # drop


def well_formed(code: str, language: str) -> bool:
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
    if not well_formed(code, language):
        raise ValueError(f"cannot mutate this {language} program: it does not parse")
    flawed = code
    for _ in range(rng.integers(1, 4)):
        spans = flaw_spans(flawed, language)
        for kind in rng.permutation(sorted(spans) * 4):  # some changes break the syntax: try others
            start, end = spans[kind][rng.integers(len(spans[kind]))]
            edited = flawed[:start] + flaw(flawed[start:end], kind, rng) + flawed[end:]
            if edited not in (code, flawed) and well_formed(edited, language):
                flawed = edited
                break
    if flawed == code:
        raise ValueError(f"cannot mutate this {language} program: it has no number, colour, label or element to change")
    return flawed
