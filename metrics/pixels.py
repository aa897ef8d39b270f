"""Metrics that compare pixels: SSIM, PSNR, MSE in the benchmarks' variants.

Pictures are PIL images of any mode and size, (W, H); arrays are (H, W, 3) or (H, W) uint8. The rendering is brought to
the target's size in the way of the benchmark concerned. Nothing here needs weights.
"""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

from metrics.similarity import GAUSSIAN, UNIFORM, WIDE_UNIFORM, structural_similarity


def ssim(target: Image.Image, rendering: Image.Image | None) -> float:
    """Structural similarity of two RGB pictures in [-1, 1]; the rendering is resized to the target's size, 0 if None.

    Wang et al. 2004, 7 x 7 uniform window, mean over channels (scikit-image's defaults).
    """
    if rendering is None:
        return 0.0
    size = tuple(max(len(UNIFORM), side) for side in target.size)  # the usual 7 x 7 window has to fit
    pictures = (picture if picture.size == size else picture.resize(size) for picture in _rgb(target, rendering))
    return structural_similarity(*map(np.asarray, pictures))


UNISVG_SIDE, STARVECTOR_SIDE = 336, 512  # px of the square that the benchmark draws an svg onto


def unisvg(target: Image.Image, rendering: Image.Image, side: int = UNISVG_SIDE, as_published: bool = False) -> dict:
    """UniSVG (`evaluation.py`), of both pictures at 336 x 336, RGB: {"ssim", "psnr"}.

    ssim: 7 x 7 window. psnr: peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE), at most 100, which equal pictures
    have. As published the difference of two uint8 arrays wraps around, so that -1 counts as 255, and is squared in
    uint8; equal pictures count 0.
    """
    a, b = _both(target, rendering, side)
    mse = float(((a - b) ** 2).mean()) if as_published else float((_difference(a, b) ** 2).mean())
    psnr = 10 * math.log10(255**2 / mse) if mse else math.inf
    if as_published:
        psnr = 0.0 if math.isinf(psnr) else psnr
    return {"ssim": structural_similarity(a, b), "psnr": psnr if as_published else min(100.0, psnr)}


def starvector(
    target: Image.Image, rendering: Image.Image, side: int = STARVECTOR_SIDE, as_published: bool = False
) -> dict:
    """StarVector's SVG-Bench, of both pictures at 512 x 512, RGB in [0, 1]: {"mse", "masked_mse", "ssim"}.

    mse: mean squared error, "L2"; 0 is best. masked_mse: the same with both pictures multiplied by the mask of pixels
    that are white in neither; 1, the worst there is, where nothing is drawn in both though they differ (as published 0,
    so a blank page would be best). ssim: an 11 x 11 Gaussian window of sigma 1.5, the one of Wang et al.; as published
    sigma is given but the window stays uniform, for `gaussian_weights` is not set.
    """
    a, b = _both(target, rendering, side)
    squares = _difference(a, b) ** 2
    mask = ~(_white(a) | _white(b))
    apart = not mask.any() and squares.any() and not as_published
    return {
        "mse": float(squares.mean()) / 255**2,
        "masked_mse": 1.0 if apart else float((squares * mask[..., None]).mean()) / 255**2,
        "ssim": structural_similarity(a, b, WIDE_UNIFORM if as_published else GAUSSIAN),
    }


def in_square(picture: Image.Image, side: int) -> Image.Image:
    """A picture on a white canvas of side x side px, its ratio kept, in the middle: where an svg that it shows would be
    drawn."""
    longer = max(picture.size)
    square = Image.new("RGB", (longer, longer), "white")
    square.paste(picture.convert("RGB"), ((longer - picture.width) // 2, (longer - picture.height) // 2))
    return square if longer == side else square.resize((side, side), Image.Resampling.LANCZOS)


def _both(target: Image.Image, rendering: Image.Image, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(side, side, 3) uint8, twice."""
    a, b = _rgb(target, rendering)
    small = np.asarray(a.resize((side, side), Image.Resampling.LANCZOS))
    return small, small if a == b else np.asarray(b.resize((side, side), Image.Resampling.LANCZOS))


def _white(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) bool; `all(2)` takes ten times as long."""
    return (pixels[..., 0] & pixels[..., 1] & pixels[..., 2]) == 255


def _rgb(*pictures: Image.Image) -> Iterator[Image.Image]:
    """Without a copy of what is RGB already; transparency is dropped, as the benchmarks do."""
    return (picture if picture.mode == "RGB" else picture.convert("RGB") for picture in pictures)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.int32) - b


def image2struct_ssim(target: Image.Image, rendering: Image.Image, as_published: bool = False) -> float:
    """(SSIM + 1) / 2 of the grey pictures, both padded with white to the larger size (Image2Struct, LaTeX).

    A window of 7 x 7 has to fit: as published pictures that are smaller have 0, else they are padded further.
    """
    pair = padded(target, rendering, least=1 if as_published else len(UNIFORM))
    if min(pair[0].size) < len(UNIFORM):
        return 0.0
    a, b = (np.asarray(picture.convert("L")) for picture in pair)
    return (structural_similarity(a, b) + 1) / 2


def padded(target: Image.Image, rendering: Image.Image, least: int = 1) -> tuple[Image.Image, Image.Image]:
    """Both on white canvases of the larger width and height, in the upper left corner (Image2Struct, LaTeX)."""
    size = (max(target.width, rendering.width, least), max(target.height, rendering.height, least))
    pictures = []
    for picture in (target, rendering):
        canvas = Image.new("RGB", size, "white")
        canvas.paste(picture.convert("RGB"), (0, 0))
        pictures.append(canvas)
    return pictures[0], pictures[1]
