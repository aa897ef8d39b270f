"""From collected rows to a corpus: read, check, draw, compare, leave out duplicates, draft, balance, write.

    python -m corpus build PROGRAMS more.parquet --out corpus            # go on after an interruption: the same command

What comes out in OUT: `sft/` (direct-*.parquet, refine-*.parquet: user_content, assistant_content, image), `rl/`
(problem, answer, images), `rejects.jsonl` (every row left out, with its place and the reason), `card.md` and
`contact_sheet.png`. The same rows and the same options give the same bytes, however often the build was interrupted.

Work is done in chunks of rows, in several processes (`corpus/chunks.py`), each written under a temporary name and then
renamed. Duplicates, balance and the shards come after the last chunk (`corpus/publish.py`).
"""

import ctypes
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from corpus import publish
from corpus.options import Options
from corpus.readers import Row, Source, open_source


@dataclass
class Build(Options):
    """Build a corpus from programs, with or without pictures."""

    def __call__(self) -> None:
        out = Path(self.out)
        sources = [open_source(path) for path in self.paths]
        with _owned(out):
            self.same_as_before(out)
            if (out / "card.md").exists():
                print(f"{out} is finished; see {out / 'card.md'}")
            else:
                self.build_chunks(sources)
                publish.publish(self, sources)
                print(f"{out}: see {out / 'card.md'}")
            if not self.keep_work:
                shutil.rmtree(out / "work", ignore_errors=True)

    def build_chunks(self, sources: list[Source]) -> None:
        """Every chunk of every source that is not there yet. Raises ValueError where too many rows are unusable."""
        work = Path(self.out) / "work"
        rows = rejected = 0
        reasons: Counter = Counter()
        bar = tqdm(total=self._total(sources), desc="building", unit=" rows", delay=2, smoothing=0.05)
        for report in self._reports(sources, work):
            rows += report["rows"]
            faults = [reject for reject in report["rejects"] if reject["stage"] != "draft"]
            rejected += len(faults)
            reasons.update(f"{reject['stage']}: {reject['reason']}" for reject in faults)
            bar.update(report["rows"])
            bar.set_postfix(rejected=rejected)
            if rows >= 1000 and rejected > self.max_rejects * rows:
                break
        bar.close()
        if rejected > self.max_rejects * rows:
            publish.write_rejects(Path(self.out), [])
            often = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
            raise ValueError(
                f"{rejected} of {rows} rows cannot be used, more than {self.max_rejects:.0%}: {often}. All are in "
                f"{Path(self.out) / 'rejects.jsonl'}; mend the source, or go on with a higher --max-rejects."
            )
        if not rows:
            raise ValueError(f"{', '.join(self.paths)}: no rows")

    def _total(self, sources: list[Source]) -> int | None:
        if any(source.total is None for source in sources):
            return None
        return sum(min(source.total, self.limit or source.total) for source in sources)

    def _chunks(self, sources: list[Source], work: Path) -> Iterator[tuple[Path, Source, list[Row] | None]]:
        """(file, source, rows) of every chunk; rows None where the file is there already, which is then not read."""
        for number, source in enumerate(sources):
            name = lambda k: work / f"{number:02}-{k:07}.parquet"  # noqa: B023, E731
            first = next(k for k in range(sys.maxsize) if not name(k).exists())
            yield from ((name(k), source, None) for k in range(first))
            start = first * self.chunk_rows
            rows = source.rows(start)
            if self.limit is not None:
                rows = islice(rows, max(0, self.limit - start))
            for k in range(first, sys.maxsize):
                chunk = list(islice(rows, self.chunk_rows))
                if not chunk:
                    break
                yield name(k), source, None if name(k).exists() else chunk

    def _reports(self, sources: list[Source], work: Path) -> Iterator[dict]:
        """The report of every chunk, those done before included, in the order in which they are finished."""
        work.mkdir(parents=True, exist_ok=True)
        for partial in work.glob(".*.partial"):
            partial.unlink()
        chunks = self._chunks(sources, work)
        processes = self.processes or os.cpu_count() or 1
        if processes == 1:
            yield from self._reports_alone(chunks)
            return
        pool, waiting = None, set()
        try:
            for path, source, rows in chunks:
                if rows is None:
                    yield json.loads(path.with_suffix(".json").read_text())
                    continue
                if pool is None:
                    bare = [replace(source, rows=None) for source in sources]  # what can be sent
                    context = multiprocessing.get_context("spawn")
                    pool = ProcessPoolExecutor(processes, context, _begin, (self, bare, os.getpid()))
                waiting.add(pool.submit(_build_chunk, path, sources.index(source), rows))
                if len(waiting) > 2 * processes:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            yield from (future.result() for future in waiting)
        except BrokenProcessPool:
            raise RuntimeError(
                "a process of the build was killed, perhaps for want of memory; start it again with fewer --processes"
            ) from None
        finally:
            if pool:
                pool.shutdown(wait=True, cancel_futures=True)

    def _reports_alone(self, chunks) -> Iterator[dict]:
        from corpus.chunks import Chunks

        builder = None
        try:
            for path, source, rows in chunks:
                if rows is None:
                    yield json.loads(path.with_suffix(".json").read_text())
                    continue
                builder = builder or Chunks(self, self.workers)
                yield builder.write(path, source, rows)
        finally:
            if builder:
                builder.close()


@contextmanager
def _owned(out: Path):
    """The folder, for this process alone. Raises ValueError where another build is at work in it."""
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)  # the folder itself: no file that would be part of the corpus
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(f"another build is at work in {out}; wait for it or use another --out") from None
    finally:
        os.close(descriptor)


# what runs in a process of the pool

_builder = None
_sources: list[Source] = []


def _begin(config: Build, sources: list[Source], parent: int) -> None:
    """Ends with its parent, whatever ends that. One thread each: the processes share the cores."""
    global _builder, _sources
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    import torch

    torch.set_num_threads(1)
    from corpus.chunks import Chunks

    _builder, _sources = Chunks(config, config.workers), sources


def _build_chunk(path: Path, source: int, rows: list[Row]) -> dict:
    return _builder.write(path, _sources[source], rows)
