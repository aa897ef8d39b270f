"""Vector graphics, by librsvg inside the worker process."""

from __future__ import annotations

from collections.abc import Callable

from languages import SAMPLES
from languages.pixels import rasterize_svg
from languages.protocol import Options, answer_of, confine_worker


def svg_renderer(options: Options) -> Callable[[str], bytes]:
    """librsvg inside the worker process: SVG is data, so one process may draw one document after the other."""
    confine_worker(options, children=False)
    rasterize_svg(SAMPLES["svg"].encode(), 16)
    return lambda code: answer_of(lambda: rasterize_svg(code.encode(), options.svg_side), options)
