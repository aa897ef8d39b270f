"""ChartMimic's low-level scores: F1 of the texts, the layout, the chart types and the colours of two figures.

Yang et al., arXiv 2406.09961, `chart2code/utils/evaluator`. A figure is what `languages/chart_facts.py` saw of it in
the sandbox: {"texts": [..], "layout": [[rows, columns, first row, last row, first column, last column], ..],
"types": {function: calls}, "colours": [[function, "#RRGGBB" or name of a colour map], ..]},
and what Plot2Code compares, "positions" and "inches".

Each score lies in [0, 1] and is symmetric, and the same figure twice gives 1. As published a figure without texts (or
types, colours) scores 0 even against itself. `low_level` is the mean of the four; the benchmark's table
multiplies by 100 and counts a program that fails as 0.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.optimize import linear_sum_assignment
from skimage.color import deltaE_ciede2000, rgb2lab

from metrics.text import f1, multiset_f1

MOST_COLOURS, ALIKE = 10, 0.7


def scores(reference: dict, answer: dict, as_published: bool = False) -> dict[str, float]:
    """The four F1 scores and their mean. Raises ValueError where a side is not of the shape described above."""
    empty = 0.0 if as_published else 1.0
    for facts in (reference, answer):
        check(facts)
    parts = {
        "text_f1": multiset_f1(reference["texts"], answer["texts"], empty),
        "layout_f1": multiset_f1(*([tuple(place) for place in side["layout"]] for side in (reference, answer)), empty),
        "type_f1": type_f1(reference["types"], answer["types"], empty),
        "colour_f1": colour_f1(reference["colours"], answer["colours"], empty),
    }
    return parts | {"low_level": sum(parts.values()) / len(parts)}


def check(facts: dict) -> None:
    """The facts come from a process that ran untrusted code. Raises ValueError for a wrong shape."""
    try:
        sound = all(isinstance(text, str) for text in facts["texts"])
        sound &= all(len(place) == 6 and all(isinstance(n, int) for n in place) for place in facts["layout"])
        sound &= all(isinstance(k, str) and isinstance(n, int) and n > 0 for k, n in facts["types"].items())
        sound &= all(len(p) == 3 and isinstance(p[0], str) for p in facts["positions"])
        sound &= all(isinstance(x, int | float) for p in facts["positions"] for x in p[1:])
        sound &= len(facts["inches"]) == 2 and all(isinstance(side, int | float) for side in facts["inches"])
        sound &= all(len(c) == 2 and all(isinstance(part, str) for part in c) for c in facts["colours"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"The facts of a figure are incomplete: {error!r}.") from None
    if not sound:
        raise ValueError("The facts of a figure are not of the expected types.")


def type_f1(reference: dict[str, int], answer: dict[str, int], empty: float = 1.0) -> float:
    """F1 of the outermost calls of plotting functions, counted by function."""
    return multiset_f1(list(Counter(reference).elements()), list(Counter(answer).elements()), empty)


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
