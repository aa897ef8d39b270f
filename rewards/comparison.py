"""A target and an attempt to look at, side by side: where the words are right, and how good each tile is."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from pictures import to_rgb
from render import Rendering
from reward import Score
from rewards.text import paired, said


def write(path: Path, target: Rendering, attempt: Rendering, score: Score) -> None:
    """Target | rendering | the tiles by their scores, from red (0) to green (1), paler where a tile counts less."""
    cols, rows = score.grid
    fine, weights = (np.reshape(values, (rows, cols)) for values in (score.fine, score.weights))
    colours = np.stack([2 - 2 * fine, 2 * fine, 0 * fine], axis=-1).clip(0, 1)  # yellow half-way
    opacity = 0.5 * np.minimum(1, weights * cols * rows) ** 0.5
    tint, mask = (
        Image.fromarray(np.uint8(255 * part)).resize(target.image.size, Image.Resampling.NEAREST)
        for part in (colours, opacity)
    )
    tiles = Image.composite(tint, to_rgb(target.image).convert("L").convert("RGB"), mask)
    panels = [ImageOps.contain(to_rgb(image), (400, 400)) for image in (*marked(target, attempt), tiles)]
    page = Image.new("RGB", (1240, 40 + max(panel.height for panel in panels)), "white")
    for k, panel in enumerate(panels):
        page.paste(panel, (10 + 410 * k, 30))
    parts = f"coarse {score.coarse:.3f}, fine {score.fine_mean():.3f}, shape {score.shape:.3f}"
    line = f"visual {score.visual:.3f} ({parts}):  target | rendering | {cols} x {rows} tiles, red 0, green 1"
    ImageDraw.Draw(page).text((10, 10), line, "black")
    page.save(path)


def marked(target: Rendering, attempt: Rendering) -> tuple[Image.Image, Image.Image]:
    """Both pictures, each word in a frame: green where it is right, red where it is wrong, missing, or too much. None
    are framed where it is not known what the target says."""
    if not target.words:
        return target.image, attempt.image
    both = [said(drawn.words, drawn.image) for drawn in (target, attempt)]
    pairs, worth = paired(*both, target.image)
    pictures = []
    for side, (drawn, one) in enumerate(zip((target, attempt), both, strict=True)):
        values = {pair[side]: value for pair, value in zip(pairs, worth, strict=True)}
        page = drawn.image.copy() if not one.shown else drawn.image.convert("RGB")
        for index, word in enumerate(one.shown):
            value = values.get(index, 0.0)
            colour = (round(min(255, 510 - 510 * value)), round(min(200, 400 * value)), 0)
            frame = (word.left - 2, word.top - 2, word.right + 1, word.bottom + 1)
            ImageDraw.Draw(page).rectangle(frame, outline=colour, width=2)
        pictures.append(page)
    return tuple(pictures)
