"""The curves of a training run: every number of its metrics.jsonl against the step, as PNG and as SVG.

    python -m report curves runs/demo                    # runs/demo/curves.png, out of its metrics.jsonl

Numbers that belong together share a panel; a metric no pattern knows gets its own. Seconds per phase and kinds of
failure are stacked; the rewards of a domain's answers are bands that leave out 5 and 25 % on either side.
"""

import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

PANELS = (  # title, pattern of the metrics drawn together; the first match counts
    ("Loss", r"(.*/)?(\w+_)?loss"),
    ("Reward", r"reward/(mean|visual|text|coarse|fine|total)|reward"),
    ("Visual score by domain", r"visual/.*"),
    ("Held-out", r"(eval|val|test|held_out)/.*"),
    ("Rendered, well-formed", r"render_ok|executed?|executes|(reward/)?alignment"),
    ("Reward spread within a group", r"reward/std.*"),
    ("Groups without variance", r"zero_variance.*"),
    ("Response length, tokens", r"(response_)?length(/(mean|max|min|median))?"),
    ("Share cut or clipped", r"length/cut|clipped|clip_\w+|dual_clipped"),
    ("Entropy", r"(.*/)?entropy(/.*)?"),
    ("Mismatch of rollout and training", r"(.*/)?(mismatch\w*|kl)(/.*)?"),
    ("Gradient norm", r"(.*/)?grad(ient)?_norm"),
    ("Learning rate", r"(.*/)?(lr|learning_rate)"),
    ("Tokens per step", r"(trained_)?tokens"),
    ("Left out", r"too_long|dropped.*|bad_rows.*"),
    ("Words by the program and as read", r"words_read/.*"),
    ("Judging, seconds per step", r"judge/.*"),
)
STACKED = ("Failures, share of answers", "Seconds per step")
QUANTILES = ("p05", "p25", "p50", "p75", "p95")
APART = ("time/", "failure/", "rewards/")  # drawn in other ways: see plot_curves
INK, SOFT, GRID = "#1d1d1b", "#6d6c66", "#e4e3de"
COLOURS = ("#2f6f6a", "#c2703d", "#5b6fb0", "#a34f78", "#7d8a3a", "#8a6d4b", "#4a9ab5", "#98968e")


def _read_metrics(path: str | Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{metric: (steps, values)} of the numbers in a metrics.jsonl; where a step was run twice the later one counts."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; give the folder of a run.")
    rows: dict[int, dict] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line cut by a crash; the resumed run has written its step again
        if isinstance(row, dict) and "step" in row:
            rows[row["step"]] = rows.get(row["step"], {}) | row
    series: dict[str, list] = {}
    for step in sorted(rows):
        for key, value in rows[step].items():
            if key != "step" and isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
                series.setdefault(key, []).append((step, value))
    return {key: tuple(np.array(points, dtype=np.float64).T) for key, points in series.items()}


def _read_watch(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{metric: (steps, means over a step's answers)} of what report/words_read.py writes; {} where it wrote nothing."""
    steps: dict[int, list[dict]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        if line.endswith("}"):  # not broken off
            row = json.loads(line)
            steps.setdefault(row["step"], []).append(row)
    names = ("text", "read", "distance") if steps else ()
    means = {name: [(step, np.mean([row[name] for row in steps[step]])) for step in sorted(steps)] for name in names}
    return {f"words_read/{name}": tuple(np.array(points, dtype=np.float64).T) for name, points in means.items()}


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over a tenth of the run; near the ends over what is there of it."""
    window = np.ones(2 * (len(values) // 20) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def _panels(keys: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Each metric in the first panel whose pattern it matches, what no pattern knows in a panel of its own."""
    panels: dict[str, list[str]] = {title: [] for title, _ in PANELS}
    for key in keys:
        title = next((title for title, pattern in PANELS if re.fullmatch(pattern, key)), key)
        if not key.startswith(APART):
            panels.setdefault(title, []).append(key)
    return [(title, members[: len(COLOURS)]) for title, members in panels.items() if members]


def plot_curves(metrics_path: str | Path, out_path: str | Path) -> None:
    """Draw every number of a metrics.jsonl against the step as a PNG, raw values pale, smoothed ones on top; and the
    same as SVG beside it."""
    series = _read_metrics(metrics_path)
    series |= _read_watch(Path(metrics_path).with_name("words_read.jsonl")) if series else {}
    if not series:
        raise ValueError(f"{metrics_path} holds no numbers yet; plot it after the first training step.")
    panels = [(title, keys, _draw_lines) for title, keys in _panels(series)]
    for domain in sorted({key.split("/")[1] for key in series if key.startswith("rewards/")}):
        panels.append((f"Rewards, {domain}", [f"rewards/{domain}/{q}" for q in QUANTILES], _draw_bands))
    failures = [key for key, (_, shares) in series.items() if key.startswith("failure/") and shares.any()]
    times = [key for key in series if key.startswith("time/")]
    panels += [(title, keys, _draw_stack) for title, keys in zip(STACKED, (failures, times), strict=True) if keys]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.9 * rows), dpi=110, facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=spaces(rows, columns)).ravel()
    for ax, (title, keys, draw) in zip(axes, panels, strict=False):
        draw(ax, series, keys)
        ax.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold", pad=8)
        ax.tick_params(colors=SOFT, labelsize=8.5, length=0)
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.grid(color=GRID, linewidth=0.7)
        ax.set_axisbelow(True)
        ax.spines[:].set_visible(False)
    for ax in axes[max(0, len(panels) - columns) : len(panels)]:
        ax.set_xlabel("step", fontsize=8.5, color=SOFT)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    save(figure, out_path)


def spaces(rows: int, columns: int, wide: float = 4.6, high: float = 2.9) -> dict[str, float]:
    """Of panels so many inches wide and high, for titles and labels of any length that occurs: matplotlib's own layouts
    measure each of them, which takes as long as drawing all."""
    left, right, bottom, top = 0.7, 0.2, 0.5, 0.4  # inches
    return {
        "left": left / (wide * columns),
        "right": 1 - right / (wide * columns),
        "bottom": bottom / (high * rows),
        "top": 1 - top / (high * rows),
        "wspace": (left + right) / (wide - left - right),
        "hspace": (bottom + top) / (high - bottom - top),
    }


def save(figure: Figure, path: str | Path) -> None:
    """As the PNG `path`, and as SVG beside it. The canvases themselves: `savefig` would draw all twice."""
    FigureCanvasAgg(figure).print_png(path)
    figure.set_layout_engine("none")  # it is laid out
    FigureCanvasSVG(figure).print_svg(Path(path).with_suffix(".svg"), metadata={"Date": None})


def _draw_lines(ax, series, keys: list[str]) -> None:
    for key, colour in zip(keys, COLOURS, strict=False):
        steps, values = series[key]
        marks = {"marker": "o", "markersize": 3.2} if len(values) < 30 else {}
        ax.plot(steps, values, color=colour, alpha=0.22, linewidth=0.8)
        ax.plot(steps, _smooth(values), color=colour, linewidth=1.8, label=key.rsplit("/", 1)[-1], **marks)
    ax.xaxis.get_major_locator().set_params(integer=True)
    low, high = ax.get_ylim()
    if high - low < 0.01 * abs(high):  # a constant is a line in the middle, not its rounding errors blown up
        ax.set_ylim(low - 0.05 * abs(low), high + 0.05 * abs(high))
    if len(keys) > 1:
        ax.legend(fontsize=8, frameon=False, labelcolor=SOFT, handlelength=1.2)


def _draw_bands(ax, series, keys: list[str]) -> None:
    """Quantiles 5, 25, 50, 75, 95 %: two bands and the median."""
    steps, values = series[keys[0]][0], [_smooth(series[key][1]) for key in keys]
    for low, high, alpha, label in ((0, 4, 0.16, "5 to 95 %"), (1, 3, 0.3, "25 to 75 %")):
        ax.fill_between(steps, values[low], values[high], color=COLOURS[0], alpha=alpha, linewidth=0, label=label)
    ax.plot(steps, values[2], color=COLOURS[0], linewidth=1.8, label="median", marker="o" if len(steps) == 1 else None)
    low, high = ax.get_ylim()
    ax.set_ylim(min(-0.02, low), max(1.02, high))  # rewards of one's own may lie beyond
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(fontsize=8, frameon=False, labelcolor=SOFT, handlelength=1.2)


def _draw_stack(ax, series, keys: list[str]) -> None:
    """Seconds of phases or shares of failures, stacked; where a whole step was timed too, the rest of it on top."""
    steps = np.unique(np.concatenate([series[key][0] for key in keys]))
    phases = {key.split("/", 1)[1]: np.zeros(len(steps)) for key in keys}
    for key, values in zip(keys, phases.values(), strict=True):
        values[np.searchsorted(steps, series[key][0])] = series[key][1]  # a phase that did not run took no time
    if "step" in phases:
        whole = phases.pop("step")
        phases["rest"] = np.maximum(0, whole - sum(phases.values()))
    colours = list(itertools.islice(itertools.cycle(COLOURS), len(phases)))
    if len(steps) == 1:
        ax.bar(list(phases), [values[0] for values in phases.values()], color=colours)
        return
    ax.stackplot(
        steps, [_smooth(values) for values in phases.values()], labels=list(phases), colors=colours, alpha=0.85
    )
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
    ax.legend(fontsize=8, frameon=False, labelcolor=SOFT, handlelength=1.2, ncols=3, loc="upper left")


@dataclass
class Curves:
    """Draw the curves of a training run."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, which holds metrics.jsonl."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """PNG to write, an SVG beside it; curves.png in the folder if not given."""

    def __call__(self) -> None:
        out = self.out or self.run / "curves.png"
        plot_curves(self.run / "metrics.jsonl", out)
        print(f"wrote {out}")
