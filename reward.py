"""What an answer is worth: how much its rendering looks like the target picture, and whatever else one asks of it.

    python reward.py target.png attempt.svg                    # a program: rendered in the sandbox, then scored
    python reward.py target.png attempt.png -o compare.png     # a picture: scored as it is
    python reward.py target.png attempt.py --mode vincicoder --encoder facebook/dinov2-large
    python reward.py target.png attempt.svg --reward visual=0.8 mine.py:shorter=0.2

A reward is a function

    reward(samples, texts, renderings) -> (B,) finite numbers

of B answers: samples[i] is the data.Sample (its `image` the target), texts[i] the whole answer, renderings[i] what its
code drew (render.Rendering, whose `image` is None where nothing came out). `visual` and `alignment` are built in,
`text` and `judge` have files of their own (FILES), any other is FILE.py:FUNCTION, the user's own code. What comes out
is the weighted sum of those that were chosen, with the weights as they are given, by default

    total = 0.65 * visual + 0.25 * text + 0.1 * alignment                                         all of them in [0, 1]

A reward may be None for an answer, where it has nothing to say of the target, as `text` of a picture without words: its
weight goes to the reward that was named first. A function may have two more, as attributes: `prepare(samples, renderer,
settings)`, called before answers are written, and `begin(sample, drawing)`, called as each is being drawn.

For `visual`, the coarse-to-fine reward of ViRL, both pictures are cut into K tiles (fine) and shrunk to one thumbnail
(coarse); an encoder turns each of these 1 + K frames into features, and features are compared frame by frame.

Mode `vincicoder` gives the numbers of the paper's released code (rewards/vincicoder.py). Mode `calibrated`, the
default, measures features against those of an empty page in the target's background colour, so an empty page is worth 0
and "mostly white" earns nothing:

    s(t, r) = <t, r> / (|t|^2 + |r|^2 - <t, r>)                      Tanimoto similarity; one of two equal shapes: 1/2
    fine    = sum_k w_k s_k / sum_k w_k                              w_k: content of target plus rendering in tile k
    visual  = shape * (coarse_weight * coarse + (1 - coarse_weight) * fine)
    shape   = min(a, 1/a)^0.5 * min(q, 1/q)^0.1                      a: ratio of aspect ratios, q: ratio of diagonals

The pyramid compares colours and edges apart at each of its levels: s = mean of 0.25 edges + 0.75 sqrt(colours * edges).
A page with less than a tenth of the target's edges is scaled down further, to 0 for a plain one.

Axes: B answers, F frames (thumbnail first, then the K tiles row by row), S frame side in pixels, D features.
"""

import environment  # noqa: F401

import hashlib
import importlib
import itertools
import math
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from data import Sample
from features import (
    Features,
    background_of,
    calibrated_grid,
    called,
    content,
    cut_frames,
    encoder_of,
    is_own_code,
    own_code,
)
from languages import SUFFIXES, suffix_of
from pictures import to_rgb, upright
from prompts import extract_code, fenced
from render import Renderer, Rendering

# Looks like the target; is a closed block in the language. Measured on every answer, for reports, whatever is chosen.
BUILT_IN = ("visual", "alignment")
FILES = {"text": "rewards.text", "judge": "metrics.judge_reward"}  # each has a function of this name
DEFAULTS = {"calibrated": ("visual=0.65", "text=0.25", "alignment=0.1"), "vincicoder": ("visual=0.9", "alignment=0.1")}
RESERVED = (*BUILT_IN, *FILES, "mean", "std_in_group", "coarse")  # names of a training's metrics


@dataclass
class Likeness:
    """How much one rendering looks like its target, all in [0, 1]. A failed rendering has 0."""

    visual: float
    coarse: float
    fine: list[float]  # (K,), row by row
    grid: tuple[int, int] = (1, 1)  # (cols, rows), K = cols * rows
    weights: list[float] = field(default_factory=list)  # (K,), sum 1: what each tile counts in the mean of `fine`
    shape: float = 1.0  # factor for errors of aspect ratio and size

    def fine_mean(self) -> float:
        """What the tiles come to, each by its weight."""
        return sum(w * s for w, s in zip(self.weights, self.fine, strict=True))


@dataclass(kw_only=True)
class Score(Likeness):
    """What one answer is worth. A failed rendering keeps its error."""

    total: float  # the sum of weight * part
    alignment: float  # in [0, 1]
    executed: bool
    error: str | None
    parts: dict[str, float | None] = field(default_factory=dict)  # the rewards that were chosen, by their names


# ------------------------------------------------------------------------------------ How much two pictures look alike


def shape_factor(target: tuple[int, int], rendering: tuple[int, int]) -> float:
    """min(a, 1/a)^0.5 * min(q, 1/q)^0.1 of two sizes (width, height): a square for a 4:3 picture costs 13 %, twice the
    resolution 7 %, a pixel more or less nothing to speak of."""
    aspect = target[0] * rendering[1] / (target[1] * rendering[0])
    size = math.hypot(*target) / math.hypot(*rendering)
    return min(aspect, 1 / aspect) ** 0.5 * min(size, 1 / size) ** 0.1


def tanimoto(t: Tensor, r: Tensor) -> Tensor:
    """(..., D), (..., D) -> (...) in [0, 1]: <t, r> / (|t|^2 + |r|^2 - <t, r>), 1 where both are empty."""
    dot = (t * r).sum(-1)
    union = t.square().sum(-1) + r.square().sum(-1) - dot
    return torch.where(union <= 1e-9, 1.0, dot / union.clamp_min(1e-9)).clamp(0, 1)


def digest(image: Image.Image) -> bytes:
    """Of everything that its pixels depend on."""
    about = (image.mode, image.size, image.getpalette() if image.mode == "P" else None, image.info.get("transparency"))
    return hashlib.sha256(repr(about).encode() + image.tobytes()).digest()  # processors have instructions for it


@dataclass
class Target:
    """A target's plan of frames, and its encoding, ready to be compared with any number of renderings."""

    size: tuple[int, int]
    grid: tuple[int, int]
    side: int
    background: tuple[int, int, int]
    features: Features | None = None  # of its F frames
    content: Tensor | None = None  # (F, 2)

    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.features.tensors())


class Visual:
    """Compares renderings with targets: `Visual().compare(targets, renderings)`.

    encoder: as features.encoder_of takes it. coarse_weight: share of the thumbnail in `visual`. batch_frames: frames
    encoded at a time. cache_mb: bound on the features of targets kept. `frames_encoded` and `cache_hits` count the
    encoder's work and the targets it was spared.
    """

    grid = staticmethod(calibrated_grid)  # width, height of a target -> its tiles, (cols, rows)

    def __init__(
        self,
        encoder: str = "pyramid",
        coarse_weight: float = 0.5,
        device: str = "cpu",
        batch_frames: int = 32,
        cache_mb: float = 512,
    ):
        if not 0 <= coarse_weight <= 1:
            raise ValueError(f"coarse_weight {coarse_weight} must lie in 0..1")
        self.coarse_weight = coarse_weight
        self.encoder, self.encoder_name = encoder_of(encoder, device), encoder
        self.device, self.batch_frames, self.cache_bytes = device, batch_frames, cache_mb * 2**20
        self.cache: OrderedDict[bytes, Target] = OrderedDict()  # least recently used first
        self.frames_encoded = self.cache_hits = 0
        self.threads = ThreadPoolExecutor(os.cpu_count())  # Pillow resizes without holding the interpreter's lock

    @torch.inference_mode()
    def compare(self, targets: Sequence[Image.Image], renderings: Sequence[Rendering]) -> list[Likeness]:
        """One Likeness for each of B (target, rendering). Equal targets, and equal renderings of one target, are
        encoded once; a target that equals all of its renderings is not encoded. What one pair gets does not depend on
        the rest of the batch."""
        pictures = {id(p): p for p in [*targets, *(r.image for r in renderings)] if p is not None}
        hashes = {key: digest(picture) for key, picture in pictures.items()}  # a group shares one object: hashed once
        keys = [(hashes[id(t)], hashes.get(id(r.image))) for t, r in zip(targets, renderings, strict=True)]
        wanted, pairs = {}, {}
        for key, target, rendering in zip(keys, targets, renderings, strict=True):
            if rendering.image is not None and key[0] != key[1]:
                wanted[key[0]], pairs[key] = target, rendering.image
        compared = self._compare(self._targets(wanted), pairs)

        likenesses = []
        for key, target, rendering in zip(keys, targets, renderings, strict=True):
            likeness = compared.get(key)
            if likeness is None:  # there is no picture, or it is the target itself: nothing was encoded
                value, grid = float(rendering.image is not None), self.grid(*target.size)
                tiles = math.prod(grid)
                likeness = Likeness(value, value, [value] * tiles, grid, [1 / tiles] * tiles)
            likenesses.append(likeness)
        return likenesses

    def _targets(self, images: dict[bytes, Image.Image]) -> dict[bytes, Target]:
        """Encodings of the targets, from the cache where it has them. The cache may forget some, the result has all."""
        found = {key: self.cache[key] for key in images if key in self.cache}
        self.cache_hits += len(found)
        new, jobs = {}, []
        for key in [key for key in images if key not in found]:
            size, (cols, rows) = images[key].size, self.grid(*images[key].size)
            side = self.encoder.frame_side(size[0] / cols, size[1] / rows)
            new[key] = Target(size, (cols, rows), side, background_of(to_rgb(images[key])))
            jobs.append((key, images[key], new[key]))
        for keys, features, contents in self._encode(jobs):
            for i, key in enumerate(keys):
                new[key].features = features.each(lambda tensor: tensor[i].clone())  # noqa: B023
                new[key].content = contents[i].clone()
        for key, target in {**found, **new}.items():
            self.cache[key] = target
            self.cache.move_to_end(key)
        size = sum(target.nbytes() for target in self.cache.values())
        while self.cache and size > self.cache_bytes:
            size -= self.cache.popitem(last=False)[1].nbytes()
        return {**found, **new}

    def _encode(self, jobs: list[tuple[Any, Image.Image, Target]]) -> Iterator[tuple[list, Features, Tensor]]:
        """Encodes pictures, each as the plan of its target says, in batches of P equally planned ones: (key, picture,
        target) of each -> the P keys, the features, now (P, F, D), the contents (P, F, 2)."""
        jobs = sorted(jobs, key=lambda job: (job[2].side, math.prod(job[2].grid)))
        for (_, tiles), group in itertools.groupby(jobs, key=lambda job: (job[2].side, math.prod(job[2].grid))):
            group = list(group)
            step = max(1, self.batch_frames // (1 + tiles))
            for keys, images, targets in (zip(*group[i : i + step], strict=True) for i in range(0, len(group), step)):
                pixels = torch.stack(list(self.threads.map(self.frames, images, targets))).to(self.device)
                shape, pixels = pixels.shape[:2], pixels.flatten(0, 1)  # (P * F, 3, S, S)
                colours = torch.tensor([target.background for target in targets], dtype=torch.float32)
                colours = colours.repeat_interleave(shape[1], dim=0).to(self.device)  # (P * F, 3)
                self.frames_encoded += len(pixels)
                features = self.features(pixels, colours)
                features = features.each(lambda tensor: tensor.unflatten(0, shape))  # noqa: B023
                yield keys, features, content(pixels, colours).unflatten(0, shape)

    def features(self, pixels: Tensor, colours: Tensor | None) -> Features:
        """Of (F, 3, S, S), held against an empty page of these colours (F, 3). Raises ValueError for what cannot be
        compared: whoever wrote the encoder made a mistake."""
        name, encode = self.encoder_name, self.encoder
        features = called(encode, f"{name} raised", pixels, colours) if is_own_code(name) else encode(pixels, colours)
        if not isinstance(features, Features):
            raise ValueError(f"encoder {name} gave {type(features).__name__}, not features.Features")
        features.check(len(pixels), name)
        return features

    def frames(self, image: Image.Image, target: Target) -> Tensor:
        """(F, 3, S, S) uint8: composited on white, resized once, the result shrunk for the thumbnail."""
        size = target.grid[0] * target.side, target.grid[1] * target.side
        resized = to_rgb(image).resize(size, Image.Resampling.BILINEAR)
        return cut_frames(resized, resized.resize((target.side, target.side), Image.Resampling.BOX))

    def _compare(self, targets: dict[bytes, Target], pairs: dict[tuple[bytes, bytes], Image.Image]) -> dict:
        """(target hash, rendering hash) -> Likeness."""
        jobs = [(pair, self.fitted(image, targets[pair[0]]), targets[pair[0]]) for pair, image in pairs.items()]
        likenesses = {}
        for keys, features, contents in self._encode(jobs):
            first, *others = [targets[key].features for key, _ in keys]
            wanted = first.each(lambda *tensors: torch.stack(tensors), *others)
            similarity = self.similarity(wanted, features)
            if not similarity.isfinite().all():
                raise ValueError(f"encoder {self.encoder_name} gave features too large to be compared")
            for pair, s, amount in zip(keys, similarity, contents, strict=True):
                likenesses[pair] = self.combine(s, targets[pair[0]], amount, pairs[pair].size)
        return likenesses

    def fitted(self, image: Image.Image, target: Target) -> Image.Image:
        """A rendering, before it is cut into frames."""
        return image

    def similarity(self, t: Features, r: Features) -> Tensor:
        """Features (P, F, D) twice -> (P, F). Edges make a pyramid's level count, colours make it count fully: a plain
        page of the right colour is worth nothing, the right drawing in wrong colours a quarter."""
        s = t.each(tanimoto, r)  # (P, F) each
        if s.vectors is not None:
            return s.vectors
        colours, edges = torch.stack(s.colours), torch.stack(s.edges)
        return (0.25 * edges + 0.75 * (colours * edges).sqrt()).mean(0)

    def combine(self, s: Tensor, target: Target, contents: Tensor, size: tuple[int, int]) -> Likeness:
        """s (F,): similarities of the frames; contents (F, 2), size: the rendering's."""
        coarse, fine = s[0].item(), s[-math.prod(target.grid) :]
        shape = shape_factor(target.size, size)
        weights = (target.content + contents).sum(1)[-len(fine) :] + 1e-6
        weights = weights / weights.sum()
        visual = self.coarse_weight * coarse + (1 - self.coarse_weight) * (weights * fine).sum().item()
        edges, own_edges = target.content[0, 1].item(), contents[0, 1].item()
        if target.content[0].sum() < 1e-4:  # an empty target: what counts is how little there is
            visual = max(0.0, 1 - 4 * contents[0].sum().item())
        elif own_edges < 0.1 * edges:  # next to a plain page, of which an encoder may think anything
            visual *= own_edges / (0.1 * edges)
        visual = min(1.0, visual) * shape
        return Likeness(visual, coarse, fine.tolist(), target.grid, weights.tolist(), shape)

    def alignment(self, text: str, language: str) -> float:
        return alignment(text, language)

    def total(self, total: float, alignment: float) -> float:
        """What an answer is worth whose weighted sum this is."""
        return total


def visual_of(mode: str, *options, **more) -> Visual:
    """What compares pictures in a mode: `Visual`, or as the release does. Raises ValueError for an unknown mode."""
    if mode not in DEFAULTS:
        raise ValueError(f"unknown reward mode {mode!r}: use 'calibrated' or 'vincicoder'")
    if mode == "calibrated":
        return Visual(*options, **more)
    return importlib.import_module("rewards.vincicoder").Released(*options, **more)


# ---------------------------------------------------------------------------------------- The rewards that were chosen


def flat(rewards: np.ndarray) -> np.ndarray:
    """(N, G) -> (N,) bool: the groups in which no answer is better than another, but for rounding."""
    return rewards.max(1) - rewards.min(1) < 1e-8


def alignment(text: str, language: str) -> float:
    """1.0 if the last fenced block of `text` in that language exists and holds anything, else 0.0."""
    code = extract_code(text, language)
    return float(bool(code and code.strip()))


def parsed(choice: str) -> tuple[str, Callable | None, float]:
    """(name, the user's function or None for what is built in, weight) of NAME[=WEIGHT] or FILE.py:FUNCTION[=WEIGHT].
    Raises ValueError, in one sentence, for what is neither."""
    what, weight = re.fullmatch(r"(.*?)(?:=([^=/:]*))?", choice).groups()
    try:
        weight = 1.0 if weight is None else float(weight)
    except ValueError:
        raise ValueError(f"--reward {choice}: the weight {weight!r} is no number") from None
    if not math.isfinite(weight):
        raise ValueError(f"--reward {choice}: the weight has to be finite")
    if what in BUILT_IN:
        return what, None, weight
    if what in FILES:
        return what, getattr(importlib.import_module(FILES[what]), what), weight
    if not is_own_code(what):
        names = ", ".join((*BUILT_IN, *FILES))
        raise ValueError(f"--reward {choice}: there is no such reward; use {names} or FILE.py:FUNCTION")
    name = what.rpartition(":")[2]
    if name in RESERVED:
        raise ValueError(f"--reward {choice}: {name} has a meaning already; give the function another name")
    return name, own_code(what), weight


def checked(values, name: str, count: int) -> list[float | None]:
    """What the reward `name` said of `count` answers. Raises ValueError, naming it, for what are not so many finite
    numbers, or None."""
    values = values.tolist() if hasattr(values, "tolist") else values
    try:
        silent = [value is None for value in values]
        numbers = np.array([0.0 if value is None else value for value in values], dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"reward {name} gave {str(values)[:80]}, which are no numbers") from None
    if numbers.shape != (count,):
        raise ValueError(f"reward {name} gave numbers of shape {numbers.shape} for {count} answers, not ({count},)")
    if not np.isfinite(numbers).all():
        worst = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(f"reward {name} gave {values[worst]} for answer {worst} of {count}, which is no finite number")
    return [None if none else number for none, number in zip(silent, numbers.tolist(), strict=True)]


class Rewards:
    """What answers are worth: `Rewards(["visual=0.9", "mine.py:shorter=0.1"]).score(samples, texts, renderings)`."""

    def __init__(self, choices: Sequence[str] = (), mode="calibrated", encoder: str = "pyramid", **options):
        """choices: each as `parsed` takes it, none for the mode's DEFAULTS. The rest is what Visual takes. Raises
        ValueError for two of one name."""
        self.visual = visual_of(mode, encoder, **options)
        self.chosen: dict[str, tuple[Callable | None, float]] = {}  # name -> (the user's function, weight)
        for name, function, weight in map(parsed, choices or DEFAULTS[mode]):
            if name in self.chosen:
                raise ValueError(f"--reward has two rewards named {name}; give each once, under a name of its own")
            self.chosen[name] = function, weight

    def prepare(self, samples: Sequence[Sample], renderer: Renderer, settings=None) -> None:
        """Tell the rewards which targets are coming. settings: of the run, its data set, its folder and so on."""
        for function, _ in self.chosen.values():
            getattr(function, "prepare", lambda *_: None)(samples, renderer, settings)

    def begin(self, sample: Sample, drawing: Future) -> None:
        """Tell the rewards that an answer is being drawn."""
        for function, _ in self.chosen.values():
            getattr(function, "begin", lambda *_: None)(sample, drawing)

    def score(self, samples: Sequence[Sample], texts: Sequence[str], renderings: Sequence[Rendering]) -> list[Score]:
        """One Score for each of B answers. Raises ValueError, naming the reward, for one that cannot be used."""
        if not len(samples) == len(texts) == len(renderings):
            lengths = f"{len(samples)} samples, {len(texts)} texts, {len(renderings)} renderings"
            raise ValueError(f"{lengths}: give the same number of each")
        likenesses = self.visual.compare([sample.image for sample in samples], renderings)
        aligned = [self.visual.alignment(text, sample.language) for text, sample in zip(texts, samples, strict=True)]
        built_in = {"visual": [likeness.visual for likeness in likenesses], "alignment": aligned}
        parts, answers = {}, (samples, texts, renderings)
        for name, (function, _) in self.chosen.items():
            values = called(function, f"reward {name} raised", *answers) if function else built_in[name]
            parts[name] = checked(values, name, len(samples))
        scores = []
        for i, (likeness, rendering) in enumerate(zip(likenesses, renderings, strict=True)):
            own = {name: values[i] for name, values in parts.items()}
            first, total = next(iter(own)), 0.0
            for name, (_, weight) in self.chosen.items():
                total += weight * (own[name] if own[name] is not None else own[first] or 0.0)
            said = {"alignment": aligned[i], "executed": rendering.image is not None, "error": rendering.error}
            total = self.visual.total(total, aligned[i])
            scores.append(Score(**vars(likeness), total=total, parts=own, **said))
        return scores


# ---------------------------------------------------------------------------------------------------- The command line


def open_picture(path: Path) -> Image.Image:
    """Upright, in its own mode. Raises ValueError, in one sentence, for what is missing or no whole picture."""
    try:
        image = Image.open(path)
        image.load()
        return upright(image)
    except Exception as error:  # Pillow raises a dozen types
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error


def pictured(path: Path, canvas: tuple[int, int] | None = None) -> tuple[Rendering, str, str]:
    """(what a program draws, its code, its language), or (a picture as it is, "", ""). Raises as `open_picture`."""
    language = SUFFIXES.get(suffix_of(path), "")
    if not language:
        return Rendering(open_picture(path), None, 0.0), "", ""
    code = path.read_text(encoding="utf-8")
    with Renderer(workers=1) as renderer:
        rendering = renderer.render(code, language, canvas)
    if rendering.image is None:
        raise ValueError(f"{path} did not render, so it scores 0: {rendering.error}")
    return rendering, code, language


@dataclass
class Config:
    """Score an attempt against its target picture."""

    target: tyro.conf.Positional[Path]
    """The picture to be reproduced, or its program: then it is known what it says, and `text` is scored too."""
    attempt: tyro.conf.Positional[Path]
    """A program, whose suffix names its language, or a picture that is scored as it is."""
    reward: tuple[str, ...] = ("visual=0.75", "text=0.25")
    """What is scored: NAME[=WEIGHT] of visual, text, alignment, or FILE.py:FUNCTION[=WEIGHT]; 1 where there is none."""
    mode: Literal["calibrated", "vincicoder"] = "calibrated"
    """Calibrated: an empty page scores 0. Vincicoder: the paper's released numbers."""
    encoder: str = "pyramid"
    """Image features: "pyramid" (no weights), a DINOv2 folder, a hub name such as facebook/dinov2-large, or
    FILE.py:NAME (what makes an encoder; features.py says what that is)."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("compare.png")
    """Where the side-by-side picture goes: target, rendering, the tiles by their scores."""


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    try:
        rewards = Rewards(config.reward, config.mode, config.encoder)
        target, _, is_program = pictured(config.target)
        attempt, code, language = pictured(config.attempt, target.image.size)
        sample = Sample(config.target.stem, language, language, target.image, "", drawing=Future())
        sample.drawing.set_result(target)
        (score,) = rewards.score([sample], [fenced(code, language) if language else ""], [attempt])
        importlib.import_module("rewards.comparison").write(config.out, target, attempt, score)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"reward.py: {error}")
    cols, rows = score.grid
    print(f"visual  {score.visual:.4f}\ncoarse  {score.coarse:.4f}\nshape   {score.shape:.4f}")
    print(f"fine    {score.fine_mean():.4f}, the mean of {cols} x {rows} tiles by their content:")
    for row in range(rows):
        print("        " + "  ".join(f"{s:.3f}" for s in score.fine[row * cols : (row + 1) * cols]))
    said = {name: value for name, value in score.parts.items() if value is not None}
    if list(said) != ["visual"]:
        print("\n".join(f"{name:7} {value:.4f}, weight {rewards.chosen[name][1]:g}" for name, value in said.items()))
        print(f"total   {score.total:.4f}")
    print(f"wrote {config.out}")


if __name__ == "__main__":
    main()
