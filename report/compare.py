"""Target | rendering | tile map: the score of one attempt as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pictures import to_rgb

if TYPE_CHECKING:
    from reward import Score


def draw_tile_map(axes, target: Image.Image, score: Score) -> None:
    """Draws the fine score over the faded target in matplotlib axes: red 0, green 1, paler where a tile counts less."""
    (width, height), (cols, rows) = target.size, score.grid
    opacity = [0.7 * min(1.0, weight * cols * rows) ** 0.5 for weight in score.weights]
    tiles = np.reshape([score.fine, opacity], (2, rows, cols))
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(to_rgb(target).convert("L"), cmap="gray", vmin=-255, vmax=255, extent=extent, aspect="auto")
    axes.imshow(tiles[0], cmap="RdYlGn", vmin=0, vmax=1, alpha=tiles[1], extent=extent, aspect="auto")
    for k, similarity in enumerate(score.fine):
        if score.weights[k] >= 0.01:
            x, y = (k % cols + 0.5) * width / cols, (k // cols + 0.5) * height / rows
            box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1.5}
            axes.text(x, y, f"{similarity:.2f}", ha="center", va="center", fontsize=9, bbox=box)


def write_comparison(path: Path, target: Image.Image, rendering: Image.Image, score: Score) -> None:
    """Target | rendering | tile map as one picture, with the score in the title."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    sizes = target.size, rendering.size, target.size
    aspects = [min(2.0, max(0.25, height / width)) for width, height in sizes]
    figure = Figure(figsize=(12, 0.9 + 3.9 * max(aspects)), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, image, name in zip(panels, (target, rendering), ("target", "rendering"), strict=False):
        axes.imshow(to_rgb(image), aspect="auto")
        axes.set_title(f"{name}, {image.width} x {image.height}", fontsize=10)
    draw_tile_map(panels[2], target, score)
    panels[2].set_title(f"{score.grid[0]} x {score.grid[1]} tiles (paler: counts less)", fontsize=10)
    for axes, aspect in zip(panels, aspects, strict=True):
        axes.set(xticks=[], yticks=[], box_aspect=aspect)
    parts = f"coarse {score.coarse:.3f}, fine {score.fine_mean():.3f}, shape {score.shape:.3f}"
    figure.suptitle(f"visual {score.visual:.3f}  ({parts})", fontsize=13)
    figure.savefig(path, dpi=110)
