"""Rewards that the ablation sets beside the whole one: --reward benchmarks/parts.py:thumbnail=0.9 alignment=0.1

thumbnail and tiles are `visual` with all of its weight on the one (coarse) or on the others (fine); likeness is SSIM,
which the field takes where it has no encoder.
"""

from collections.abc import Sequence
from functools import cache

from data import Sample
from metrics.pixels import ssim
from render import Rendering
from reward import Visual


@cache
def visual(coarse_weight: float) -> Visual:
    return Visual(coarse_weight=coarse_weight)


def thumbnail(samples: Sequence[Sample], texts: Sequence[str], renderings: Sequence[Rendering]) -> list[float]:
    return [likeness.visual for likeness in visual(1.0).compare([sample.image for sample in samples], renderings)]


def tiles(samples: Sequence[Sample], texts: Sequence[str], renderings: Sequence[Rendering]) -> list[float]:
    return [likeness.visual for likeness in visual(0.0).compare([sample.image for sample in samples], renderings)]


def likeness(samples: Sequence[Sample], texts: Sequence[str], renderings: Sequence[Rendering]) -> list[float]:
    pairs = zip(samples, renderings, strict=True)
    return [max(0.0, ssim(sample.image, rendering.image)) for sample, rendering in pairs]
