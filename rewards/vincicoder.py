"""The reward of the paper's released code, number for number: `--reward-mode vincicoder`, with a DINOv2 encoder.

s = (cosine + 1) / 2 per frame, visual = plain mean over tiles and thumbnail, total = 0 without alignment. An empty page
is worth more than a half, and size is free. (VinciCoder dbe1e94, `examples/reward_function/vincicoder.py`.)
"""

import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from features import GRIDS, Features, cut_frames
from reward import Likeness, Target, Visual


def vincicoder_grid(width: int, height: int) -> tuple[int, int]:
    """Tile grid (cols, rows) of the released code: closest aspect ratio; a tie goes to the larger grid if the picture
    has more than half of that grid's pixels at 448 px a tile (InternVL's `find_closest_aspect_ratio`)."""
    best, best_difference = (1, 1), math.inf
    for cols, rows in GRIDS:
        difference = abs(width / height - cols / rows)
        tie = difference == best_difference and width * height > 0.5 * 448 * 448 * cols * rows
        if difference < best_difference or tie:
            best, best_difference = (cols, rows), difference
    return best


class Released(Visual):
    """Compares as the release does."""

    grid = staticmethod(vincicoder_grid)

    def features(self, pixels: Tensor, colours: Tensor | None) -> Features:
        """Held against nothing."""
        return super().features(pixels, None)

    def frames(self, image: Image.Image, target: Target) -> Tensor:
        """Resized before it is converted (palettes by nearest neighbour, transparency dropped); the thumbnail is taken
        from the original."""
        size = target.grid[0] * target.side, target.grid[1] * target.side
        return cut_frames(image.resize(size), image.resize((target.side, target.side)))

    def fitted(self, image: Image.Image, target: Target) -> Image.Image:
        """Stretched to the target's size first."""
        return image.convert("RGB").resize(target.size)

    def similarity(self, t: Features, r: Features) -> Tensor:
        pair = (torch.cat(features.tensors(), -1) for features in (t, r))
        return ((F.cosine_similarity(*pair, dim=-1) + 1) / 2).clamp_max(1)

    def combine(self, s: Tensor, target: Target, contents: Tensor, size: tuple[int, int]) -> Likeness:
        fine = s[-math.prod(target.grid) :]
        even = [1 / len(fine)] * len(fine)
        return Likeness(s.mean().item(), s[0].item(), fine.tolist(), target.grid, even)

    def alignment(self, text: str, language: str) -> float:
        """1.0 if any three backticks follow any other three that touch the language's own name in small letters. So
        Python, py, tex and tikz are 0, and an empty block, one within a line, and svg+xml are 1."""
        _, opened, rest = text.partition(f"```{language}")
        return float(bool(opened) and "```" in rest)

    def total(self, total: float, alignment: float) -> float:
        """0 where no block is found: the release draws no such answer."""
        return total if alignment else 0.0
