"""Metrics that compare texts: edit similarities, TeX edit distance, the texts of a plot.

All but the TeX edit distance are similarities in [0, 1], 1 for equal inputs. Each says which benchmark it is from.
"""

import math
import re

import numpy as np
from pygments.lexers.markup import TexLexer
from pygments.token import Comment, Text
from rapidfuzz.distance import Levenshtein


def edit_similarity(reference: str, answer: str, as_published: bool = False) -> float:
    """1 - Levenshtein distance over tokens / the longer one's number of tokens; 0 if either is empty.

    Image2Struct (HELM, `compute_edit_sim`), tokens as in the Penn Treebank. The programs of its data set have no
    preamble, and from an answer to one of these its own is taken off; one with a preamble is compared as it stands. As
    published the reference is first cut to the answer's number of characters, which lets the beginning of the right
    program have 1, and most answers that are a little short or long less than they are worth.
    """
    from nltk.tokenize.treebank import TreebankWordTokenizer  # its package takes seconds to import

    if not PREAMBLE.search(reference):
        reference, answer = tex_body(reference), tex_body(answer)
    if as_published:
        reference = reference[: len(answer)]
    a, b = (TreebankWordTokenizer().tokenize(program) for program in (reference, answer))
    return Levenshtein.normalized_similarity(a, b) if a and b else 0.0


def character_similarity(reference: str, answer: str) -> float:
    """1 - Levenshtein distance over characters / the longer text's length."""
    return Levenshtein.normalized_similarity(reference, answer)


# ----------------------------------------------------------------------------------------------------------------- TeX
DELETION, INSERTION, JUMP, COVERAGE = 1, 5, 10, 0.3  # in fifths: 0.2, 1, 2; the coverage penalty is a plain factor
FIFTHS = 5


def tex_edit_distance(reference: str, answer: str, as_published: bool = False) -> float:
    """Extended edit distance of two TeX programs in [0, 1], 0 for the same program, 1 for an empty one.

    Stanchev, Wang, Ney, "EED: Extended Edit Distance Measure for Machine Translation", WMT 2019, over the TeX tokens of
    DeTikZify (`TexEditDistance`), joined by spaces. Besides insertions and deletions a path may jump at a blank, and
    characters of the answer that are visited more or less than once cost 0.3 each. As published the place before the
    first character counts as one more that is never visited, so that a program is 0.3 / (n + 0.3) from itself.
    """
    reference, answer = tex_text(reference), tex_text(answer)
    if not as_published and (not answer.strip() or not reference.strip()):
        return float(answer.strip() != reference.strip())
    characters = np.array([ord(c) for c in answer])
    substitution = {character: FIFTHS * (characters != ord(character)) for character in set(reference)}
    deletions = DELETION * np.arange(len(characters) + 1)
    row = np.full(len(deletions), FIFTHS)
    row[0] = 0
    visits = np.full(len(deletions), -1)
    for character in reference:
        reached = row + INSERTION
        np.minimum(reached[1:], row[:-1] + substitution[character], out=reached[1:])
        # next[i] = min(reached[i], next[i - 1] + deletion), for all i at once
        row = np.minimum.accumulate(reached - deletions) + deletions
        best = int(row.argmin())
        visits[best] += 1
        if character == " ":
            row = np.minimum(row, JUMP + row[best])
    coverage = COVERAGE * float(np.where(visits >= 0, visits, 1)[0 if as_published else 1 :].sum())
    return float(min(1.0, (row[-1] / FIFTHS + coverage) / (len(reference) + coverage)))


def tex_text(code: str) -> str:
    """The tokens of a TeX program, without comments, joined and surrounded by single blanks: those of Pygments, and of
    plain text what lies between blanks, punctuation apart."""
    found = []
    for kind, value in TexLexer().get_tokens(code):
        if kind is not Comment:
            found += (apart(value) if kind is Text else value).split()
    return " " + " ".join(found) + " "


def apart(sentence: str) -> str:
    """A sentence with blanks before its punctuation but for points and commas between digits, as EED has them."""
    sentence = re.sub(r"\s+", " ", re.sub(r"[.!?,]", r" \g<0>", sentence.rstrip()))
    sentence = re.sub(r"(\d) ([.,]) (\d)", r"\1\2\3", sentence)
    return re.sub(r"(Dr|Jr|Prof|Rev|Gen|Mr|Mt|Mrs|Ms) .", r"\1.", sentence)


PREAMBLE = re.compile(r"\\document(?:class|style)\b")
NUMBERED = re.compile(r"\{((?:sub)?eqnarray|equation|align|alignat|flalign|gather|multline|aligneq)\}")


def tex_body(code: str) -> str:
    """A program as Image2Struct keeps it (HELM, `latex_to_image` and `strip_unnecessary_latex_parts`).

    No class, packages, labels and numbers of equations, nothing after the end of the document; a line's end after every
    \\begin{..}[..] and \\end{..}, blanks one at a time and none at a line's ends, no empty lines. The lines between
    packages and \\begin{document} stay, and comments too.
    """
    code = re.sub(r"\\label\{.*?\}[\t ]*\n?", "", NUMBERED.sub(r"{\1*}", code))
    code = re.sub(r"\\document(?:class|style)(?:\[.*?\])?\{.*?\}", "", code)
    code = re.sub(r"\\usepackage(?:\[.*?\])?\{.*\}", "", code)
    code = re.sub(r"(?s)\\end\{document\}.*", "", re.sub(r"\\begin\{document\}\n*", "", code))
    code = re.sub(r"(\\begin\{.*?\}(?:\[.*?\])?|\\end\{.*?\})(?!\n)", r"\1\n", code)
    lines = (re.sub(" +", " ", line).replace("\t", " ").strip(" ") for line in code.split("\n"))
    return "\n".join(filter(str.strip, lines))


# --------------------------------------------------------------------------------------------------------------- plots
def plot_text_match(reference: dict, answer: dict, as_published: bool = False) -> float:
    """Jaccard index of the texts of two matplotlib figures: matched / (matched + left over in either).

    Plot2Code (`text_match_score.py`). Each side: {"positions": [[string, x, y, whether the program gave numbers], ..],
    "inches": [width, height]}; the strings are stripped and lowered, positions are `Text.get_position()`. A reference
    text counts if an equal one is left with exp(-|p1 - p2 * size ratio| / 100) > 0.8. 1 if neither has texts. As
    published a text at a category or a date is never matched.
    """
    ratio = [a / b if b else 1.0 for a, b in zip(reference["inches"], answer["inches"], strict=True)]
    left = [tuple(text) for text in answer["positions"]]
    matched = 0
    for text, x, y, numbers in reference["positions"]:
        for other in left:
            distance = math.hypot(x - other[1] * ratio[0], y - other[2] * ratio[1])
            comparable = numbers and other[3] or not as_published
            if other[0] == text and comparable and math.exp(-distance / 100) > 0.8:
                left.remove(other)
                matched += 1
                break
    union = len(reference["positions"]) + len(left)
    return matched / union if union else 1.0
