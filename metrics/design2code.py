"""Design2Code's visual scores of two web pages: block-match, text, position, colour.

Si et al., arXiv 2403.03163, `Design2Code/metrics/visual_score.py`. A page is the list of text blocks that
`languages/page_blocks.py` found in Chromium: {"text", "box": [x, y, width, height] as fractions of the page, "colour":
[r, g, b]}. Blocks of both pages are merged with their neighbours where that makes the texts fit better, matched one to
one (Hungarian), and matches of texts less than half alike are dropped. The fifth part, CLIP, needs weights.

All scores lie in [0, 1]; the same page twice gives 1, a page without blocks 0.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.optimize import linear_sum_assignment

from metrics.chartmimic import ciede2000_similarity
from metrics.matching import matched_characters

NAMES = ("block_match", "text", "position", "colour")
GAIN, LEAST_ALIKE, BONUS, WINDOW = 0.05, 0.5, 0.1, 1


@dataclass(frozen=True)
class Block:
    text: str
    box: tuple[float, float, float, float]
    colour: tuple[float, float, float]

    @property
    def area(self) -> float:
        return self.box[2] * self.box[3]

    @property
    def centre(self) -> tuple[float, float]:
        return self.box[0] + self.box[2] / 2, self.box[1] + self.box[3] / 2


def scores(reference: Sequence[dict], answer: Sequence[dict]) -> dict[str, float]:
    """The four scores and their mean, `low_level`. Raises ValueError where a block is not of the shape above."""
    a, b = (merge_equal_boxes(read(blocks)) for blocks in (answer, reference))
    parts = dict.fromkeys(NAMES, 0.0)
    if a and b:
        a, b, costs = merge_neighbours(a, b)
        pairs = [(i, j, -costs[i, j]) for i, j in match(costs, BONUS)]
        pairs = [(i, j, alike) for i, j, alike in pairs if alike >= LEAST_ALIKE]
        if pairs:
            parts = _scores_of_pairs(a, b, pairs)
    return parts | {"low_level": sum(parts.values()) / len(parts)}


def _scores_of_pairs(a: list[Block], b: list[Block], pairs: list[tuple[int, int, float]]) -> dict[str, float]:
    matched = sum(a[i].area + b[j].area for i, j, _ in pairs)
    every = sum(block.area for block in [*a, *b])
    shifts = [max(abs(p - q) for p, q in zip(a[i].centre, b[j].centre, strict=True)) for i, j, _ in pairs]
    colours = [ciede2000_similarity(a[i].colour, b[j].colour) for i, j, _ in pairs]
    values = (min(1.0, matched / every), np.mean([alike for *_, alike in pairs]), 1 - np.mean(shifts), np.mean(colours))
    return {name: float(value) for name, value in zip(NAMES, values, strict=True)}


def read(blocks: Sequence[dict]) -> list[Block]:
    """Blocks as they come from a process that showed an untrusted page."""
    try:
        found = [Block(str(b["text"]), tuple(map(float, b["box"])), tuple(map(float, b["colour"]))) for b in blocks]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"A text block of a page is incomplete: {error!r}.") from None
    if not all(len(b.box) == 4 and len(b.colour) == 3 and min(b.box) >= 0 and 0 < b.area < np.inf for b in found):
        raise ValueError("A text block of a page has no box or colour.")
    return found


def merge_equal_boxes(blocks: Sequence[Block]) -> list[Block]:
    merged: dict[tuple, Block] = {}
    for block in blocks:
        if block.box in merged:
            old = merged[block.box]
            colour = tuple((p + q) / 2 for p, q in zip(old.colour, block.colour, strict=True))
            block = Block(f"{old.text} {block.text}", block.box, colour)
        merged[block.box] = block
    return list(merged.values())


def cost_matrix(a: Sequence[Block], b: Sequence[Block]) -> np.ndarray:
    """(len(a), len(b)) of minus the similarity of the texts: difflib's 2 * matches / (length + length)."""
    texts = [[block.text for block in blocks] for blocks in (a, b)]
    lengths = [np.array([len(text) for text in side]) for side in texts]
    return -2.0 * matched_characters(*texts) / np.maximum(1, lengths[0][:, None] + lengths[1])


def match(costs: np.ndarray, bonus: float) -> list[tuple[int, int]]:
    """One-to-one matching (i, j) of least cost; pairs more than half alike gain by alike neighbours."""
    costs = with_context(costs, bonus) if bonus else costs
    return list(zip(*(indices.tolist() for indices in linear_sum_assignment(costs)), strict=True))


def with_context(costs: np.ndarray, bonus: float, window: int = WINDOW) -> np.ndarray:
    """Each cost below -0.5 plus `bonus` times the sum of the 2 * window best others in its neighbourhood."""
    side = 2 * window + 1
    near = sliding_window_view(np.pad(costs, window, constant_values=np.inf), (side, side)).reshape(*costs.shape, -1)
    others = np.sort(np.delete(near, side * window + window, axis=2))[..., : 2 * window]
    return costs + np.where(costs < -0.5, bonus * np.where(np.isinf(others), 0.0, others).sum(2), 0.0)


def merge_neighbours(a: list[Block], b: list[Block]) -> tuple[list[Block], list[Block], np.ndarray]:
    """Merges neighbours in either list as long as that lowers the mean cost of the matching by more than 0.05; returns
    the lists and their costs."""
    costs = cost_matrix(a, b)
    while True:
        before = len(a) + len(b)
        a, costs = merge_once(a, b, costs, 0)
        b, costs = merge_once(b, a, costs, 1)
        if len(a) + len(b) == before:
            return a, b, costs


def merge_once(
    blocks: list[Block], others: list[Block], costs: np.ndarray, axis: int
) -> tuple[list[Block], np.ndarray]:
    """One round: every merge of two neighbours that pays by itself, the best first, none touching another.

    costs: of the matching, `blocks` being along `axis`; returned for the blocks as they are then."""
    before = _matched_costs(costs)
    if not (trials := worth_trying(blocks, others, before)):
        return blocks, costs
    joined = [merged(blocks[i], blocks[i + 1]) for i in trials]
    lines = cost_matrix(joined, others) if axis == 0 else cost_matrix(others, joined).T
    after = [_matched_costs(with_merged(costs, [i], lines[[k]], axis)) for k, i in enumerate(trials)]
    gains = [difference_of_means(before, costs_then) for costs_then in after]
    taken: dict[int, int] = {}  # block -> trial
    for k in sorted(range(len(trials)), key=lambda k: -gains[k]):
        i = trials[k]
        if gains[k] > GAIN and not taken.keys() & {i - 1, i, i + 1}:
            taken[i] = k
    second = {i + 1 for i in taken}
    result = [joined[taken[i]] if i in taken else block for i, block in enumerate(blocks) if i not in second]
    return result, with_merged(costs, list(taken), lines[list(taken.values())], axis)


def with_merged(costs: np.ndarray, first: list[int], lines: np.ndarray, axis: int) -> np.ndarray:
    """costs, the blocks `first` along `axis` being merged with the ones after them, which gives them these lines."""
    changed = costs.copy()
    np.moveaxis(changed, axis, 0)[first] = lines
    return np.delete(changed, [i + 1 for i in first], axis)


def worth_trying(blocks: list[Block], others: list[Block], costs: list[float]) -> list[int]:
    """Where merging with the next block may pay. costs: of the matching as it is.

    A merge pays only if the best cost that it takes away is worse than the best that it brings (`difference_of_means`).
    No cost is better than -1, that of equal texts, so it has to leave as many matches of equal texts as there are.
    """
    texts, wanted = (Counter(block.text for block in side) for side in (blocks, others))
    spare = (texts & wanted).total() - costs.count(-1.0)
    found = []
    for i, pair in enumerate(pairwise(block.text for block in blocks)):
        change = Counter([" ".join(pair)])
        change.subtract(pair)
        lost = sum(min(texts[t], wanted[t]) - min(texts[t] + more, wanted[t]) for t, more in change.items())
        if lost <= spare:
            found.append(i)
    return found


def _matched_costs(costs: np.ndarray) -> list[float]:
    return costs[linear_sum_assignment(costs)].tolist()


def difference_of_means(before: Sequence[float], after: Sequence[float]) -> float:
    """How much lower the mean of the costs became that are not in both lists; 0 if it did and the best one did not."""
    a, b = Counter(before), Counter(after)
    only_a, only_b = list((a - b).elements()), list((b - a).elements())
    gain = (sum(only_a) / len(only_a) if only_a else 0.0) - (sum(only_b) / len(only_b) if only_b else 0.0)
    improves = gain <= 0 or (only_a and only_b and min(only_a) > min(only_b))
    return gain if improves else 0.0


def merged(a: Block, b: Block) -> Block:
    left, top = min(a.box[0], b.box[0]), min(a.box[1], b.box[1])
    right = max(a.box[0] + a.box[2], b.box[0] + b.box[2])
    bottom = max(a.box[1] + a.box[3], b.box[1] + b.box[3])
    colour = tuple((p + q) // 2 for p, q in zip(a.colour, b.colour, strict=True))
    return Block(f"{a.text} {b.text}", (left, top, right - left, bottom - top), colour)
