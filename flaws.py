"""Seeded flaws in a program, such as a model could have made: drafts to refine, errors to audit the reward with.

`mutate` puts one to three of them into a program, which still parses; `spans` finds where they can go. Where flaws of
a kind can be is said by each language (`languages.Language.flaws`).
"""

import re

import numpy as np

from languages import LANGUAGES

COLOURS = ("red", "blue", "green", "orange", "purple", "black", "gray", "teal", "brown", "pink", "yellow", "cyan")
COLOUR = (
    rf"(?<!url\()(?<!href=[\"'])(?<![\w)\]])#(?:[\da-fA-F]{{6}}|[\da-fA-F]{{3}})\b"  # C#CCC is a molecule
    rf"|(?<![\w#.\\/-])(?:{'|'.join(COLOURS)})(?![\w-])"
)


def spans(code: str, language: str, region: str, pattern: str, unseen: str | None = None) -> list[tuple[int, int]]:
    """Where `pattern` is found inside the last group of `region` ("": anywhere), as character spans, region by region.
    What nobody sees in that language is left out, and what `unseen` matches."""
    hidden = "|".join(filter(None, (LANGUAGES[language].unseen, unseen)))
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


def replacement(old: str, kind: str, rng: np.random.Generator) -> str:
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


def well_formed(code: str, language: str) -> bool:
    """Whether a program parses, as far as its language can tell without running it."""
    parse = LANGUAGES[language].parse
    try:
        if parse:
            parse(code)
    except (SyntaxError, ValueError, RecursionError):  # ElementTree.ParseError is a SyntaxError
        return False
    return True


def mutate(code: str, language: str, rng: np.random.Generator) -> str:
    """`code` with one to three seeded flaws a model could have made: a number, a colour, a label, something left out.

    It still parses, if its language can tell. Raises ValueError where nothing can be changed.
    """
    if not well_formed(code, language):
        raise ValueError(f"cannot mutate this {language} program: it does not parse")
    flawed = code
    for _ in range(rng.integers(1, 4)):
        kinds = LANGUAGES[language].flaws | {"colour": ("", COLOUR)}
        places = {kind: found for kind, where in kinds.items() if (found := spans(flawed, language, *where))}
        for kind in rng.permutation(sorted(places) * 4):  # some changes break the syntax: try others
            start, end = places[kind][rng.integers(len(places[kind]))]
            edited = flawed[:start] + replacement(flawed[start:end], kind, rng) + flawed[end:]
            if edited not in (code, flawed) and well_formed(edited, language):
                flawed = edited
                break
    if flawed == code:
        raise ValueError(f"cannot mutate this {language} program: it has no number, colour, label or element to change")
    return flawed
