"""Errors of a known, growing size made in a program: wrong words, numbers, data, font size. Code in, code out.

    programs("data", code, language)   # LEVELS programs, or None where the program has nothing of that kind to change

Level k + 1 holds the whole error of level k and more: the same words are wrong and some others, the same numbers are
off in the same directions and farther. Which words and which directions is a pure function of the program.
"""

import ast
import hashlib
import re

import numpy as np

from flaws import spans
from languages import LANGUAGES, WORD, latex

LEVELS = 5
SHARE = (0.1, 0.2, 0.4, 0.7, 1.0)  # of the words, or atoms, that are wrong
NOISE = (0.01, 0.02, 0.04, 0.08, 0.16)  # of a number, or of the range of a chart's data
FONT = (1.1, 1.25, 1.5, 1.8, 2.2)

# Chart methods, and which of the positional arguments holds the values that the eye reads off.
VALUES = {name: 1 for name in ("plot", "bar", "barh", "scatter", "errorbar", "stem", "step", "loglog", "fill_between")}
VALUES |= {name: 1 for name in ("semilogx", "semilogy", "hexbin", "polar", "hist2d")}
VALUES |= {"hist": 0, "pie": 0, "boxplot": 0, "imshow": 0, "matshow": 0, "spy": 0, "pcolormesh": 2, "tripcolor": 2}
WRONG_VALUES = """\
import numpy as _np
def _wrong(values):  # off by up to {size} of their range, each in a direction of its own; others pass unchanged
    if isinstance(values, list) and values and isinstance(values[0], _np.ndarray):
        return [_wrong(v) for v in values]
    v = _np.ma.asarray(values)
    if v.dtype.kind not in "iuf" or v.ndim == 0:
        return values
    directions = _np.random.RandomState(v.size % 65536).uniform(-1, 1, v.shape)
    off = v + {size} * (float(_np.ma.max(v) - _np.ma.min(v)) or abs(float(_np.ma.max(v)))) * directions
    return _np.ma.clip(off, 0, None) if _np.ma.min(v) >= 0 else off
"""
COORDINATES = r"\(\s*-?\d+(?:\.\d+)?\s*[,:]\s*-?\d+(?:\.\d+)?\s*\)|\d+(?:\.\d+)?(?=\s*(?:cm|mm)\b)"
LABELS = {name: one.flaws["label"] for name, one in LANGUAGES.items() if "label" in one.flaws}
# all that a page says, numbers too
LABELS["html"] = (r">([^<>{}]+)(?=<)", r"(?<![\\&#%\w{])(?:[A-Za-z]{2,}|\d{2,})")
LABELS["latex"] = (rf"{latex.LABEL}|\{{([^{{}}\\=]+)\}}\s*;", WORD)  # a node's text is the last thing of a path
NUMBERS = {  # language -> (region, number), as in Language.flaws
    "svg": LANGUAGES["svg"].flaws["number"],
    "html": LANGUAGES["html"].flaws["number"],
    "latex": (rf"({COORDINATES})", r"\d+(?:\.\d+)?"),
}
LIKE = {"C": "N", "N": "O", "O": "S", "S": "O", "F": "O", "Cl": "F", "Br": "F", "I": "F", "P": "N"}


def _seed(code: str) -> int:
    return int.from_bytes(hashlib.blake2b(code.encode(), digest_size=4).digest(), "big")


def _replace(code, changes: dict):
    """`code`, text or bytes, with what stands at each span of `changes` replaced."""
    for start, end in sorted(changes, reverse=True):
        code = code[:start] + changes[start, end] + code[end:]
    return code


def wrong_text(code: str, language: str, level: int) -> str | None:
    """10, 20, 40, 70, 100 % of the words of titles, labels and running text, and of a page's numbers, have their
    letters in another order, which leaves them as wide as before: nothing else moves."""
    fields = r"\{[^{}\n]*\}" if language == "python" else None  # of an f-string
    if language not in LABELS:
        return None
    words = sorted(set(spans(code, language, *LABELS[language], unseen=fields)))
    words = [(start, end) for start, end in words if len(set(code[start:end])) > 1]
    if len(words) < LEVELS:
        return None
    order = np.random.default_rng(_seed(code)).permutation(len(words))
    changes = {}
    for k in order[: max(level, round(SHARE[level - 1] * len(words)))]:
        word = code[slice(*words[k])]
        changes[words[k]] = word[::-1] if word[::-1] != word else word[1:] + word[0]
    return _replace(code, changes)


def wrong_data(code: str, language: str, level: int) -> str | None:
    """Numbers off by up to 1, 2, 4, 8, 16 %: a chart's values (of their range), coordinates, sizes. In a molecule, 10
    to 100 % of the atoms are of another element, in the same place."""
    if re.search(r"(?m)^\s*(?:from|import)\s+(?:rdkit|indigo)", code):
        return _wrong_atoms(code, level)
    if language == "python":
        return _wrong_values(code, level)
    if language not in NUMBERS:
        return None
    numbers = sorted(set(spans(code, language, *NUMBERS[language], unseen=r"@media[^{]*")))
    signs = np.random.default_rng(_seed(code)).choice([-1, 1], len(numbers)) if numbers else []
    changes = {}
    for span, sign in zip(numbers, signs, strict=True):
        old = code[slice(*span)]
        changes[span] = f"{float(old) * (1 + sign * NOISE[level - 1]):.4f}".rstrip("0").rstrip(".")
    return _replace(code, changes) if numbers else None


def _wrong_values(code: str, level: int) -> str | None:
    """The values that a chart's program hands to matplotlib, passed through a function that makes them wrong."""
    changes, lines = {}, [0]
    for line in code.splitlines(keepends=True):
        lines.append(lines[-1] + len(line.encode()))
    text = code.encode()
    for call in ast.walk(ast.parse(code)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in VALUES):
            continue
        values = [a for a in call.args if not isinstance(a, ast.Constant | ast.Starred)]
        if values:
            a = values[min(VALUES[call.func.attr], len(values) - 1)]
            span = lines[a.lineno - 1] + a.col_offset, lines[a.end_lineno - 1] + a.end_col_offset
            changes[span] = b"_wrong(" + text[slice(*span)] + b")"
    outer = {s: new for s, new in changes.items() if not any(o != s and o[0] <= s[0] and s[1] <= o[1] for o in changes)}
    text = _replace(text, outer).decode()
    return _after_docstring(text, WRONG_VALUES.format(size=NOISE[level - 1])) if outer else None


def _after_docstring(code: str, lines: str) -> str:
    """`lines` put where a python program's statements begin."""
    body = ast.parse(code).body
    skip = [s for s in body if isinstance(s, ast.Expr) or isinstance(s, ast.ImportFrom) and s.module == "__future__"]
    rows, at = code.split("\n"), skip[-1].end_lineno if skip and skip == body[: len(skip)] else 0
    if body and isinstance(body[0], ast.Expr) and not at:
        at = body[0].end_lineno
    return "\n".join([*rows[:at], *lines.rstrip().split("\n"), *rows[at:]])


def _wrong_atoms(code: str, level: int) -> str | None:
    """Elements exchanged after the layout, which therefore stays; without hydrogens, as valences no longer hold. Atoms
    inside the molecule come first: a label at its rim makes the toolkit draw all the rest smaller."""
    toolkits = {  # where the layout is made; what to do before; atoms, their degree and symbol; how to exchange one
        r"(?m)^.*Compute2DCoords\((\w+)\).*$": (
            "Chem.Kekulize({m}, clearAromaticFlags=True)",
            ("{m}.GetAtoms()", "a.GetDegree()", "a.GetSymbol()"),
            "a.SetAtomicNum(Chem.GetPeriodicTable().GetAtomicNumber({new}))\n"
            "    a.SetNoImplicit(True)\n    a.SetNumExplicitHs(0)",
        ),
        r"(?m)^(\w+)\.layout\(\).*$": (
            "{m}.dearomatize()",
            ("{m}.iterateAtoms()", "a.degree()", "a.symbol()"),
            "a.resetAtom({new})",
        ),
    }
    for layout, (before, (atoms, degree, symbol), exchange) in toolkits.items():
        if hit := re.search(layout, code):
            lines = f"""
import random as _random
{before}
_order = sorted({atoms}, key=lambda a, r=_random.Random({_seed(code)}): ({degree} < 2, r.random()))
for a in _order[:max({level}, round({SHARE[level - 1]} * len(_order)))]:
    {exchange.replace("{new}", f"{LIKE}.get({symbol}, 'C')")}"""
            return code[: hit.end()] + lines.replace("{m}", hit[1]) + code[hit.end() :]
    return None


def font_size(code: str, language: str, level: int) -> str | None:
    """All type 1.1, 1.25, 1.5, 1.8, 2.2 times as large."""
    factor = FONT[level - 1]

    def larger(pattern: str, text: str) -> str:
        return re.sub(pattern, lambda hit: f"{hit[1]}{float(hit[2]) * factor:.2f}", text)

    if language == "svg":
        return larger(r"(font-size\s*[=:]\s*[\"']?)(\d+(?:\.\d+)?)", code) if "<text" in code else None
    if language == "html":  # lengths in em and % follow the root
        style = f"<style>html {{ font-size: {100 * factor:.0f}% }}</style>"
        code = larger(r"(font-size\s*:\s*)(\d+(?:\.\d+)?)(?=px|pt)", code)
        return re.sub(r"(?i)(<head[^>]*>)", lambda hit: hit[1] + style, code, count=1)
    if language == "latex":
        font = rf"\fontsize{{{10 * factor:.1f}}}{{{12 * factor:.1f}}}\selectfont"
        size = rf"\tikzset{{every node/.append style={{font={font}}}}}"
        begin = r"\begin{document}"
        return (
            r"\RequirePackage{fix-cm}" + "\n" + code.replace(begin, begin + "\n" + size, 1) if begin in code else None
        )
    if language != "python":
        return None
    if hit := re.search(r"(?m)^(\w+) = \w+\.drawOptions\(\).*$", code):  # rdkit
        sizes = (
            f"\n{hit[1]}.baseFontSize *= {factor}; {hit[1]}.legendFontSize = round({hit[1]}.legendFontSize * {factor})"
        )
        return code[: hit.end()] + sizes + f"; {hit[1]}.maxFontSize = -1" + code[hit.end() :]
    if "indigo" in code:  # has no such option
        return None
    code = larger(r"((?:font_?size|labelsize|font\.size)[\"']?\s*[=:]\s*)(\d+(?:\.\d+)?)", code)
    return _after_docstring(code, f"import matplotlib\nmatplotlib.rcParams['font.size'] *= {factor}")


WRONG_NUMBERS = """\
import re as _re, zlib as _zlib, matplotlib.text as _text
_set_text = _text.Text.set_text
def _wrong(self, s):  # {share:.0%} of all that has a digit, whose digits are each three more, without the tens
    named = isinstance(s, str) and _re.search("[0-9]", s) and "$" not in s
    if named and _zlib.crc32(s.encode()) % 1000 < {share} * 1000:
        s = _re.sub("[0-9]", lambda digit: str((int(digit[0]) + 3) % 10), s)
    _set_text(self, s)
_text.Text.set_text = _wrong
"""


def wrong_numbers(code: str, language: str, level: int) -> str | None:
    """10, 20, 40, 70, 100 % of the numbers at a chart's axes, and in its other texts, are other numbers."""
    if language != "python" or "matplotlib" not in code:
        return None
    return _after_docstring(code, WRONG_NUMBERS.format(share=SHARE[level - 1]))


KINDS = {"text": wrong_text, "numbers": wrong_numbers, "data": wrong_data, "font size": font_size}


def programs(kind: str, code: str, language: str) -> list[str] | None:
    """LEVELS programs, the error growing; None where there is nothing of that kind to change."""
    try:
        edited = [KINDS[kind](code, language, level) for level in range(1, LEVELS + 1)]
    except SyntaxError:
        return None
    return None if None in edited else edited
