"""Rows for training, read as they are needed: their order, which can be used, and the count of those that cannot.

The order is a pure function of (seed, step): a run that resumes at a step, with any number of processes, gets the very
rows it would have got. Every row comes once an epoch, and batches go on across the ends of epochs.

Lines of jsonl files are shuffled all together. Rows of parquet files are shuffled locally, so that memory does not grow
with the data: row groups come in a new order in each epoch, HAND of them at a time, interleaved; the result is cut into
windows of half of files.KEPT_MB, whose rows are shuffled. A small set is shuffled whole in its first epoch; later ones
are cut where a window ends.
For SFT, batches are made of rows of similar length, so that packed rows and processes have equal work, and come in
random order.
"""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

import data
import files
from data import Sample, Samples
from files import Parquet
from processes import all_gather, rank_and_size

HAND = 8  # row groups that are read side by side
MOST_ROWS = 65_536  # of a window
ALIKE = 4096  # rows among which those of similar length share a batch
PROBED = 32  # rows that are read before a run begins
NAMED = 20  # bad rows of each reason that are named on the console
COUNTS = ("seen", "used", "too_long", "idle")
ENOUGH = 1000  # rows after which their share is taken for that of all


def try_some_rows(samples: Samples, path: str | Path) -> None:
    """Reads a few rows from all over the set. Raises ValueError where none of them can be used."""
    problems = [problem for _, _, problem in data.check(samples, _some_rows(samples))]
    if all(problems):
        tried = f"{len(problems)} rows were tried, the first is {problems[0]}"
        others = f"`python -m corpus inspect {path}` says what is wrong with the others"
        raise ValueError(f"{path} holds no usable sample: {tried}. {others}.")


def drawn_by_a_process(path: str, folder: Path, *options: str) -> Samples:
    """The data set at `path`, of programs, with the pictures that `python -m corpus draw` leaves in `folder`."""
    failed = False
    if rank_and_size()[0] == 0:
        draw = [sys.executable, "-m", "corpus", "draw", os.path.abspath(path), "--out", os.path.abspath(folder)]
        failed = subprocess.run([*draw, *options], cwd=Path(__file__).parent).returncode != 0
    if any(all_gather(failed)):
        raise RuntimeError(f"The programs of {path} have no pictures, and could not be drawn (see above).")
    return data.load(folder)


def _some_rows(samples: Samples) -> list[int]:
    """Rows from all over the set that are cheap to read: of a row group the first ones."""
    spread = lambda count, most: np.unique(np.linspace(0, count - 1, most).astype(int)).tolist()  # noqa: E731
    if not isinstance(samples.rows, Parquet):
        return spread(len(samples), PROBED)
    starts, sizes = samples.rows.starts, samples.rows.sizes
    groups = spread(len(starts), HAND)
    return [int(starts[group]) + k for group in groups for k in range(min(sizes[group], PROBED // HAND))]


# ---------------------------------------------------------------------------------------------------------------- order


def batch_indices(samples: Samples, batch_size: int, seed: int, step: int, alike: bool = True) -> list[int]:
    """The rows of batch `step`; alike: batches of rows of similar length, where the set is of parquet files."""
    count, rows = len(samples), []
    if count < 1 or batch_size < 1:
        raise ValueError(f"{count} rows and batch_size={batch_size} must be at least 1; check the data path")
    local, window = isinstance(samples.rows, Parquet) and count == len(samples.rows), 0
    if local:  # the next window is read while this one is in use
        fit = min(MOST_ROWS, (files.KEPT_MB << 20) / 2 / samples.rows.bytes_per_row)
        window = batch_size * max(1, int(fit) // batch_size)
    for position in range(step * batch_size, (step + 1) * batch_size):  # counted over all epochs
        epoch = position // count
        first, last = epoch * count, (epoch + 1) * count
        if local:
            number = position // window
            first, last = max(first, number * window), min(last, (number + 1) * window)
            order = _window(samples.rows, batch_size if alike else 0, seed, epoch, first, last)
        else:
            order = _whole_epoch(count, seed, epoch)
        rows.append(int(order[position - first]))
    return rows


@lru_cache(maxsize=4)
def _whole_epoch(count: int, seed: int, epoch: int) -> np.ndarray:
    """(count,) int64: all rows, shuffled."""
    return np.random.default_rng((seed, epoch)).permutation(count)


@lru_cache(maxsize=4)
def _window(rows: Parquet, batch_size: int, seed: int, epoch: int, first: int, last: int) -> np.ndarray:
    """(last - first,) int64: the rows at these positions, all of one epoch. batch_size 0: in no order of lengths."""
    begin = epoch * len(rows)
    rng = np.random.default_rng((seed, epoch, first))
    chosen = rng.permutation(_interleaved(rows, seed, epoch, first - begin, last - begin))
    lengths = rows.preload(chosen, data.TEXTS if batch_size else ())
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


# ------------------------------------------------------------------------------------------- what can be used, how much


def encoded(samples: Samples, indices: Sequence[int], encode: Callable[[int, Sample], object]) -> tuple[list, list]:
    """(encode(place in the batch, sample) of every row that can be used, in order; (row, what is wrong with it) of the
    others). Nothing that one row holds ends a run."""
    good, bad = [], []
    for place, (index, sample, problem) in enumerate(data.check(samples, indices)):
        if sample is None:
            bad.append((index, problem))
            continue
        try:
            if sample.image is None:
                raise ValueError("has no picture; draw the programs first: python -m corpus draw DATA --out FOLDER")
            good.append(encode(place, sample))
        except Exception as error:  # of a tokenizer, an image processor, ..
            name = rf"(Sample )?{re.escape(sample.id)}(\+refine)?: "  # the place says more
            bad.append((index, f"{samples.place(index)}: {re.sub(name, '', data.problem_of(error), count=1)}"))
    return good, bad


@dataclass
class Tally:
    """What became of the rows of a run, of all processes, which all count the same. `state` goes into checkpoints."""

    path: str
    rows: int  # of the data set
    data: list  # what tells it from another, or from what it was before somebody mended it
    max_rejects: float
    limit: str  # the flag that makes pairs too long
    seen: int = 0
    used: int = 0
    too_long: int = 0
    idle: int = 0  # good ones of steps that were not taken, as a process had none
    bad: dict[int, str] = field(default_factory=dict)  # row -> what is wrong with it, in few words

    @classmethod
    def of(cls, config, samples: Samples, limit: str, state: dict) -> "Tally":
        """state: that of a checkpoint, which may be an older one and know nothing of rows. Other data, or data that was
        mended since, are counted anew."""
        files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in samples.rows.files]
        about = [len(samples), *sorted(files)]
        same = state.get("data", about) == about
        known = {name: state[name] for name in (*COUNTS, "bad") if name in state and same}
        return cls(config.data, len(samples), about, config.max_rejects, limit, **known)

    def state(self) -> dict:
        return {"data": self.data, "bad": dict(self.bad)} | {name: getattr(self, name) for name in COUNTS}

    def add(self, used: int, too_long: int, bad: Sequence[tuple[int, str]]) -> bool:
        """Count this process' share of a batch -> whether every process has rows to work on. Bad rows are named on the
        console. Raises ValueError where too many cannot be used, or none at all."""
        shares = all_gather((used, too_long, list(bad)))
        usable = [used for used, _, _ in shares]
        if min(usable):
            self.used += sum(usable)
        else:
            self.idle += sum(usable)
        reasons = self.reasons()
        for used, too_long, problems in shares:
            self.too_long += too_long
            self.seen += used + too_long + len(problems)
            for row, problem in problems:
                if row not in self.bad:
                    self.bad[row] = reason = data.reason_of(problem)
                    reasons[reason] += 1
                    if rank_and_size()[0] == 0 and reasons[reason] <= NAMED:
                        more = " (others like it are counted, and not named)" if reasons[reason] == NAMED else ""
                        tqdm.write(f"left out: {problem}{more}", file=sys.stderr)
        known = min(self.seen, self.rows)  # after an epoch, all
        if known >= min(self.rows, ENOUGH):
            self._stop_where_hopeless(known)
        return min(usable) > 0

    def reasons(self) -> Counter:
        return Counter(self.bad.values())

    def metrics(self) -> dict[str, int]:
        counts = {f"bad_rows/{reason}": count for reason, count in sorted(self.reasons().items())}
        return {"bad_rows": len(self.bad), **counts}

    def end(self) -> str:
        """What to say of the rows in the end, "" where every one could be used. Raises ValueError where none was."""
        if self.seen:
            self._stop_where_hopeless(self.rows)
        bad = f", {len(self.bad)} of {self.rows} rows could not be used: {self._often(5)}" if self.bad else ""
        idle = f", {self.idle} times a row was left out with a step in which a process had none" if self.idle else ""
        return bad + (f", {self.too_long} pairs were too long" if self.too_long else "") + idle

    def _often(self, count: int) -> str:
        return "; ".join(f"{count} x {reason}" for reason, count in self.reasons().most_common(count))

    def _stop_where_hopeless(self, known: int) -> None:
        if len(self.bad) > self.max_rejects * known:
            what = f"{len(self.bad)} of {known} rows of {self.path} cannot be used, more than {self.max_rejects:.0%}"
            remedy = f"`python -m corpus inspect {self.path}` names them; mend them, or raise --max-rejects."
            raise ValueError(f"{what}: {self._often(3)}. {remedy}")
        if not self.used:
            what = f"None of {self.seen} rows of {self.path} could be used, {self.too_long} for having too many tokens"
            raise ValueError(f"{what}; raise {self.limit}, or make the pictures smaller.")
