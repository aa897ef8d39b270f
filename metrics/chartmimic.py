"""ChartMimic's low-level scores: F1 of the texts, the layout, the chart types and the colours of two figures.

Yang et al., arXiv 2406.09961, `chart2code/utils/evaluator`. A figure is what `languages/chart_facts.py` saw of it in
the sandbox, a dict of
    texts: [string, ..], as drawn once its ticks are gone
    layout: [[rows, columns, first row, last row, first column, last column], or None for axes in no grid, ..]
    types: {function: calls}
    colours: [[function, "#RRGGBB" or name of a colour map, whether the original knows it], ..]
    readable: whether the original can read the colours
and of what Plot2Code compares, positions: [[string, x, y, whether the program gave numbers], ..] and inches: [width,
height].

Each score lies in [0, 1] and is symmetric, and the same figure twice gives 1. `low_level` is the mean of the four; the
benchmark's table multiplies by 100 and counts a program that fails as 0. As published
- a figure without texts (or types, colours) scores 0 even against itself;
- of the artists of one function that had the same colour when they were made only the last is known in the end, so that
  of bars of which one was coloured afterwards that colour may be missing;
- a program of which one colour cannot be read has none (bars coloured by name afterwards, areas without faces).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from scipy.optimize import linear_sum_assignment
from skimage.color import deltaE_ciede2000, rgb2lab

MOST_COLOURS, ALIKE = 10, 0.7
GRAPH = (1, 1, 0, 1, 0, 1)  # the place of any axes in charts of networks


def scores(reference: dict, answer: dict, as_published: bool = False, graph: bool = False) -> dict[str, float]:
    """The four F1 scores and their mean. graph: the target is one of the benchmark's `graph_*`, whose layout is a
    number of axes. Raises ValueError where a side is not of the shape described above."""
    for facts in (reference, answer):
        check(facts)
    read = {
        "text_f1": (multiset_f1, lambda facts: facts["texts"]),
        "layout_f1": (multiset_f1, lambda facts: places(facts["layout"], graph)),
        "type_f1": (multiset_f1, lambda facts: facts["types"]),
        "colour_f1": (colour_f1, lambda facts: colours(facts, as_published)),
    }
    empty = 0.0 if as_published else 1.0
    parts = {name: measure(of(reference), of(answer), empty) for name, (measure, of) in read.items()}
    return parts | {"low_level": sum(parts.values()) / len(parts)}


def check(facts: dict) -> None:
    """The facts come from a process that ran untrusted code. Raises ValueError for a wrong shape."""

    def number(value) -> bool:
        return isinstance(value, float) or isinstance(value, int) and abs(value) < 2**53

    try:
        sound = all(isinstance(text, str) for text in facts["texts"])
        sound &= all(p is None or len(p) == 6 and all(isinstance(n, int) for n in p) for p in facts["layout"])
        sound &= all(isinstance(k, str) and isinstance(n, int) and n > 0 for k, n in facts["types"].items())
        sound &= all(len(c) == 3 and isinstance(c[0], str) and isinstance(c[1], str) for c in facts["colours"])
        sound &= all(isinstance(known, bool) for *_, known in [*facts["colours"], (facts["readable"],)])
        sound &= all(len(p) == 4 and isinstance(p[0], str) and isinstance(p[3], bool) for p in facts["positions"])
        sound &= all(number(x) and number(y) for _, x, y, _ in facts["positions"])
        sound &= len(facts["inches"]) == 2 and all(map(number, facts["inches"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"The facts of a figure are incomplete: {error!r}.") from None
    if not sound:
        raise ValueError("The facts of a figure are not of the expected types.")


def places(layout: Sequence, graph: bool) -> list[tuple]:
    return [GRAPH] * len(layout) if graph else [tuple(place) for place in layout if place]


def colours(facts: dict, as_published: bool) -> list[tuple[str, str]]:
    if as_published and not facts["readable"]:
        return []
    return [(function, colour) for function, colour, known in facts["colours"] if known or not as_published]


def multiset_f1(reference: Sequence | Mapping, answer: Sequence | Mapping, empty: float = 1.0) -> float:
    """F1 of two multisets of hashable items, or of their counts: equal items are matched one to one; `empty` if both
    are empty."""
    reference, answer = Counter(reference), Counter(answer)
    if not reference and not answer:
        return empty
    matched = (reference & answer).total()
    return f1(matched / answer.total(), matched / reference.total()) if matched else 0.0


def f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def colour_f1(reference: Sequence[Sequence[str]], answer: Sequence[Sequence[str]], empty: float = 1.0) -> float:
    """F1 over (function, colour) pairs, partly equal colours counting partly.

    Within each function the colours are assigned one to one so that the sum of similarities is largest; precision and
    recall divide the total by the number of colours of the answer and of the reference.
    """
    reference, answer = thinned(reference), thinned(answer)
    if not reference or not answer:
        return 0.0 if reference or answer else empty
    groups: dict[str, tuple[list, list]] = defaultdict(lambda: ([], []))
    for side, colours in enumerate((reference, answer)):
        for function, colour in colours:
            groups[function][side].append(colour)
    total = 0.0
    for left, right in groups.values():
        if left and right:
            similarity = np.array([[colour_similarity(a, b) for b in right] for a in left])
            total += similarity[linear_sum_assignment(similarity, maximize=True)].sum()
    return float(f1(total / len(answer), total / len(reference)))


def thinned(colours: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Distinct colours, sorted; if more than ten, without those that are > 0.7 similar to one already kept."""
    colours = sorted({(function, colour) for function, colour in colours})
    if len(colours) <= MOST_COLOURS:
        return colours
    kept: list[tuple[str, str]] = []
    for function, colour in colours:
        if all(colour_similarity(colour, other) <= ALIKE for _, other in kept):
            kept.append((function, colour))
    return kept


@lru_cache(1 << 16)
def colour_similarity(a: str, b: str) -> float:
    """max(0, 1 - CIEDE2000 / 100) of two "#RRGGBB"; names of colour maps are equal or not; mixed: 0."""
    if a.startswith("#") and b.startswith("#"):
        return ciede2000_similarity(_rgb(a), _rgb(b))
    return float(a == b)


def ciede2000_similarity(a: Sequence[float], b: Sequence[float]) -> float:
    """The same for (r, g, b) in 0..255."""
    lab_a, lab_b = (rgb2lab(np.array([[colour]], dtype=np.float64) / 255) for colour in (a, b))
    return max(0.0, 1 - float(deltaE_ciede2000(lab_a, lab_b)[0, 0]) / 100)


def _rgb(colour: str) -> tuple[int, ...]:
    try:
        return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    except ValueError:
        return (0, 0, 0)
