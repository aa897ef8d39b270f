"""The curves of a training run: every number of its metrics.jsonl against the step.

    python curves.py runs/demo/metrics.jsonl -o runs/demo/curves.png

Numbers that belong together share a panel; seconds per phase are stacked; a metric no pattern knows gets its own panel.
"""

import itertools
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PANELS = (  # title, pattern of the metrics drawn together
    ("Loss", r"(.*/)?(\w+_)?loss"),
    ("Reward", r"reward(/.*)?"),
    ("Held-out", r"(eval|val|test|held_out)/.*"),
    ("Rendered and well-formed", r"(render_ok|executes?|executed|alignment)(/.*)?"),
    ("Response length, tokens", r"(.*/)?(response_length|length|tokens_per_answer)(/.*)?"),
    ("Share of the batch", r"(zero_variance|cut|clip\w*|.*_fraction)(/.*)?"),
    ("Entropy", r"(.*/)?entropy(/.*)?"),
    ("Mismatch of rollout and training", r"(.*/)?(mismatch|kl)(/.*)?"),
    ("Gradient norm", r"(.*/)?grad(ient)?_norm"),
    ("Learning rate", r"(.*/)?(lr|learning_rate)"),
)
INK, SOFT, GRID = "#1d1d1b", "#6d6c66", "#e4e3de"
COLOURS = ("#2f6f6a", "#c2703d", "#5b6fb0", "#a34f78", "#7d8a3a", "#8a6d4b", "#4a9ab5", "#98968e")


def _read_metrics(path: str | Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{metric: (steps, values)} of the numbers in a metrics.jsonl; where a step was run twice the later one counts."""
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


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over about a twentieth of the run; shorter towards the ends, so nothing is invented."""
    half = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    reach = np.minimum(half, np.minimum(index, len(values) - 1 - index))
    return (total[index + reach + 1] - total[index - reach]) / (2 * reach + 1)


def _panels(keys: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Each metric in the first panel whose pattern it matches, what no pattern knows in a panel of its own."""
    panels: dict[str, list[str]] = {title: [] for title, _ in PANELS}
    for key in keys:
        title = next((title for title, pattern in PANELS if re.fullmatch(pattern, key)), key)
        if not key.startswith("time/"):
            panels.setdefault(title, []).append(key)
    return [(title, members[: len(COLOURS)]) for title, members in panels.items() if members]


def plot_curves(metrics_path: str | Path, out_path: str | Path) -> None:
    """Draw every number of a metrics.jsonl against the step as a PNG: raw values pale, smoothed ones on top."""
    series = _read_metrics(metrics_path)
    if not series:
        raise ValueError(f"{metrics_path} holds no numbers yet; plot it after the first training step.")
    times = [key for key in series if key.startswith("time/")]
    panels = _panels(series) + ([("Seconds per step", times)] if times else [])
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.9 * rows), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (title, keys) in zip(axes, panels, strict=False):
        draw = _draw_times if keys == times else _draw_lines
        draw(ax, series, keys)
        ax.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold", pad=8)
        ax.tick_params(colors=SOFT, labelsize=8.5, length=0)
        ax.grid(color=GRID, linewidth=0.7)
        ax.set_axisbelow(True)
        ax.spines[:].set_visible(False)
        if len(keys) > 1 or keys[0] != title:
            ax.legend(fontsize=8, frameon=False, labelcolor=SOFT, handlelength=1.2)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    figure.savefig(out_path)


def _draw_lines(ax, series, keys: list[str]) -> None:
    for key, colour in zip(keys, COLOURS, strict=False):
        steps, values = series[key]
        sparse = len(values) < 30
        ax.plot(steps, values, color=colour, alpha=0.22, linewidth=0.8)
        marks = {"marker": "o", "markersize": 3.2} if sparse else {}
        ax.plot(steps, _smooth(values), color=colour, linewidth=1.8, label=key.rsplit("/", 1)[-1], **marks)


def _draw_times(ax, series, keys: list[str]) -> None:
    keys = [key for key in keys if key not in ("time/step", "time/total")] or keys
    steps = np.unique(np.concatenate([series[key][0] for key in keys]))
    stack = [np.zeros(len(steps)) for _ in keys]
    for values, key in zip(stack, keys, strict=True):
        values[np.searchsorted(steps, series[key][0])] = series[key][1]  # a phase that did not run took no time
    labels = [key.removeprefix("time/") for key in keys]
    colours = list(itertools.islice(itertools.cycle(COLOURS), len(keys)))
    if len(steps) == 1:
        ax.bar(labels, [values[0] for values in stack], color=colours, label=labels)
    else:
        ax.stackplot(steps, [_smooth(values) for values in stack], labels=labels, colors=colours, alpha=0.85)


@dataclass
class Config:
    """Draw the curves of a training run."""

    metrics: Annotated[Path, tyro.conf.Positional]
    """metrics.jsonl of a run."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """PNG to write; curves.png beside the metrics if not given."""


def main() -> None:
    config = tyro.cli(Config)
    out = config.out or config.metrics.with_name("curves.png")
    try:
        plot_curves(config.metrics, out)
    except (OSError, ValueError) as error:
        sys.exit(f"curves.py: {error}")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
