"""Rows of parquet files for training, in constant memory: no copy on disk, no pass over the data before the first step.

`Stream` opens the footers only. Its order is local, so that a few row groups at a time are in memory: the row groups
are shuffled anew in each epoch, and rows within a window of about `WINDOW` rows. Within a window, batches are made of
rows of similar length (so packed rows fill up evenly), and batches come in random order. All of it is a pure function
of (seed, step): a run that resumes at a step, with any number of processes, gets the very rows it would have got.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

import data
from corpus.files import parquet_footers
from corpus.readers import SCHEMAS, _arrow_row, schema_of
from data import Sample

WINDOW = 4096  # rows that are shuffled together
KEPT_MB = 256  # MiB of row groups kept in memory


def training_samples(path: str | Path) -> Sequence[Sample]:
    """A corpus of `data.py build` (a card.md lies above the shards) was checked row by row, and is streamed. Any other
    is checked now: what is unusable is dropped and counted. Raises ValueError where nothing is left."""
    if any((folder / "card.md").is_file() for folder in (Path(path), *list(Path(path).parents)[:2])):
        return Stream(path)
    from render import Renderer

    with Renderer() as renderer:
        return data.load_usable(path, renderer, need_code=True)[0]


def batch_indices(samples: Sequence[Sample], batch_size: int, seed: int, step: int) -> list[int]:
    """The rows of batch `step`: a pure function, so resume needs no state."""
    if isinstance(samples, Stream):
        return samples.batch_indices(batch_size, seed, step)
    return data.batch_indices(len(samples), batch_size, seed, step)


class Stream(Sequence):
    """stream[i] decodes row i of all files, or raises a ValueError that names it. `batch_indices` gives the order."""

    def __init__(self, path: str | Path):
        path = Path(path)
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        columns, footers = parquet_footers(path, files)
        self.footers = dict(zip(files, footers, strict=True))
        self.groups = [(file, g) for file, footer in self.footers.items() for g in range(footer.num_row_groups)]
        sizes = [self.footers[file].row_group(group).num_rows for file, group in self.groups]
        schema, self.convert = schema_of(columns, path)
        self.columns = sorted(columns & {*SCHEMAS[schema][0], "answer"})
        self.texts = [name for name in ("user_content", "assistant_content", "problem", "answer") if name in columns]
        self.ends = np.cumsum(sizes)  # (groups,)
        self.starts = self.ends - sizes
        self.kept: OrderedDict[int, pyarrow.Table] = OrderedDict()  # least recently used first
        self._window = lru_cache(maxsize=2)(self._window)  # of this stream alone

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Sample:
        group = bisect_right(self.ends, index)
        table, row = self._group(group), index - int(self.starts[group])
        file, number = self.groups[group]
        place = f"{file.name} row group {number} row {row}"
        raw = _arrow_row(table, row)
        try:
            if isinstance(raw, ValueError):
                raise raw
            return self.convert(raw, f"{file.stem}-{index}", file.parent)
        except (ValueError, OSError) as error:
            raise ValueError(f"{place}: {error}") from None

    def _group(self, group: int) -> pyarrow.Table:
        if group not in self.kept:
            file, number = self.groups[group]
            with pyarrow.parquet.ParquetFile(file, metadata=self.footers[file]) as parquet:
                self.kept[group] = parquet.read_row_group(number, columns=self.columns, use_threads=False)
            while len(self.kept) > 2 and sum(table.nbytes for table in self.kept.values()) > KEPT_MB << 20:
                self.kept.popitem(last=False)
        self.kept.move_to_end(group)
        return self.kept[group]

    def batch_indices(self, batch_size: int, seed: int, step: int) -> list[int]:
        """The rows of batch `step`. An epoch has len // batch_size batches; fewer than batch_size rows sit it out,
        others in each epoch."""
        if not 1 <= batch_size <= len(self):
            raise ValueError(f"batch_size={batch_size} must lie between 1 and the number of rows, {len(self)}")
        epoch, batch = divmod(step, len(self) // batch_size)
        per_window = max(1, WINDOW // batch_size)
        window, batch = divmod(batch, per_window)
        return self._window(batch_size, seed, epoch, window, per_window)[batch].tolist()

    def _window(self, batch_size: int, seed: int, epoch: int, window: int, per_window: int) -> np.ndarray:
        """(batches, batch_size) int64: rows."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self.groups))
        sizes = (self.ends - self.starts)[order]
        ends = np.cumsum(sizes)
        first = window * per_window * batch_size
        last = min(first + per_window * batch_size, len(self) // batch_size * batch_size)
        rows = []
        for place in range(bisect_right(ends, first), len(order)):
            begin = int(ends[place] - sizes[place])
            if begin >= last:
                break
            low, high = max(first, begin) - begin, min(last, int(ends[place])) - begin
            rows.append(self.starts[order[place]] + np.arange(low, high))
        rows = np.concatenate(rows)
        rng = np.random.default_rng((seed, epoch, window))
        rows = rng.permutation(rows)  # rows of one length change places in every epoch
        batches = rows[np.argsort(self._lengths(rows), kind="stable")].reshape(-1, batch_size)
        return rng.permutation(batches)

    def _lengths(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) characters of prompt and answer."""
        lengths = np.zeros(len(rows), np.int64)
        groups = np.searchsorted(self.ends, rows, side="right")
        for group in np.unique(groups):
            file, number = self.groups[group]
            with pyarrow.parquet.ParquetFile(file, metadata=self.footers[file]) as parquet:
                table = parquet.read_row_group(number, columns=self.texts, use_threads=False)
            of_rows = np.zeros(table.num_rows, np.int64)
            for name in self.texts:
                values = pyarrow.compute.binary_length(table[name]).fill_null(0)
                of_rows += values.to_numpy().astype(np.int64)
            here = groups == group
            lengths[here] = of_rows[rows[here] - self.starts[group]]
        return lengths
