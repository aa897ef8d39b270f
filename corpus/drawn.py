"""Rows as data.check gives them, with the pictures of those that came as programs alone."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

import data
from data import Sample, Samples

AHEAD = 32  # targets that are drawn before it is their turn


def check(samples: Samples, renderer, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Sample | None, str]]:
    """(index, sample, "") of the rows that can be used, (index, None, what is wrong with which row) of the others, also
    of those whose program does not draw. renderer: a Renderer, or what has its `submit`; None draws nothing."""
    begun = deque()
    for index, sample, problem in data.check(samples, indices):
        wanted = renderer is not None and sample is not None and sample.image is None
        begun.append((index, sample, problem, renderer.submit(sample.code, sample.language) if wanted else None))
        if renderer is None or len(begun) > AHEAD:
            yield _finished(samples, *begun.popleft())
    while begun:
        yield _finished(samples, *begun.popleft())


def _finished(samples: Samples, index: int, sample: Sample | None, problem: str, drawing) -> tuple:
    if drawing is None:
        return index, sample, problem
    rendering = drawing.result()
    if rendering.image is not None:
        return index, replace(sample, image=rendering.image), ""
    said = " ".join((rendering.error or "no picture").split())[:200]
    return index, None, f"{samples.place(index)}: its target does not render ({said}); mend or remove the program"
