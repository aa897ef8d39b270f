"""Rows for training, read as they are needed: their order, and what becomes of those that cannot be used.

The order is a pure function of (seed, step): a run that resumes at a step, with any number of processes, gets the very
rows it would have got. Every row comes once an epoch, and batches go on across the ends of epochs.

Lines of jsonl files are shuffled all together. Rows of parquet files are shuffled locally, so that memory does not grow
with the data: row groups come in a new order in each epoch, HAND of them at a time, interleaved; what half of
files.KEPT_MB holds of that is a window, whose rows are shuffled. A set that fits into a window is shuffled as a whole.
For SFT, batches are made of rows of similar length, so that packed rows and processes have equal work, and come in
random order.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np

import data
import files
from data import Sample, Samples
from files import Parquet

HAND = 8  # row groups that are read side by side
MOST_ROWS = 65_536  # of a window
ALIKE = 4096  # rows among which those of similar length share a batch
PROBED = 32  # rows that are read before a run begins


# ------------------------------------------------------------------------------------------------------- which rows


def training_samples(path: str | Path) -> Samples:
    """The data set, of which nothing but a few rows is read yet. Raises ValueError where none of these can be used."""
    samples = data.load(path)
    problems = [problem for _, sample, problem in data.check(samples, _some_rows(samples)) if sample is None]
    if len(problems) == len(_some_rows(samples)):
        raise ValueError(
            f"{path} holds no usable sample: {len(problems)} rows were tried, the first is {problems[0]}. "
            f"`python -m corpus inspect {path}` says what is wrong with the others."
        )
    return samples


def _some_rows(samples: Samples) -> list[int]:
    """Rows from all over the set that are cheap to read: of a row group the first ones."""
    spread = lambda count, most: np.unique(np.linspace(0, count - 1, most).astype(int)).tolist()  # noqa: E731
    if not isinstance(samples.rows, Parquet):
        return spread(len(samples), PROBED)
    rows = samples.rows
    groups = spread(len(rows.groups), HAND)
    firsts = [range(int(rows.starts[g]), int(rows.starts[g] + min(rows.sizes[g], PROBED // HAND))) for g in groups]
    return list(chain(*firsts))


@contextmanager
def drawing(samples: Samples) -> Iterator[None]:
    """With a renderer meanwhile, where targets may come as programs alone."""
    if samples.build is not data._from_manifest:
        yield
        return
    from render import Renderer

    with Renderer() as samples.renderer:
        yield


# ---------------------------------------------------------------------------------------------------------------- order


def batch_indices(samples: Samples, batch_size: int, seed: int, step: int, alike: bool = True) -> list[int]:
    """The rows of batch `step`; alike: batches of rows of similar length."""
    if not isinstance(samples.rows, Parquet) or len(samples) < len(samples.rows):
        return data.batch_indices(len(samples), batch_size, seed, step)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    count, rows = len(samples), []
    window = batch_size * _batches_of_a_window(samples.rows, batch_size)
    while len(rows) < batch_size:
        position = step * batch_size + len(rows)  # counted over all epochs
        epoch, number = position // count, position // window
        first, last = max(epoch * count, number * window), min((epoch + 1) * count, (number + 1) * window)
        order = _window(samples.rows, batch_size if alike else 0, seed, epoch, first, last)
        rows += order[position - first :][: batch_size - len(rows)].tolist()
    return rows


def _batches_of_a_window(rows: Parquet, batch_size: int) -> int:
    fit = (files.KEPT_MB << 20) / 2 / rows.bytes_per_row  # the next window is read while this one is in use
    return max(1, int(min(fit, MOST_ROWS)) // batch_size)


@lru_cache(maxsize=4)
def _window(rows: Parquet, batch_size: int, seed: int, epoch: int, first: int, last: int) -> np.ndarray:
    """(last - first,) int64: the rows at these positions, all of one epoch. batch_size 0: in no order of lengths."""
    begin = epoch * len(rows)
    rng = np.random.default_rng((seed, epoch, first))
    chosen = rng.permutation(_interleaved(rows, seed, epoch, first - begin, last - begin))
    lengths = rows.lengths(chosen, data.TEXTS)  # which reads them in the order of the file
    if not batch_size:
        return chosen
    borders = np.unique([first, last, *range(-(-first // batch_size) * batch_size, last, batch_size)]) - first
    per_block, parts = max(1, ALIKE // batch_size), []
    for start in range(0, len(borders) - 1, per_block):
        cuts = borders[start : start + per_block + 1]
        block = chosen[cuts[0] : cuts[-1]]
        block = block[np.argsort(lengths[cuts[0] : cuts[-1]], kind="stable")]  # the shortest first
        sizes = np.diff(cuts)  # of batches, of which the first and the last may be parts
        order = rng.permutation(len(sizes))
        pieces = np.split(block, np.cumsum(sizes[order])[:-1])  # piece k is for batch order[k]
        parts += [pieces[k] for k in np.argsort(order)]
    return np.concatenate(parts)


def _interleaved(rows: Parquet, seed: int, epoch: int, first: int, last: int) -> np.ndarray:
    """(last - first,) int64: rows of an epoch before windows are shuffled. Row groups in random order; of each HAND of
    them the same share at a time."""
    order = np.random.default_rng((seed, epoch)).permutation(len(rows.groups))
    parts, begin = [], 0
    for at in range(0, len(order), HAND):
        hand = order[at : at + HAND]
        size = int(rows.sizes[hand].sum())
        if begin < last and begin + size > first:
            members = np.concatenate([rows.starts[group] + np.arange(rows.sizes[group]) for group in hand])
            shares = np.concatenate([(np.arange(rows.sizes[group]) + 0.5) / rows.sizes[group] for group in hand])
            members = members[np.argsort(shares, kind="stable")]
            parts.append(members[max(0, first - begin) : last - begin])
        begin += size
    return np.concatenate(parts)


# --------------------------------------------------------------------------------------------------- what can be used


def encoded(samples: Samples, indices: Sequence[int], encode: Callable[[int, Sample], object]) -> tuple[list, list]:
    """(encode(place in the batch, sample) of every row that can be used, in order; (row, what is wrong with it) of the
    others). Nothing that one row holds ends a run."""
    good, bad = [], []
    for place, (index, sample, problem) in enumerate(data.check(samples, indices)):
        try:
            if sample is not None:
                good.append(encode(place, sample))
                continue
        except Exception as error:  # of a tokenizer, an image processor, ..
            said = data.problem_of(error)
            for name in (f"Sample {sample.id}: ", f"Sample {sample.id}+refine: ", f"{sample.id}: "):
                said = said.removeprefix(name)  # the place says more
            problem = f"{samples.place(index)}: {said}"
        bad.append((index, problem))
    return good, bad
