"""A picture's frames, and what an encoder sees in them: the features that reward.py compares.

A picture is cut into K tiles, in a grid that follows its aspect ratio, and shrunk to one thumbnail. An encoder turns
each of these frames into `Features`: `Pyramid` needs no weights; the paper's is rewards/dinov2.py. An encoder has

    frame_side(tile_width, tile_height) -> int        S, for a tile of that size in pixels
    encoder(frames, backgrounds) -> Features          of (F, 3, S, S) uint8 and (F, 3) float, the targets' background
                                                      colours, or None where nothing is to be held against them

Axes: F frames (thumbnail first, then the K tiles row by row), S frame side in pixels, D features.
"""

import importlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

# The released code's candidate grids (cols, rows). It sorts a Python set by area only, so the order within one area is
# an accident of CPython, but it decides ties; hence written out.
GRIDS = [
    *[(1, 1), (1, 2), (2, 1), (3, 1), (1, 3), (2, 2), (4, 1), (1, 4), (5, 1), (1, 5), (1, 6), (6, 1), (3, 2), (2, 3)],
    *[(7, 1), (1, 7), (4, 2), (2, 4), (1, 8), (8, 1), (1, 9), (3, 3), (9, 1), (2, 5), (5, 2), (10, 1), (1, 10)],
    *[(11, 1), (1, 11), (12, 1), (3, 4), (4, 3), (1, 12), (6, 2), (2, 6)],
]
EDGE = 0.1  # gradient (of full range a pixel) at which an edge counts half; text and hairlines lie above it
# light, red - green, yellow - blue
OPPONENT = torch.tensor([[1, 1, 1], [4.5, -4.5, 0], [2.25, 2.25, -4.5]]) / (3 * 255)
MIN_TILE = 24  # px of the target; smaller tiles would hold less than one stroke


# ---------------------------------------------------------------------------------------------------------------------
# Frames: pictures -> (1 + K, 3, S, S) uint8


def calibrated_grid(width: int, height: int) -> tuple[int, int]:
    """Tile grid (cols, rows) of at most 12 tiles of at least MIN_TILE px: tiles as square as possible, many rather than
    few. Minimises |log(tile aspect ratio)| + 1 / tiles."""

    def cost(grid: tuple[int, int]) -> float:
        cols, rows = grid
        too_small = (cols > 1 and width < cols * MIN_TILE) or (rows > 1 and height < rows * MIN_TILE)
        return math.inf if too_small else abs(math.log(width / cols * rows / height)) + 1 / (cols * rows)

    return min(GRIDS, key=cost)


def cut_frames(image: Image.Image, thumbnail: Image.Image) -> Tensor:
    """(F, 3, S, S) uint8: the thumbnail (S x S px), then the tiles of `image`, which has been resized to the grid. A
    single tile is its own thumbnail: F = 1."""
    side = thumbnail.width
    small, pixels = (  # (3, S, S) and (3, rows * S, cols * S)
        torch.frombuffer(bytearray(i.convert("RGB").tobytes()), dtype=torch.uint8)
        .view(i.height, i.width, 3)
        .permute(2, 0, 1)
        for i in (thumbnail, image)
    )
    tiles = pixels.unfold(1, side, side).unfold(2, side, side)  # (3, rows, cols, S, S)
    tiles = tiles.permute(1, 2, 0, 3, 4).flatten(0, 1)  # (K, 3, S, S)
    return tiles if len(tiles) == 1 else torch.cat([small[None], tiles])


def background_of(image: Image.Image) -> tuple[int, int, int]:
    """The most frequent colour of an RGB picture, counted on at most 96 x 96 of its pixels."""
    small = image.resize((min(96, image.width), min(96, image.height)), Image.Resampling.NEAREST)
    return max(small.getcolors(96 * 96), key=lambda count_colour: count_colour)[1]


# ---------------------------------------------------------------------------------------------------------------------
# Encoders


@dataclass
class Features:
    """What an encoder sees in F frames, in one of two forms: `vectors` (F, D), or for each level of a pyramid `colours`
    and `edges`, both (F, D of the level), which are compared apart."""

    vectors: Tensor | None = None
    colours: Sequence[Tensor] = ()
    edges: Sequence[Tensor] = ()

    def tensors(self) -> list[Tensor]:
        """The vectors alone, or colours and edges in turn."""
        if self.vectors is not None:
            return [self.vectors]
        return [tensor for level in zip(self.colours, self.edges, strict=True) for tensor in level]

    def each(self, change: Callable[..., Tensor], *others: "Features") -> "Features":
        """change(tensor, and those in its place in the others) of each of the tensors."""
        changed = [change(*same) for same in zip(self.tensors(), *(f.tensors() for f in others), strict=True)]
        return Features(changed[0]) if self.vectors is not None else Features(None, changed[::2], changed[1::2])

    def check(self, frames: int, encoder: str) -> None:
        """Raises ValueError, naming the encoder, for what is of neither form, of another shape, or no number."""
        form = (self.vectors is not None, len(self.colours), len(self.edges))
        if form != (True, 0, 0) and (form[0] or not form[1] or form[1] != form[2]):
            raise ValueError(f"encoder {encoder} has to give vectors, or as many colours as edges, and not both")
        for tensor in self.tensors():
            if tensor.ndim != 2 or len(tensor) != frames:
                raise ValueError(f"encoder {encoder} gave {tuple(tensor.shape)} for {frames} frames, not ({frames}, D)")
        if not torch.stack([tensor.isfinite().all() for tensor in self.tensors()]).all():
            raise ValueError(f"encoder {encoder} gave features that are no finite numbers (NaN or infinity)")


def encoder_of(name: str, device: str = "cpu"):
    """ "pyramid", FILE.py:NAME (a class or function without arguments that makes an encoder), a DINOv2 folder or a hub
    name. Raises ValueError, FileNotFoundError or RuntimeError, in one sentence, where there is none."""
    if name == "pyramid":
        return Pyramid()
    if not is_own_code(name):
        return importlib.import_module("rewards.dinov2").DinoV2(name).to(device)
    encoder = called(own_code(name), f"{name} raised")
    if not callable(encoder) or not callable(getattr(encoder, "frame_side", None)):
        raise ValueError(f"{name} makes no encoder: that is called with frames, and has frame_side; see features.py")
    return encoder.to(device) if isinstance(encoder, nn.Module) else encoder


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(F, 3, S, S) twice -> (F, S, S), summed over the colours: map by map, for a sum that strides is slow on a CPU."""
    return (a[:, 0] * b[:, 0]).addcmul_(a[:, 1], b[:, 1]).addcmul_(a[:, 2], b[:, 2])


def edge_tensor(pixels: Tensor) -> Tensor:
    """(F, 3, S, S) in 0 .. 255 -> (F, 3, S, S): xx, yy and xy of the structure tensor of every pixel, scaled so that
    its trace xx + yy is the gradient's magnitude, saturating at strong edges. Summed over colours, so that an edge
    between two colours of equal lightness counts, and an edge is the same whichever side is the darker one."""
    padded = F.pad(pixels, (1, 1, 1, 1), mode="replicate")
    dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]  # over two pixels: 510 is full range
    dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    xx, yy, xy = dot(dx, dx), dot(dy, dy), dot(dx, dy)
    squared = xx + yy
    scale = root(squared).mul_(510 * EDGE).add_(squared)
    return torch.stack([xx, yy, xy], dim=1).div_(scale[:, None])


def root(x: Tensor) -> Tensor:
    """Square root of what is mostly 0, which takes a CPU seven times as long as of other numbers."""
    return (x + 1e-32).sqrt_()


def orientations(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """(F, S, S) each -> (F, 4, S, S): the structure tensor's energy along 0, 45, 90 and 135 degrees, in which an edge
    spreads as cos^2 of the angle."""
    half = (xx + yy) / 2
    return torch.stack([xx, half + xy, yy, half - xy], dim=1)


def pair_sums(maps: Tensor, dim: int) -> Tensor:
    """Sums of the first and second, third and fourth .. along `dim`, which they halve."""
    first, second = maps.unflatten(dim, (-1, 2)).unbind(dim)
    return first + second


def halved(maps: Tensor) -> Tensor:
    """(F, C, S, S) -> (F, C, S // 2, S // 2): means over overlapping 4 x 4 boxes, of what lies inside the frame: it is
    avg_pool2d(maps, 4, stride=2, padding=1, count_include_pad=False), in a quarter of its time on a CPU."""
    S = maps.shape[-1]
    for dim in (-2, -1):  # cells 0, 1 + 2, 3 + 4 .. : two neighbours make a window
        cells = [maps.narrow(dim, 0, 1), pair_sums(maps.narrow(dim, 1, (S - 1) // 2 * 2), dim)]
        cells = torch.cat([*cells, maps.narrow(dim, S - 1, 1)], dim)  # of an odd S the last one is in no window
        maps = cells.narrow(dim, 0, S // 2) + cells.narrow(dim, 1, S // 2)
    return maps.mul_(_window_weights(S, maps.device))


@lru_cache
def _window_weights(S: int, device: torch.device) -> Tensor:
    """(S // 2, S // 2): 1 / pixels of a window, of which one that the edge cuts off has 3 rows or columns, not 4."""
    counts = torch.full((S // 2,), 4.0, device=device)
    counts[[0, -1] if S % 2 == 0 else [0]] = 3
    return 1 / (counts[:, None] * counts)


class Pyramid:
    """Weight-free features: colours against the background and edge orientations, each at several scales.

    Every level halves the resolution with an overlapping 4 x 4 box, down to 2 or 3 cells a side: fine levels ask for
    exact places, coarse ones still see a shape that has moved.
    """

    tile_size = 112  # px, the largest frame side

    def frame_side(self, tile_width: float, tile_height: float) -> int:
        """Frame side for a tile of that size: its own resolution in multiples of 16, at most `tile_size`."""
        return max(16, min(self.tile_size, round(math.sqrt(tile_width * tile_height) / 16) * 16))

    def __call__(self, frames: Tensor, backgrounds: Tensor | None) -> Features:
        pixels = frames.float()
        if backgrounds is not None:
            pixels -= backgrounds[:, :, None, None]  # edges do not notice
        colour = (OPPONENT.to(pixels) @ pixels.flatten(2)).view_as(pixels)
        # wrong hue costs more than wrong lightness; a pale fill is content too, hence large differences saturate
        colour /= root(dot(colour, colour)).add_(0.75)[:, None]
        edges, levels = edge_tensor(pixels), []
        while edges.shape[-1] >= 4:
            colour, edges = halved(colour), halved(edges)
            levels.append((colour.flatten(1), orientations(*edges.unbind(1)).flatten(1)))
        return Features(None, *zip(*levels, strict=True))


def content(frames: Tensor, backgrounds: Tensor) -> Tensor:
    """(F, 3, S, S) uint8, (F, 3) -> (F, 2) in [0, 1): how much a frame holds: its mean difference from the background
    colour (half of full scale at 1/4 of the colour range), and its mean edge strength."""
    pixels = frames.float() - backgrounds[:, :, None, None]
    if pixels.shape[-1] > 64:  # a quarter of the pixels tells as much
        pixels = pair_sums(pair_sums(pixels, -2), -1) / 4
    difference = root(dot(pixels, pixels))
    edges = edge_tensor(pixels)[:, :2].sum(1)
    return torch.stack([(difference / (difference + 255 / 4)).mean((1, 2)), edges.mean((1, 2))], dim=1)


# ---------------------------------------------------------------------------------------------------------------------
# The user's own code: FILE.py:NAME on a command line


def is_own_code(name: str) -> bool:
    return name.rpartition(":")[0].endswith(".py")


@cache
def _module(path: Path):
    spec = importlib.util.spec_from_file_location(f"own_code_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look
    called(spec.loader.exec_module, f"{path} cannot be imported:", module)
    return module


def own_code(name: str) -> Callable:
    """What FILE.py:NAME stands for. Raises ValueError, in one sentence, for a file that is not there or cannot be
    imported, and for a name that is not in it."""
    file, _, attribute = name.rpartition(":")
    if not Path(file).is_file():
        raise ValueError(f"{name}: there is no file {file}")
    module = _module(Path(file).resolve())
    if not callable(getattr(module, attribute, None)):
        known = [key for key, value in vars(module).items() if callable(value) and value.__module__ == module.__name__]
        raise ValueError(f"{name}: {file} has no function {attribute!r}; it has {', '.join(known) or 'none'}")
    return getattr(module, attribute)


def called(function: Callable, complaint: str, *arguments):
    """What the user's function returns. Raises ValueError, with what it raises and the user's line, after the
    complaint."""
    try:
        return function(*arguments)
    except Exception as error:  # whatever a user's function does
        last, said = traceback.extract_tb(error.__traceback__)[-1], " ".join(str(error).split())[:200]
        where = f"{Path(last.filename).name} line {last.lineno}"
        raise ValueError(f"{complaint} {type(error).__name__}: {said} ({where})") from error
