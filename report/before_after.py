"""Targets, and what each run draws of them, side by side: which ones is decided by a rule, not by eye.

python -m report before-after untrained=runs/a SFT=runs/b ViRL=runs/c --chosen-by SFT --out before_after.png
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from answers.recorded import named_folders, read_records
from records import Record
from report.answers import without_pictures


@dataclass
class BeforeAfter:
    """Draw the first targets of each domain at which one run scored below a bound, and what every run drew of them."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Name=folder of each run, from the top."""
    chosen_by: str
    """The run whose first answer to a target has to have a visual score below the bound."""
    below: float = 0.8
    """The bound."""
    each: int = 5
    """Targets of every domain."""
    out: Path = Path("before_after.png")
    """The picture."""

    def __call__(self) -> None:
        folders = named_folders(self.runs)
        if self.chosen_by not in folders:
            raise ValueError(f"--chosen-by {self.chosen_by} is none of the runs, which are given as name=folder")
        judged = first_answers(folders[self.chosen_by])
        ids = choose(judged, self.below, self.each)
        if not ids:
            return print(f"nothing to draw: no target of {self.chosen_by} scored below {self.below:g}")
        runs = {name: first_answers(folder, ids) for name, folder in folders.items()}
        if missing := [name for name, records in runs.items() if not set(ids) <= records.keys()]:
            raise ValueError(f"{missing[0]} has no answer to some of the targets; give runs of the same targets")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        draw(runs, ids).savefig(self.out)
        below = sum(record.score.visual < self.below for record in judged.values())
        print(f"wrote {self.out}: {below} of {len(judged)} targets scored below {self.below:g}")


def first_answers(folder: str, ids: Sequence[str] = ()) -> dict[str, Record]:
    """{target's id: the first of its answers}, with the pictures of `ids` alone."""
    first = (record for record in read_records(folder) if record.index == 0)
    return {r.sample.id: r if r.sample.id in ids else without_pictures(r) for r in first}


def choose(records: dict[str, Record], below: float, each: int) -> list[str]:
    """Ids of the first `each` targets of every domain that scored below, domain after domain."""
    chosen: dict[str, list[str]] = {}
    for id, record in records.items():
        same_domain = chosen.setdefault(record.sample.domain, [])
        if record.score.visual < below and len(same_domain) < each:
            same_domain.append(id)
    return [id for ids in chosen.values() for id in ids]


def draw(runs: dict[str, dict[str, Record]], ids: list[str]) -> Figure:
    """The targets in the first row, what each run drew of them below."""
    first = next(iter(runs.values()))
    rows = {"target": [first[id].sample.image for id in ids]}
    rows |= {name: [records[id].rendering.image for id in ids] for name, records in runs.items()}
    figure = Figure(figsize=(1.2 * len(ids) + 0.9, 1.22 * len(rows)), dpi=100, layout="constrained")
    for panels, (name, pictures) in zip(figure.subplots(len(rows), len(ids), squeeze=False), rows.items(), strict=True):
        panels[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
        for axes, picture in zip(panels, pictures, strict=True):
            axes.set(xticks=[], yticks=[], box_aspect=1)
            axes.spines[:].set_color("#c8c8c8")
            if picture is None:
                axes.text(0.5, 0.5, "no picture", ha="center", va="center", color="#9a9a9a", fontsize=9)
            else:
                x, y = (side / max(picture.size) / 2 for side in picture.size)
                axes.imshow(picture, extent=(0.5 - x, 0.5 + x, 0.5 - y, 0.5 + y))
                axes.set(xlim=(0, 1), ylim=(0, 1))
    return figure
