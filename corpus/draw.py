"""Pictures for programs that have none: a manifest in which every row that can be drawn names its picture.

    python -m corpus draw DATA --out FOLDER                # go on after an interruption: the same command

DATA is a folder with MANIFEST.jsonl. FOLDER/MANIFEST.jsonl has its rows in their order, with `image` the PNG that the
program draws, in FOLDER/pictures; a row that cannot be drawn or read keeps its place, with what is wrong with it in
`problem`. A picture is named after its program, so equal programs are drawn once, and what is there is not drawn again.
"""

import hashlib
import json
import os
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image
from tqdm import tqdm

from corpus.drawn import check
from data import Sample, Samples, load, reason_of
from render import Renderer, Rendering

PATHS = ("path", "draft")  # columns of a manifest that name files


@dataclass
class Draw:
    """Draw the programs of a manifest once, so that training can read their pictures."""

    data: tyro.conf.Positional[str]
    """Folder with MANIFEST.jsonl, of which rows may have no picture."""
    out: str
    """Folder of the new manifest and its pictures."""
    workers: int | None = None
    """Programs that are drawn at a time; one per core if not given."""
    timeout: float = 10.0
    """Seconds that one program may have: its CPU time and sleep, not what it waits for a core that others have."""
    python: str | None = None
    """The interpreter that Python programs run in, with its packages; .venv/render, which `make` builds, by default."""
    svg_side: int = 448
    """Longer side of an svg's picture, px."""
    allow_unsafe_rendering: bool = False
    """Render without a sandbox where the machine offers none."""

    def __call__(self) -> None:
        samples, out, problems = load(self.data), Path(self.out), Counter()
        if samples.rows.files[0].name != "MANIFEST.jsonl":
            raise ValueError(f"{self.data} has no MANIFEST.jsonl: only its kind of rows can be without pictures")
        if out.resolve() == samples.rows.files[0].parent.resolve():
            raise ValueError(f"--out {out} is the data set itself; give another folder")
        (out / "pictures").mkdir(parents=True, exist_ok=True)
        options = {"svg_side": self.svg_side, "python": self.python, "allow_unsafe": self.allow_unsafe_rendering}
        partial = out / f".MANIFEST.{os.getpid()}.partial"
        try:
            with Renderer(self.workers, self.timeout, **options) as renderer, open(partial, "w") as file:
                pictures = Undrawn(renderer, out / "pictures", self.svg_side)
                rows = check(samples, pictures)
                for index, sample, problem in tqdm(rows, "drawing", len(samples), unit=" rows", delay=2):
                    file.write(json.dumps(self._row(samples, pictures, index, sample, problem)) + "\n")
                    problems.update([reason_of(problem)] if problem else [])
            drawn = out / "MANIFEST.jsonl"
            if not drawn.exists() or drawn.read_bytes() != partial.read_bytes():  # the same stays: a run that goes on
                os.replace(partial, drawn)  # knows its data by their time
        finally:
            partial.unlink(missing_ok=True)
        lost = "; ".join(f"{count} x {reason}" for reason, count in problems.most_common(5))
        print(f"{out}: {len(samples)} rows, {problems.total()} of them without a picture{lost and f': {lost}'}")

    def _row(self, samples: Samples, pictures: "Undrawn", index: int, sample: Sample | None, problem: str) -> dict:
        """The row of the new manifest, its picture written."""
        place, id, folder = samples.rows.place(samples.indices[index])
        try:
            row = samples.rows[samples.indices[index]]
        except ValueError:  # which is the problem
            row = {}
        row["id"] = sample.id if sample else row.get("id", id)
        if problem:
            return row | {"problem": problem.removeprefix(f"{place}: ")}
        for column in PATHS:
            if row.get(column):
                row[column] = os.path.abspath(folder / row[column])
        if not row.get("image"):
            row["image"] = f"pictures/{pictures.keep(sample)}"
        elif isinstance(row["image"], str) and (folder / row["image"]).is_file():
            row["image"] = os.path.abspath(folder / row["image"])
        return row


class Undrawn:
    """A renderer that draws what has no picture in the folder yet."""

    def __init__(self, renderer: Renderer, folder: Path, svg_side: int):
        self.renderer, self.folder, self.svg_side = renderer, folder, svg_side

    def _name(self, code: str, language: str) -> str:
        size = self.svg_side if language == "svg" else ""
        return hashlib.sha256(f"{language} {size}\n{code}".encode(errors="replace")).hexdigest()[:32] + ".png"

    def submit(self, code: str, language: str) -> Future:
        path = self.folder / self._name(code, language)
        if not path.exists():
            return self.renderer.submit(code, language)
        there = Future()
        there.set_result(Rendering(Image.new("RGB", (1, 1)), None, 0.0))  # stands for it: nobody looks
        return there

    def keep(self, sample: Sample) -> str:
        """The name of the file that holds the sample's picture, which is written if it is not there."""
        name = self._name(sample.code, sample.language)
        if not (self.folder / name).exists():
            partial = self.folder / f".{name}.{os.getpid()}.partial"
            sample.image.save(partial, "PNG")
            os.replace(partial, self.folder / name)
        return name
