"""One answer against its target: which programs have to be drawn or inspected, and every metric that applies.

Rendering and inspection run in the renderer's sandboxed workers; nothing that a model wrote runs in this process.
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from PIL import Image
from tqdm import tqdm

from data import Sample, domain_of
from languages.svg import CAIROSVG
from metrics import chartmimic, design2code, molecules, page_preprocessing, pixels, text, webcode2m
from metrics.catalogue import METRICS
from render import Rendering

INSPECTION = {"chart": "figure facts", "html": "page facts"}
SVG_BENCHMARKS = {  # formula, and side in px of the square that it compares
    "unisvg": (pixels.unisvg, pixels.UNISVG_SIDE),
    "starvector": (pixels.starvector, pixels.STARVECTOR_SIDE),
}


def family_of(sample: Sample) -> str:
    """chart, molecule, html, svg, latex or mermaid: what kind of picture this is, whatever its benchmark is called."""
    if sample.domain in ("chart", "molecule", "chemdraw"):
        return "molecule" if sample.domain == "chemdraw" else sample.domain
    return domain_of(sample.language, sample.code)


@dataclass
class Job:
    """The work under way for one answer. `facts`: of the answer, of the reference; None where none are wanted.
    `squares`: {side: (reference, answer or None)}, both drawn on the canvas of an svg benchmark. `given`: whether there
    is an answer."""

    sample: Sample
    code: str | None
    rendering: Future | None
    facts: tuple[Future, Future] | None
    squares: dict[int, tuple[Future, Future | None]] = field(default_factory=dict)
    given: bool = True


class Scorer:
    """renderer: a render.Renderer. as_published: the original's numbers where they differ from what its text says.
    weights: metrics.weights.Weights, for the metrics that need any."""

    def __init__(self, renderer, as_published: bool = False, weights=None):
        self.renderer, self.as_published, self.weights = renderer, as_published, weights
        self.told = False  # that cairosvg is missing

    def submit(self, sample: Sample, code: str | None, given: bool = True) -> Job:
        """given: whether there is an answer, be it one without code."""
        squares, canvas = self._squares(sample, code), sample.image.size
        rendering = None if code is None else self.renderer.submit(code, sample.language, canvas)
        inspection, inspected, facts = INSPECTION.get(family_of(sample)), code, None
        if inspection == "page facts" and self.as_published:
            inspection, inspected = "published page facts", page_preprocessing.preprocessed(code or "")
        if inspection and sample.code:  # the reference whatever the answer is: which targets count does not hang on it
            answered = self._after(rendering, lambda: self.renderer.submit(inspected, inspection))
            facts = (answered, self.renderer.submit(sample.code, inspection))
        return Job(sample, code, rendering, facts, squares, given)

    def _squares(self, sample: Sample, code: str | None) -> dict[int, tuple[Future, Future | None]]:
        if family_of(sample) != "svg" or not sample.code:
            return {}
        draw = lambda program, side: self.renderer.submit(program, CAIROSVG, (side, side))  # noqa: E731
        sides = (side for _, side in SVG_BENCHMARKS.values())
        return {side: (draw(sample.code, side), draw(code, side) if code else None) for side in sides}

    def _after(self, rendering: Future | None, begin: Callable[[], Future]) -> Future:
        """A Future of what `begin` starts once the rendering succeeded; of None if it did not, or there is none."""
        result: Future = Future()
        if rendering is None:
            result.set_result(None)
            return result

        def go_on(done: Future) -> None:
            if done.cancelled() or done.result().image is None:
                return result.set_result(None)
            try:
                begin().add_done_callback(lambda f: result.set_result(None if f.cancelled() else f.result()))
            except RuntimeError:  # the renderer was closed meanwhile
                result.set_result(None)

        rendering.add_done_callback(go_on)
        return result

    def measure(self, job: Job, rendering: Rendering) -> dict[str, float | None]:
        """{metric: value} of the metrics that apply; None: not counted in the mean (as published, or undefined)."""
        family = family_of(job.sample)
        measures = {"chart": self._chart, "html": self._page, "svg": self._svg, "latex": self._latex}
        measures["molecule"] = self._molecule
        values = measures[family](job, rendering.image) if family in measures else {}
        if family != "svg" and (job.code is None or rendering.image is None):
            values = {name: self._failed(job, name, value) for name, value in values.items()}
        return {name: None if value is None else float(value) for name, value in values.items()}

    def reference_problem(self, job: Job) -> str:
        """Why no metric that needs the target's program can be measured, "" where they can."""
        family, code = family_of(job.sample), job.sample.code
        if family not in {metric.family for metric in METRICS.values() if metric.needs == "reference"}:
            return ""
        if not code:
            return "it has no program"
        if family == "molecule":
            return "" if molecules.is_valid(molecules.smiles_of(code)) else "rdkit reads no molecule from it"
        inspected = job.facts[1].result() if job.facts else None
        return "" if inspected is None or inspected.facts else " ".join((inspected.error or "no facts").split())[:200]

    def _failed(self, job: Job, name: str, value: float | None) -> float | None:
        """What an answer counts that draws nothing. As published Plot2Code and UniSVG leave it out; but one without svg
        is a white picture to UniSVG, as all are to SVG-Bench, and where there is no answer at all it counts 0."""
        source = name.partition(".")[0] if self.as_published else ""
        if source == "plot2code" or source == "unisvg" and job.code is not None:
            return None
        if source == "starvector" or source == "unisvg" and job.given:
            return value
        return value if METRICS[name].failed is None else METRICS[name].failed

    def _facts(self, job: Job) -> tuple[object, object] | None:
        """(of the answer, of the reference), None for a side that has none; None where the reference has none."""
        if job.facts is None:
            return None
        answer, reference = (future.result() for future in job.facts)
        if reference is None or reference.facts is None:
            return None
        try:
            return answer and answer.facts and json.loads(answer.facts), json.loads(reference.facts)
        except (ValueError, RecursionError):
            return None, json.loads(reference.facts)

    def _chart(self, job: Job, image: Image.Image | None) -> dict:
        sample = job.sample
        if not sample.code:
            return {}
        names = ("text_f1", "layout_f1", "type_f1", "colour_f1", "low_level")
        zero = {f"chartmimic.{name}": 0.0 for name in names} | {"plot2code.text_match": 0.0}
        if (facts := self._facts(job)) is None:
            return {}
        if job.code is None:
            return zero
        graph = sample.id.rpartition("/")[2].startswith("graph")
        try:
            scores = chartmimic.scores(facts[1], facts[0], self.as_published, graph)
        except (ValueError, TypeError):  # no facts, or forged ones
            return zero
        scores = {f"chartmimic.{name}": value for name, value in scores.items()}
        white = image is not None and image.convert("L").getextrema() == (255, 255)
        left_out = self.as_published and white  # as Plot2Code does
        match = None if left_out else text.plot_text_match(facts[1], facts[0], self.as_published)
        return scores | {"plot2code.text_match": match}

    def _page(self, job: Job, image: Image.Image | None) -> dict:
        sample = job.sample
        if not sample.code:
            return self._with_clip(job, image, None)
        pair = sample.code, job.code or "", self.as_published
        trees = {
            "webcode2m.tree_bleu": webcode2m.tree_bleu(*pair),
            "webcode2m.word_recall": webcode2m.word_recall(*pair),
        }
        if (facts := self._facts(job)) is None:
            return trees
        try:
            scores = design2code.scores(facts[1], facts[0] or [])
        except (ValueError, TypeError):
            scores = design2code.scores(facts[1], [])
        return (
            trees
            | {f"design2code.{name}": value for name, value in scores.items()}
            | self._with_clip(job, image, scores["low_level"])
        )

    def _with_clip(self, job: Job, image: Image.Image | None, low_level: float | None) -> dict:
        if self.weights is None or self.weights.clip is None:
            return {}
        clip = self.weights.clip_similarity(job.sample.image, image) if image else 0.0
        combined = {} if low_level is None else {"design2code.final": 0.2 * (4 * low_level + clip)}
        return {"design2code.clip": clip} | combined

    def _svg(self, job: Job, image: Image.Image | None) -> dict:
        values = {}
        for source, (formula, side) in SVG_BENCHMARKS.items():
            target, drawn = self._in_squares(job, image, side)
            shown = drawn or Image.new("RGB", target.size, "white")
            measured = formula(target, shown, side, self.as_published)
            if self.weights:
                measured |= getattr(self.weights, source)(target, shown, measured["ssim"])
            named = {f"{source}.{name}": value for name, value in measured.items()}
            values |= named if drawn else {name: self._failed(job, name, value) for name, value in named.items()}
        return values

    def _in_squares(self, job: Job, image: Image.Image | None, side: int) -> tuple[Image.Image, Image.Image | None]:
        """The target and the answer, None where it draws nothing, on a canvas of an svg benchmark: drawn there as the
        benchmark draws. Where one cannot be, and where there is no reference, the pictures are brought there."""
        drawings = [future and future.result() for future in job.squares.get(side, (None, None))]
        if missing := any(drawings) and self.renderer.missing.get(CAIROSVG):
            self._without_cairosvg(missing)
        reference, answer = (drawing and drawing.image for drawing in drawings)
        if reference and side == pixels.UNISVG_SIDE == job.sample.image.width == job.sample.image.height:
            reference = job.sample.image.convert("RGB")  # UniSVG compares with its own pictures, which have this size
        if reference and self.as_published:
            return reference, answer
        if reference and (answer or not image):
            return reference, image and answer
        return pixels.in_square(job.sample.image, side), image and pixels.in_square(image, side)

    def _without_cairosvg(self, missing: str) -> None:
        if self.as_published:
            raise ValueError(f"UniSVG's and SVG-Bench's own numbers need cairosvg, which they draw with: {missing}")
        if not self.told:
            tqdm.write(f"UniSVG's and SVG-Bench's metrics compare our drawings, not cairosvg's: {missing}", sys.stderr)
        self.told = True

    def _latex(self, job: Job, image: Image.Image | None) -> dict:
        values, published = {"image2struct.ems": 0.0, "image2struct.ssim": 0.0}, self.as_published
        if image is not None:
            a, b = pixels.padded(job.sample.image, image)
            from metrics.earth_mover import earth_mover_similarity  # its solver's package takes seconds to import

            values["image2struct.ems"] = earth_mover_similarity(a, b, published)
            values["image2struct.ssim"] = pixels.image2struct_ssim(job.sample.image, image, published)
        if job.sample.code:
            pair = job.sample.code, job.code or ""
            values["image2struct.edit_similarity"] = text.edit_similarity(*pair, published)
            values["detikzify.tex_edit_distance"] = text.tex_edit_distance(*pair, published)
        return values

    def _molecule(self, job: Job, image: Image.Image | None) -> dict:
        scores = molecules.scores(job.sample.code or "", job.code or "")
        kept = {"validity": scores["validity"]} if self.reference_problem(job) else scores
        return {f"chemdraw.{name}": value for name, value in kept.items()}
