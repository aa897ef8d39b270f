"""How much texts have in common, as difflib.SequenceMatcher counts it, in C (`matching.c`): some fifty times as fast.

The library is compiled at first use; where there is no C compiler difflib itself does it.
"""

import ctypes
import functools
import sys
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np

import native

SOURCE = Path(__file__).with_name("matching.c")


def matched_characters(a: Sequence[str], b: Sequence[str]) -> np.ndarray:
    """(len(a), len(b)) int32: the sizes of SequenceMatcher(None, a[i], b[j]).get_matching_blocks(), summed."""
    if (count := library()) is None:
        blocks = [[SequenceMatcher(None, p, q).get_matching_blocks() for q in b] for p in a]
        return np.array([[sum(part.size for part in one) for one in row] for row in blocks], np.int32)
    characters, numbers = np.unique(np.concatenate([code_points(a), code_points(b)]), return_inverse=True)
    ends = [np.cumsum([len(text) for text in texts], dtype=np.int64) for texts in (a, b)]
    numbers = np.ascontiguousarray(numbers, np.int32)
    counts = np.empty((len(a), len(b)), np.int32)
    halves = numbers[: ends[0][-1]], numbers[ends[0][-1] :]
    sides = [part for side in zip(halves, ends, map(len, (a, b)), strict=True) for part in side]
    longest = max(map(len, b))
    if count(*sides, len(characters), longest, counts):
        raise MemoryError("The texts are too long to be compared.")
    return counts


def code_points(texts: Sequence[str]) -> np.ndarray:
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)


@functools.cache
def library():
    """`matched_characters` of C, or None, with a line that says why, where it cannot be compiled."""
    try:
        count = ctypes.CDLL(str(native.compiled(SOURCE))).matched_characters
    except OSError as error:
        print(f"Comparing the texts of pages will take fifty times as long as it could: {error}.", file=sys.stderr)
        return None
    arrays = {kind: np.ctypeslib.ndpointer(kind, flags="C_CONTIGUOUS") for kind in (np.int32, np.int64)}
    side = [arrays[np.int32], arrays[np.int64], ctypes.c_int32]
    count.argtypes = [*side, *side, ctypes.c_int32, ctypes.c_int32, arrays[np.int32]]
    return count
