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


def weighed(coarse_weight: float, samples: Sequence[Sample], renderings: Sequence[Rendering]) -> list[float]:
    targets = [sample.image for sample in samples]
    return [likeness.visual for likeness in visual(coarse_weight).compare(targets, renderings)]


def thumbnail(samples: Sequence[Sample], texts: Sequence[str], renderings: Sequence[Rendering]) -> list[float]:
    return weighed(1.0, samples, renderings)


def tiles(samples: Sequence[Sample], texts: Sequence[str], renderings: Sequence[Rendering]) -> list[float]:
    return weighed(0.0, samples, renderings)


def likeness(samples: Sequence[Sample], texts: Sequence[str], renderings: Sequence[Rendering]) -> list[float]:
    pairs = zip(samples, renderings, strict=True)
    return [max(0.0, ssim(sample.image, rendering.image)) for sample, rendering in pairs]
