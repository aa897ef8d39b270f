"""RL prompts by the policy's own reward: what it always does well, or never, teaches nothing.

    python eval.py run --model SFT --data pool.parquet --G 8 --temperature 1 --out runs/x/eval/pool
    python -m corpus choose runs/x/eval/pool --out rl.parquet

Of each target, the mean m and the standard deviation s of the reward over its G sampled answers (a program that fails
counts with its alignment alone, as in training). GRPO's advantages are 0 where s is 0, and grow out of noise where it
is small, so a target is kept if s >= `min_spread` and `min_mean` <= m <= `max_mean`; if there are more than `count`,
those of the largest s.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import tyro

from corpus.publish import RL


@dataclass
class Choose:
    """Choose RL prompts from a folder of sampled answers."""

    folder: tyro.conf.Positional[str]
    """What `eval.py run --G 8 --temperature 1` wrote."""
    out: str = "rl.parquet"
    """The chosen targets, in the EasyR1 schema (problem, answer, images)."""
    min_mean: float = 0.05
    """Targets below this mean reward are hopeless."""
    max_mean: float = 0.95
    """Targets above are solved."""
    min_spread: float = 0.03
    """Least standard deviation of the reward over the answers of a target."""
    count: int | None = None
    """At most so many targets."""

    def __call__(self) -> None:
        targets = [*rewards(Path(self.folder))]
        verdicts = [self.verdict(totals) for _, totals in targets]
        good = [i for i, verdict in enumerate(verdicts) if verdict == "kept"]
        if self.count is not None and len(good) > self.count:
            spread = {i: np.std(targets[i][1], ddof=1) for i in good}
            good = sorted(sorted(good, key=lambda i: (-spread[i], i))[: self.count])
        if not good:
            said = ", ".join(f"{number} {verdict}" for verdict, number in Counter(verdicts).most_common())
            raise ValueError(f"{self.folder}: none of {len(targets)} targets is left ({said}); widen the bounds")
        _write(Path(self.out), Path(self.folder), [targets[i][0] for i in good])
        counts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(Counter(verdicts).items()))
        print(f"{self.out}: {len(good)} of {len(targets)} targets ({counts})")

    def verdict(self, totals: list[float]) -> str:
        if len(totals) < 2:
            return "with fewer than two answers"
        mean, spread = float(np.mean(totals)), float(np.std(totals, ddof=1))
        if mean < self.min_mean:
            return "hopeless"
        if mean > self.max_mean:
            return "solved"
        return "kept" if spread >= self.min_spread else "all alike"


def rewards(folder: Path) -> Iterator[tuple[dict, list[float]]]:
    """(the target's row, the rewards of its answers), in the order of the file, which has a target's answers together.
    Raises FileNotFoundError, or ValueError for a line that cannot be read."""
    path = folder / "records.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no records.jsonl; make it with: python eval.py run --out {folder}")
    sample, totals = None, []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                total = float((row["attempts"] or [row])[0]["score"]["total"])  # of the first answer, before refinement
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} line {number} is no record of eval.py ({error}); remove it") from None
            if sample is not None and row["sample"]["id"] != sample["id"]:
                yield sample, totals
                totals = []
            sample = row["sample"]
            totals.append(total)
    if sample is not None:
        yield sample, totals


def _write(path: Path, folder: Path, samples: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with pyarrow.parquet.ParquetWriter(partial, RL) as writer:
            for start in range(0, len(samples), 256):
                rows = [
                    {
                        "problem": "<image>\n" + sample["prompt"],
                        "answer": sample["code"],
                        "images": [{"bytes": (folder / sample["image"]).read_bytes(), "path": None}],
                    }
                    for sample in samples[start : start + 256]
                ]
                writer.write_table(pyarrow.Table.from_pylist(rows, RL))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
