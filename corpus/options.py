"""What a corpus is asked to be: the options of a build, and the folder that remembers them."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro

from corpus.drafts import BAND

FORMAT = 2  # of the files in work/
UNBOUND = ("out", "processes", "workers", "max_rejects", "keep_work")  # options that do not change what comes out


@dataclass
class Options:
    """Build a corpus from programs, with or without pictures."""

    paths: tyro.conf.Positional[tuple[str, ...]]
    """What to read: manifest folders, .parquet, .jsonl, .json, folders of eval.py, hub names."""
    out: str = "runs/corpus"
    """Folder of the corpus."""
    against: tuple[str, ...] = ()
    """Evaluation sets: rows that are duplicates of theirs are left out."""
    rows: int | None = None
    """Keep so many direct rows, the domains and within them short, middle and long programs in equal shares as far as
    there are enough; all if not given."""
    rl: int = 0
    """Choose so many of the direct rows as RL prompts."""
    refine: float = 0.15
    """Share of the rows that also become refinement tasks, with a seeded draft."""
    band: tuple[float, float] = BAND
    """Least and greatest visual score of a draft's picture against the target."""
    draft_pictures: bool = False
    """Add the draft's picture, in a column draft_image (the published rows have none)."""
    match: float = 0.65
    """Least visual score of what a program draws against the picture that came with it."""
    pictures: Literal["rendered", "given"] = "rendered"
    """Which becomes the target where a row came with a picture."""
    max_tokens: int = 16_384
    """Words and signs of a program, at most."""
    max_rejects: float = 0.2
    """Stop when more than this share of the rows cannot be used."""
    seed: int = 0
    """Seed of the drafts and of what is chosen."""
    limit: int | None = None
    """Use the first so many rows of each path only."""
    processes: int | None = None
    """Processes that build chunks, default one per CPU; 1: this one alone."""
    workers: int = 1
    """Programs that each process draws at a time."""
    chunk_rows: int = 128
    """Rows of a chunk: what an interruption costs at most, per process."""
    shard_rows: int = 8192
    """Rows of a parquet file that comes out."""
    timeout: float = 10.0
    """Seconds that one program may have: its CPU time and sleep, not what it waits for a core that others have."""
    svg_side: int = 448
    """Longer side of an svg's picture, px."""
    keep_work: bool = False
    """Keep the chunks (OUT/work) when done, for another choice of rows."""
    allow_unsafe_rendering: bool = False
    """Render without a sandbox where the machine offers none."""

    def __post_init__(self):
        if not self.paths:
            raise ValueError("name what to build from: python -m corpus build PATH ... --out FOLDER")
        if not 0 <= self.refine <= 1 or not 0 <= self.band[0] < self.band[1] <= 1 or not 0 <= self.match <= 1:
            raise ValueError("--refine, --band and --match lie in [0, 1], the band's lower bound below its upper")
        counts = {"chunk-rows": self.chunk_rows, "shard-rows": self.shard_rows, "workers": self.workers}
        counts |= {"processes": self.processes or 1, "rows": self.rows or 1, "limit": self.limit or 1}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"--{name} must be at least 1")

    def same_as_before(self, out: Path) -> None:
        """Raises ValueError where the folder was begun with other options, for chunks of both would be mixed."""
        binding = {key: value for key, value in asdict(self).items() if key not in UNBOUND} | {"format": FORMAT}
        binding = json.loads(json.dumps(binding))
        path = out / "config.json"
        if path.exists():
            before = json.loads(path.read_text())
            other = [key for key in binding if before.get(key) != binding[key]]
            if other:
                raise ValueError(f"{out} was begun with another {', '.join(other)}; use the same or another --out")
        else:
            replace_file(path, json.dumps(binding, indent=1) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Whatever ends this process, the file holds either what it held or all of the text."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
