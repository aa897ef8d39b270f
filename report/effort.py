"""Score against effort: what K rounds of refinement and the best of N answers are worth, as a picture and as a file."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from records import Record
from report.curves import COLOURS, GRID, INK, SOFT, save
from report.statistics import best_of, by_round

BRIGHT = ("#7fc4bb", "#e0a070", "#9fb0ea", "#d98bb3", "#b9c774", "#c8a888", "#8ccbe2", "#b9b7b0")  # COLOURS on dark
TITLES = {"refine": "Rounds of refinement, K", "best": "Best of N answers, by reward"}
Curve = list[tuple[float, float, float]]  # (mean, low, high) for 0, 1, .. K or 1, 2, .. N


def effort_curves(runs: dict[str, Sequence[Record]]) -> dict[str, dict[str, Curve]]:
    """{"refine" and "best": {run: visual score after 0 .. K rounds, or of the best of 1 .. N}}; only what was tried."""
    found: dict[str, dict[str, Curve]] = {"refine": {}, "best": {}}
    for name, records in runs.items():
        for kind, curve in (("refine", by_round(records)), ("best", best_of(records))):
            if len(curve) > 1:
                found[kind][name] = curve
    return {kind: curves for kind, curves in found.items() if curves}


def draw_effort(curves: dict[str, dict[str, Curve]], names: Sequence[str], dark: bool = False) -> Figure:
    """A panel for each of `effort_curves`; every run keeps its colour, bands are 95 % bootstrap intervals."""
    page, ink, soft, grid = ("#1b1d20", "#e9e8e4", "#a09f99", "#2c2f33") if dark else ("white", INK, SOFT, GRID)
    colours = dict(zip(names, (BRIGHT if dark else COLOURS) * (1 + len(names) // len(COLOURS)), strict=False))
    figure = Figure(figsize=(5.2 * len(curves), 3.3), dpi=150, layout="constrained", facecolor=page)
    for ax, (kind, runs) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        first = 1 if kind == "best" else 0
        for name, curve in runs.items():
            mean, low, high = zip(*curve, strict=True)
            x = range(first, first + len(curve))
            ax.fill_between(x, low, high, color=colours[name], alpha=0.16, linewidth=0)
            label = name.replace("$", r"\$")[:40]  # names are no formulas
            label = f" {label}" if label.startswith("_") else label  # which matplotlib would hide
            ax.plot(x, mean, color=colours[name], linewidth=1.8, marker="o", markersize=4, label=label)
        ax.set_title(TITLES[kind], loc="left", fontsize=10.5, color=ink, fontweight="bold", pad=8)
        ax.set_ylabel("visual score", fontsize=8.5, color=soft)
        ax.set_facecolor(page)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.tick_params(colors=soft, labelsize=8.5, length=0)
        ax.grid(color=grid, linewidth=0.7)
        ax.spines[:].set_visible(False)
        ax.legend(fontsize=8, frameon=False, labelcolor=soft, handlelength=1.2)
    return figure


def write_effort(runs: dict[str, Sequence[Record]], path: Path) -> list[tuple[bytes, bytes]]:
    """Writes PATH.png and PATH.svg, and -> (light PNG, dark PNG) of each panel for the page; nothing where every target
    has one answer and no rounds."""
    curves, names = effort_curves(runs), list(runs)
    if curves:
        save(draw_effort(curves, names), path.with_suffix(".png"))
    panels = [{kind: by_run} for kind, by_run in curves.items()]
    return [tuple(_png(draw_effort(panel, names, dark)) for dark in (False, True)) for panel in panels]


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()
