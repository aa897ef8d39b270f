"""Metrics that compare pixels: SSIM, PSNR, MSE in the benchmarks' variants.

Pictures are PIL images of any mode and size, (W, H); arrays are (H, W, 3) or (H, W) uint8. The rendering is brought to
the target's size in the way of the benchmark concerned. Nothing here needs weights.
"""

import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity


def ssim(target: Image.Image, rendering: Image.Image | None) -> float:
    """Structural similarity of two RGB pictures in [-1, 1]; the rendering is resized to the target's size, 0 if None.

    Wang et al. 2004, 7 x 7 uniform window, mean over channels (scikit-image's defaults).
    """
    if rendering is None:
        return 0.0
    width, height = (max(7, side) for side in target.size)  # the usual 7 x 7 window has to fit
    a, b = (np.asarray(picture.convert("RGB").resize((width, height))) for picture in (target, rendering))
    return float(structural_similarity(a, b, win_size=7, channel_axis=2, data_range=255))


def _both(target: Image.Image, rendering: Image.Image, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    a, b = (picture.convert("RGB").resize(size, Image.Resampling.LANCZOS) for picture in (target, rendering))
    return np.asarray(a), np.asarray(b)


def unisvg_ssim(target: Image.Image, rendering: Image.Image, side: int = 336) -> float:
    """UniSVG (`evaluation.py`): SSIM at 336 x 336, 7 x 7 window, RGB."""
    a, b = _both(target, rendering, (side, side))
    return float(structural_similarity(a, b, win_size=7, channel_axis=2, data_range=255))


def psnr(target: Image.Image, rendering: Image.Image, side: int = 336, as_published: bool = False) -> float:
    """Peak signal-to-noise ratio in dB at 336 x 336: 10 log10(255^2 / MSE), 100 for equal pictures (UniSVG).

    As published the difference of two uint8 arrays wraps around, so that -1 counts as 255.
    """
    a, b = _both(target, rendering, (side, side))
    error = (a - b).astype(np.float64) if as_published else a.astype(np.float64) - b
    mse = float(np.mean((error.astype(np.uint8) ** 2) if as_published else error**2))
    return min(100.0, 10 * float(np.log10(255**2 / mse))) if mse else 100.0


def starvector_mse(target: Image.Image, rendering: Image.Image, side: int = 224) -> float:
    """Mean squared error of RGB in [0, 1] at 224 x 224; 0 is best (StarVector, SVG-Bench, "L2")."""
    a, b = (array / 255.0 for array in _both(target, rendering, (side, side)))
    return float(np.mean((a - b) ** 2))


def starvector_masked_mse(target: Image.Image, rendering: Image.Image, side: int = 224) -> float:
    """The same with both pictures multiplied by the mask of pixels that are white in neither."""
    a, b = (array / 255.0 for array in _both(target, rendering, (side, side)))
    mask = ((a < 1).any(2) & (b < 1).any(2))[..., None]
    return float(np.mean((a * mask - b * mask) ** 2))


def starvector_ssim(target: Image.Image, rendering: Image.Image, side: int = 224, as_published: bool = False) -> float:
    """SSIM with an 11 x 11 Gaussian window of sigma 1.5 at 224 x 224, the one of Wang et al. (SVG-Bench).

    As published sigma is given but the window stays uniform, for `gaussian_weights` is not set.
    """
    a, b = _both(target, rendering, (side, side))
    window = {"win_size": 11} if as_published else {"gaussian_weights": True, "sigma": 1.5, "win_size": 11}
    return float(structural_similarity(a, b, channel_axis=2, data_range=255, **window))


def image2struct_ssim(target: Image.Image, rendering: Image.Image) -> float:
    """(SSIM + 1) / 2 of the grey pictures, both padded with white to the larger size (Image2Struct, LaTeX)."""
    a, b = (np.asarray(picture.convert("L")) for picture in padded(target, rendering))
    return (float(structural_similarity(a, b, win_size=7, data_range=255)) + 1) / 2


def padded(target: Image.Image, rendering: Image.Image, least: int = 7) -> tuple[Image.Image, Image.Image]:
    """Both on white canvases of the larger width and height, in the upper left corner (Image2Struct, LaTeX)."""
    size = (max(target.width, rendering.width, least), max(target.height, rendering.height, least))
    pictures = []
    for picture in (target, rendering):
        canvas = Image.new("RGB", size, "white")
        canvas.paste(picture.convert("RGB"), (0, 0))
        pictures.append(canvas)
    return pictures[0], pictures[1]
