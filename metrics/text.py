"""Metrics that compare texts: edit similarities, TeX edit distance, the trees of web pages, the texts of a plot.

All but the TeX edit distance are similarities in [0, 1], 1 for equal inputs. Each says which benchmark it is from.
"""

import math
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
from rapidfuzz.distance import Levenshtein


def edit_similarity(reference: str, answer: str, as_published: bool = False) -> float:
    """1 - Levenshtein distance over tokens / the longer one's number of tokens; 1 if both are empty.

    Image2Struct (HELM, `edit_similarity`). Tokens are words, numbers and single signs, near enough to HELM's Treebank
    tokens for code. As published the reference is first cut to as many tokens as the answer has characters, which is
    meant to bound the work and lets a short wrong answer meet a shorter reference.
    """
    a, b = tokens(reference), tokens(answer)
    if as_published:
        a = a[: len(answer)]
    return Levenshtein.normalized_similarity(a, b) if a or b else 1.0


def character_similarity(reference: str, answer: str) -> float:
    """1 - Levenshtein distance over characters / the longer text's length."""
    return Levenshtein.normalized_similarity(reference, answer)


def tokens(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


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
    if not answer.strip() or not reference.strip():
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
    """The tokens of a TeX program, without comments, joined and surrounded by single blanks."""
    code = re.sub(r"(?m)(?<!\\)%.*$", "", code)
    found = re.findall(r"\\[A-Za-z@]+|\\.|[A-Za-z]+|\d+(?:\.\d+)?|[^\sA-Za-z\d]", code)
    return " " + " ".join(found) + " "


# ----------------------------------------------------------------------------------------------------------- web pages
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class _Subtrees(HTMLParser):
    """Collects "tag_child1_child2.." for every element with children, in html.parser's reading of the page."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open: list[list[str]] = []  # [tag, child tags..] of every open element
        self.found: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attributes):
        if self.open:
            self.open[-1].append(tag)
        if tag not in VOID:
            self.open.append([tag])

    def handle_startendtag(self, tag, attributes):
        if self.open:
            self.open[-1].append(tag)

    def handle_endtag(self, tag):
        if any(element[0] == tag for element in self.open):
            while self.close_one() != tag:
                pass

    def handle_data(self, data):
        if not any(element[0] in ("script", "style", "title") for element in self.open):
            self.words += data.split()

    def close_one(self) -> str:
        element = self.open.pop()
        if len(element) > 1:
            self.found.append("_".join(element))
        return element[0]


def _parsed(html: str) -> _Subtrees:
    page = _Subtrees()
    page.feed(html)
    page.close()
    while page.open:
        page.close_one()
    return page


def tree_bleu(reference: str, answer: str) -> float:
    """Share of the reference's distinct one-level subtrees that the answer has as well.

    WebCode2M (`tree_rouge_1` of its code, "TreeBLEU" of its paper): |S(answer) & S(reference)| / |S(reference)|, S
    being the set of "tag_child1_child2.." over all elements with children. 1 if the reference has none.
    """
    wanted = set(_parsed(reference).found)
    return len(wanted & set(_parsed(answer).found)) / len(wanted) if wanted else 1.0


def word_recall(reference: str, answer: str) -> float:
    """ROUGE-1 recall of the visible words, with multiplicity (WebCode2M); 1 if the reference shows no word."""
    wanted, given = Counter(_parsed(reference).words), Counter(_parsed(answer).words)
    return (wanted & given).total() / wanted.total() if wanted else 1.0


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
