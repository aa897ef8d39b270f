"""What a picture says, as a reward: `--reward text=0.25`. No model is asked: the renderer knows what a program wrote.

A target says what its own program writes, or what was read off its picture (`python -m corpus words`); where neither is
known, or it says nothing, there is no such reward, and its weight goes to the reward that is named first.

    text  = (F + F^8) / 2          F: mean over words and numbers of 2 M / (T + A), T of the target and A of the answer
    M     = sum over pairs of likeness * place * order
    likeness  1 for the same word, whatever its case, or the same number; for others 1 - 2 d, d: letters to be changed
              (Levenshtein) by those of the longer word, but 0 for two numbers
    place     1 within 1.5 % of the target's diagonal, down to 0.4 at a quarter of it
    order     1 if three quarters of the six nearest pairs lie on the same side of this one as in the target, down to 0
              at a half: right words in wrong places are wrong, all moved alike they are not

Words and numbers count as much as each other, since an axis has many numbers and one label. Half of the reward is for
each word, half for nearly all of them (F^8): one wrong label of ten costs more than a tenth. Of the words that a
program says it wrote only those count that can be seen (`visible`): inside the picture, large enough, ink of their own
colour in their box, and no later word in the same place.

Limits: words are what stands between spaces, so text that is spaced otherwise is other text; what a program draws as
outlines, or within a picture of its own (Pillow), says nothing; of what was read off a picture, words that an answer
has too many cost nothing where the target has ink of any kind.
"""

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from scipy.optimize import linear_sum_assignment

from languages.protocol import Word
from pictures import to_rgb
from render import Rendering
from reward import digest

SMALLEST = 8  # px that a letter has to measure
LIKE_INK = 0.7  # of the contrast: how far from its colour a word's pixels may be
LEAST_INK = 0.02  # share of a word's box that has such pixels
MOST_INK = 0.5  # of its colour in the mean of the box; more is what the word stands on
READABLE = 40  # of 255: how far a word's colour has to be from what it stands on
NEAR, FAR, FAR_WORTH = 0.015, 0.25, 0.4  # of the diagonal; what a word is worth there
NEIGHBOURS = 6
NUMBER = re.compile(r"[-+]?(?:\d[\d,]{0,30}(?:\.\d{0,30})?|\.\d{1,30})(?:e[-+]?\d{1,2})?")
NOTHING = Rendering(None, "nobody knows what it says", 0.0)
NOWHERE = np.empty((0, 2))


class Said(NamedTuple):
    """W words with their centres, in shares of the picture's width and height."""

    words: list[str]
    places: np.ndarray  # (W, 2)
    shown: Sequence[Word] = ()  # what they were


def text(samples: Sequence, texts: Sequence[str], renderings: Sequence) -> list[float | None]:
    """(B,) in [0, 1], as reward.py has it: None for a target of which it is not known that it says anything."""
    before, wanted, values = None, Said([], NOWHERE), []
    for sample, rendering in zip(samples, renderings, strict=True):
        drawn = sample.drawing.result() if sample.drawing else NOTHING
        if drawn is not before:  # a group's answers stand together
            before, wanted = drawn, said(drawn.words, drawn.image)
        if not wanted.words:
            values.append(None)
        elif rendering.image is None:
            values.append(0.0)
        else:
            values.append(agreement(wanted, said(rendering.words, rendering.image), drawn.image, drawn.words_are_read))
    return values


def prepare(samples: Sequence, renderer, settings=None) -> None:
    """Have the programs of the targets drawn; of a target without one, what was read off it is on the disk."""
    path = getattr(settings, "data", None)
    read = read_before(path) if path else {}
    for sample in samples:
        if sample.drawing is None and sample.code:
            sample.drawing = renderer.submit(sample.code, sample.language, sample.image and sample.image.size)
        elif sample.drawing is None and read and (key := digest(sample.image).hex()) in read:
            words = tuple(Word(*word) for word in read[key])
            sample.drawing = Future()
            sample.drawing.set_result(Rendering(sample.image, None, 0.0, words=words, words_are_read=True))


text.prepare = prepare


def words_file(path: str | Path) -> Path:
    """Where `python -m corpus words` keeps what it reads: beside the data set, which may be FOLDER:SPLIT."""
    path = Path(path) if Path(path).exists() else Path(str(path).rpartition(":")[0] or str(path))
    return path.with_name(path.name + ".words")


def read_before(path: str | Path) -> dict[str, list]:
    """digest of a picture -> its words; none where nothing was read. Raises ValueError for a file that is none."""
    file = words_file(path)
    return _read_before(file, file.stat().st_mtime_ns) if file.exists() else {}


@cache
def _read_before(file: Path, _: int) -> dict[str, list]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        return {row["picture"]: row["words"] for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is no file of `python -m corpus words` ({error}); remove it and run that again"
        ) from None


# ---- what can be seen ------------------------------------------------------------------------------------------------


def visible(words: Sequence, image) -> list:
    """Of protocol.Words in the order they were drawn in, those that can be read in the picture."""
    pixels = np.asarray(to_rgb(image))
    height, width = pixels.shape[:2]
    taken = np.zeros((height, width), dtype=bool)
    seen = []
    for word in reversed(words):  # what was drawn last lies above
        left, top, right, bottom = max(0, word.left), max(0, word.top), min(width, word.right), min(height, word.bottom)
        whole = (word.right - word.left) * (word.bottom - word.top)
        if right <= left or bottom <= top or 2 * (right - left) * (bottom - top) < whole:
            continue
        hidden = np.count_nonzero(taken[top:bottom, left:right]) / ((right - left) * (bottom - top))
        if whole < SMALLEST * len(word.text) or hidden > 0.5:
            continue
        if word.colour and not has_ink(pixels, (left, top, right, bottom), word.colour):
            continue
        taken[top:bottom, left:right] = True
        seen.append(word)
    return seen[::-1]


def has_ink(pixels: np.ndarray, box: tuple[int, int, int, int], colour: str) -> bool:
    """Whether a box of the picture, and a little around it, shows some of a colour on something else."""
    left, top, right, bottom = box
    around = 2 + min(right - left, bottom - top) // 8
    part = pixels[max(0, top - around) : bottom + around, max(0, left - around) : right + around].astype(np.int16)
    apart = np.abs(part - np.array(list(bytes.fromhex(colour)), dtype=np.int16))
    apart = np.maximum(np.maximum(apart[..., 0], apart[..., 1]), apart[..., 2])  # far faster than max(-1)
    contrast = int(apart.max())
    if contrast < READABLE:
        return False
    # a part of the contrast, since small letters are thin, and none of their pixels may have their whole colour
    inked = np.count_nonzero(apart <= LIKE_INK * contrast) / apart.size
    return inked >= LEAST_INK and apart.mean() >= (1 - MOST_INK) * contrast


def normal(word: str) -> str:
    """As it is compared: no case, no punctuation around it, one form of each letter, one way to write a number."""
    word = unicodedata.normalize("NFKC", word).casefold()
    word = re.sub("[\u2212\u2013\u2014]", "-", word)
    word = word.strip(",;:!?()[]{}\"'`*_|<>\u2018\u2019\u201c\u201d\u00b7\u2022").rstrip(".")
    if is_number(word):
        return f"{float(word.replace(',', '')):.12g}"
    return word.lstrip(".") if any(map(str.isalnum, word)) else ""


def is_number(word: str) -> bool:
    return NUMBER.fullmatch(word) is not None


def said(words: Sequence, image) -> Said:
    """What can be read of a picture's words."""
    if not words:
        return Said([], NOWHERE)
    pairs = [(normal(word.text), word) for word in visible(words, image)]
    pairs = [(name, word) for name, word in pairs if name]
    centres = [((w.left + w.right) / 2 / image.width, (w.top + w.bottom) / 2 / image.height) for _, w in pairs]
    return Said([name for name, _ in pairs], np.reshape(centres, (-1, 2)), [word for _, word in pairs])


# ---- how much of it is right -----------------------------------------------------------------------------------------


def agreement(target: Said, answer: Said, picture, is_read: bool) -> float:
    """The score of one answer; `picture` is the target's. is_read: its words were read off it, perhaps not all."""
    pairs, worth = paired(target, answer, picture)
    extra = set(range(len(answer.words))) - {a for _, a, _ in pairs}
    if is_read:
        extra = {a for a in extra if is_plain(picture, answer.places[a])}
    counts, right = defaultdict(int), defaultdict(float)
    for word in target.words:
        counts[is_number(word)] += 1
    for (t, _, _), value in zip(pairs, worth, strict=True):
        kind = is_number(target.words[t])
        counts[kind] += 1
        right[kind] += 2 * value
    for a in extra:
        kind = is_number(answer.words[a])
        counts[kind if kind in counts else not kind] += 1  # numbers too many beside words alone are words too many
    share = float(np.mean([right[kind] / counts[kind] for kind in counts]))
    return (share + share**8) / 2


def paired(target: Said, answer: Said, picture) -> tuple[list[tuple[int, int, float]], np.ndarray]:
    """Which words belong together, as `matched` has it, and what each pair is worth."""
    size = np.array(picture.size) / np.hypot(*picture.size)
    pairs = matched(target, answer, size)
    return pairs, in_order(pairs, target.places * size, answer.places * size)


def matched(target: Said, answer: Said, size: np.ndarray) -> list[tuple[int, int, float]]:
    """(word of the target, word of the answer, likeness * place) of the best pairs: equal words first, each with the
    one that is nearest, then what is left by letters and place."""
    where, pairs = defaultdict(lambda: ([], [])), []
    for side, words in enumerate((target.words, answer.words)):
        for index, word in enumerate(words):
            where[word][side].append(index)
    left = set(range(len(target.words))), set(range(len(answer.words)))
    for mine, theirs in where.values():
        if mine and theirs:
            pairs += assigned(mine, theirs, place(target.places[mine] * size, answer.places[theirs] * size))
    for t, a, _ in pairs:
        left[0].discard(t), left[1].discard(a)
    mine, theirs = (sorted(rest) for rest in left)
    if mine and theirs:
        names = [target.words[t] for t in mine], [answer.words[a] for a in theirs]
        likeness = 2 * cdist(*names, scorer=Levenshtein.normalized_similarity, workers=1) - 1
        numbers = [np.array(list(map(is_number, words))) for words in names]
        likeness[np.ix_(*numbers)] = 0
        near = place(target.places[mine] * size, answer.places[theirs] * size)
        pairs += assigned(mine, theirs, likeness.clip(0) * near)
    return pairs


def place(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(W, 2), (V, 2), in diagonals -> (W, V): what a word is worth there."""
    distance = np.linalg.norm(ours[:, None] - theirs[None], axis=-1)
    return 1 - (1 - FAR_WORTH) * ((distance - NEAR) / (FAR - NEAR)).clip(0, 1)


def assigned(mine: list[int], theirs: list[int], worth: np.ndarray) -> list[tuple[int, int, float]]:
    found = ((mine[i], theirs[j], float(worth[i, j])) for i, j in zip(*linear_sum_assignment(-worth), strict=True))
    return [pair for pair in found if pair[2] > 0]


def in_order(pairs: list[tuple[int, int, float]], ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """What the pairs are worth, less where their neighbours do not lie as in the target."""
    worth = np.array([value for *_, value in pairs])
    if len(pairs) < 2:
        return worth
    ours, theirs = ours[[t for t, _, _ in pairs]], theirs[[a for _, a, _ in pairs]]
    apart = np.linalg.norm(ours[:, None] - ours[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    nearest = np.argsort(apart, 1, kind="stable")[:, : min(NEIGHBOURS, len(pairs) - 1)]
    wanted, there = ours[nearest] - ours[:, None], theirs[nearest] - theirs[:, None]  # (pairs, neighbours, 2)
    lengths = np.linalg.norm(wanted, axis=-1) * np.linalg.norm(there, axis=-1)
    same_side = (wanted * there).sum(-1) >= 0.5 * lengths  # within 60 degrees
    return worth * ((same_side.mean(1) - 0.5) / 0.25).clip(0, 1)


def is_plain(picture, centre: np.ndarray) -> bool:
    """Whether a picture has nothing at a place."""
    x, y = centre * picture.size
    part = picture.crop((int(x) - 4, int(y) - 4, int(x) + 5, int(y) + 5)).convert("L")
    low, high = part.getextrema()
    return high - low < READABLE
