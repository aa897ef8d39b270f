"""Earth mover's similarity (EMS) of two pictures, the main metric of Image2Struct (Roberts et al. 2024, HELM).

    EMS = 1 - EMD(answer, target) / EMD(constant, target)

constant is all black where the target's most frequent colour is light, all white where it is dark. The EMD moves 8 x 8
patches: the cost of turning one patch into another is the EMD of their pixels over (grey, row / 8, column / 8) with the
L1 distance, plus the L1 distance of their places. Pixels and patches of the most frequent colour weigh 1/1000.

HELM solves up to 10,000 small transport problems per picture. Here most are never solved: a bound that is cheap for all
pairs (the EMD along each axis alone, added up) stands in, and only pairs that the optimal plan uses are made exact,
until the plan uses no other. Costs are then bounds or exact and the plan pays exact ones, so it is the true optimum.

Axes: N patches, P = 64 pixels of a patch.
"""

import math

import numpy as np
import ot
from PIL import Image

PATCH, MOST_PATCHES, FAINT = 8, 100, 0.001
SOLVER = {"check_marginals": False, "center_dual": False}  # what the cost does not depend on


def earth_mover_similarity(target: Image.Image, rendering: Image.Image, as_published: bool = False) -> float:
    """At most 1 (equal pictures), 0 for the constant picture, below 0 for what is worse. Sizes have to be equal.

    as_published: see `earth_mover_distance`.
    Raises ValueError where sizes differ; pad first, as Image2Struct does for LaTeX (`pixels.padded`).
    """
    if target.size != rendering.size:
        raise ValueError(f"Pictures of {target.size} and {rendering.size} px cannot be compared: pad or resize first.")
    target, rendering = target.convert("RGB"), rendering.convert("RGB")
    if target.tobytes() == rendering.tobytes():
        return 1.0
    colour, _ = most_frequent(target)
    shade = "white" if luminance(colour) < 127 else "black"
    size = patched_size(target.size)
    target, rendering = (picture if size == picture.size else picture.resize(size) for picture in (target, rendering))
    worst = earth_mover_distance(Image.new("RGB", size, shade), target, as_published)
    distance = earth_mover_distance(rendering, target, as_published)
    return 1 - distance / worst if worst else float(distance == 0)


def earth_mover_distance(answer: Image.Image, reference: Image.Image, as_published: bool = False) -> float:
    """The EMD itself, of two RGB pictures of one size, one that `patched_size` leaves as it is; the reference decides
    which colour is the background.

    As published the background's grey is taken from whole numbers, that of the pixels from 32-bit fractions. So a plain
    patch weighs 1/1000 next to a background of few pure colours, not of white, and one background in four, all of
    them colours, is not known for one: nothing on it weighs less or is left out. Padding has another colour (`cut`).
    """
    colour, share = most_frequent(reference)
    background = luminance(colour) / 255 if as_published else luminance(fractions(colour))
    (patches_a, places), (patches_b, _) = (cut(np.asarray(p), colour, as_published) for p in (answer, reference))
    weights_a, weights_b = (np.where(np.any(p != background, axis=1), 1.0, FAINT) for p in (patches_a, patches_b))
    weights_a, weights_b = weights_a / weights_a.sum(), weights_b / weights_b.sum()
    patches_a, patches_b, faint = patches_a.astype(np.float32), patches_b.astype(np.float32), np.float32(background)
    if share > 0.5:
        kept = np.any((patches_a != faint) | (patches_b != faint), axis=1)
        if not kept.any():
            return 0.0
        patches_a, patches_b, places = patches_a[kept], patches_b[kept], places[kept]
        weights_a, weights_b = weights_a[kept], weights_b[kept]
    weights = np.maximum(weights_a, weights_b)
    weights = weights / weights.sum()
    multiplier = PATCH / sum(reference.size)
    distance = np.abs(places[:, None] - places[None]).sum(2) * multiplier  # (N, N)
    return _transport(weights, patches_a, patches_b, faint, distance)


def patched_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size in px at which a picture has at most 100 patches, aspect ratio kept; its own if it has no more."""
    count = math.prod(math.ceil(side / PATCH) for side in size)
    if count <= MOST_PATCHES:
        return size
    width = math.ceil(size[0] / PATCH / math.sqrt(count / MOST_PATCHES))
    return min(width, MOST_PATCHES) * PATCH, max(1, MOST_PATCHES // width) * PATCH


def most_frequent(picture: Image.Image) -> tuple[np.ndarray, float]:
    """(colour (3,), share of the pixels) of an RGB picture; of equally frequent ones the smallest."""
    pixels = picture.width * picture.height
    count, colour = min(picture.getcolors(pixels), key=lambda found: (-found[0], found[1]))
    return np.array(colour), count / pixels


def fractions(colours: np.ndarray) -> np.ndarray:
    """0 .. 255 -> 0 .. 1 as float32."""
    return colours.astype(np.float32) / np.float32(255)


def luminance(colours: np.ndarray) -> np.ndarray:
    """(.., 3) -> (..) grey as float64, added up one by one: a matrix product may round otherwise on another machine."""
    red, green, blue = np.moveaxis(colours.astype(np.float64), -1, 0)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def cut(pixels: np.ndarray, colour: np.ndarray, as_published: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 -> grey patches (N, P) in [0, 1], places (N, 2) in [0, 1).

    Padded with `colour`; as published with the grey of its red below, of its green on the right."""
    below, right = colour[:2] if as_published else (colour, colour)
    height, width = (math.ceil(side / PATCH) for side in pixels.shape[:2])
    canvas = np.empty((height * PATCH, width * PATCH, 3), np.uint8)
    canvas[:], canvas[:, pixels.shape[1] :] = below, right
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    grey = luminance(fractions(canvas))
    patches = grey.reshape(height, PATCH, width, PATCH).transpose(0, 2, 1, 3).reshape(-1, PATCH * PATCH)
    places = np.mgrid[:height, :width].reshape(2, -1).T / np.array([height, width])
    return patches, places


def _transport(weights, a, b, faint, distance) -> float:
    """EMD of patches a and b, both (N, P) with the same weights (N,); `distance` (N, N) is that of their places."""
    (a, kinds_a), (b, kinds_b) = (np.unique(patches, axis=0, return_inverse=True) for patches in (a, b))
    weights_a, weights_b = (_pixel_weights(patches, faint) for patches in (a, b))
    if len(a) == 1:  # any plan turns one patch into all others, and the one that moves none pays no more than that
        costs = [_patch_distance(a[0], patch, weights_a[0], w) for patch, w in zip(b, weights_b, strict=True)]
        return float(weights @ np.array(costs)[kinds_b.ravel()])
    between = _bounds(a, b, weights_a, weights_b)  # of the kinds of patches: equal ones are solved once
    exact = (a[:, None] == b[None]).all(2)
    between[exact] = 0
    pairs = np.ix_(kinds_a.ravel(), kinds_b.ravel())
    while True:
        plan, log = ot.emd(weights, weights, between[pairs] + distance, **SOLVER, log=True)
        todo = np.zeros_like(exact)
        i, j = np.nonzero(plan)
        todo[pairs[0][i, 0], pairs[1][0, j]] = True
        todo &= ~exact
        if not todo.any():
            return float(log["cost"])
        for i, j in zip(*np.nonzero(todo), strict=True):
            between[i, j] = _patch_distance(a[i], b[j], weights_a[i], weights_b[j])
        exact |= todo


def _pixel_weights(patches: np.ndarray, faint: float) -> np.ndarray:
    weights = np.where(patches != faint, 1.0, FAINT)
    return weights / weights.sum(1, keepdims=True)


ROWS, COLUMNS = (axis.ravel() for axis in np.mgrid[:PATCH, :PATCH] / PATCH)
BETWEEN_PIXELS = np.abs(ROWS[:, None] - ROWS) + np.abs(COLUMNS[:, None] - COLUMNS)  # (P, P)


def _patch_distance(a, b, weights_a, weights_b) -> float:
    """EMD of two patches (P,) with their pixels' weights. What both have at one point stays there, for no detour is
    shorter; next to a plain patch grey values cost the same in any plan, so that only places are left to be matched."""
    grey, points_equal, certain = np.abs(a[:, None].astype(np.float64) - b), a == b, 0.0
    if (a == a[0]).all() or (b == b[0]).all():
        certain, grey, points_equal = float(weights_a @ grey @ weights_b), 0.0, True
    shared = np.minimum(weights_a, weights_b) * points_equal
    left_a, left_b = weights_a - shared, weights_b - shared
    i, j = np.flatnonzero(left_a), np.flatnonzero(left_b)
    if not len(i) or not len(j):
        return certain
    _, log = ot.emd(left_a[i], left_b[j], (grey + BETWEEN_PIXELS)[np.ix_(i, j)], **SOLVER, log=True)
    return certain + float(log["cost"])


def _bounds(a, b, weights_a, weights_b, levels: int = 64) -> np.ndarray:
    """(N, N) lower bounds of the patches' EMDs: the sum of those of the grey values, the rows, the columns.

    In one dimension the EMD is the area between the distribution functions. Grey values are looked at on a grid of
    `levels`, where they round to the nearer side: that can move each by 1/2 level, which is taken off."""
    grid = np.arange(levels)
    bound = np.zeros((len(a), len(b)))
    functions = []
    for patches, weights in ((a, weights_a), (b, weights_b)):
        level = np.clip(np.rint(patches * (levels - 1)), 0, levels - 1)
        functions.append(np.stack([(weights * (level <= g)).sum(1) for g in grid[:-1]], axis=1))
    grey = np.abs(functions[0][:, None] - functions[1][None]).sum(2) / (levels - 1)
    bound += np.maximum(0, grey - 1 / (levels - 1))
    for coordinate in (ROWS, COLUMNS):
        steps = np.arange(PATCH - 1) / PATCH
        f, g = (np.stack([w[:, coordinate <= s].sum(1) for s in steps], axis=1) for w in (weights_a, weights_b))
        bound += np.abs(f[:, None] - g[None]).sum(2) / PATCH
    return bound
