"""One answer against its target: which programs have to be drawn or inspected, and every metric that applies.

Rendering and inspection run in the renderer's sandboxed workers; nothing that a model wrote runs in this process.
"""

import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from PIL import Image

from data import Sample, domain_of
from metrics import chartmimic, design2code, molecules, pixels, text
from metrics.catalogue import METRICS
from render import Rendering

INSPECTION = {"chart": "figure facts", "html": "page facts"}


def family_of(sample: Sample) -> str:
    """chart, molecule, html, svg, latex or mermaid: what kind of picture this is, whatever its benchmark is called."""
    if sample.domain in ("chart", "molecule", "chemdraw"):
        return "molecule" if sample.domain == "chemdraw" else sample.domain
    return domain_of(sample.language, sample.code)


@dataclass
class Job:
    """The work under way for one answer. `facts`: of the answer, of the reference; None where none are wanted."""

    sample: Sample
    code: str | None
    rendering: Future | None
    facts: tuple[Future, Future] | None


class Scorer:
    """renderer: a render.Renderer. as_published: the original's numbers where they differ from what its text says.
    weights: metrics.weights.Weights, for the metrics that need any."""

    def __init__(self, renderer, as_published: bool = False, weights=None):
        self.renderer, self.as_published, self.weights = renderer, as_published, weights

    def submit(self, sample: Sample, code: str | None) -> Job:
        if code is None:
            return Job(sample, None, None, None)
        rendering, facts = self.renderer.submit(code, sample.language), None
        inspection = INSPECTION.get(family_of(sample))
        if inspection and sample.code:
            answered = self._after(rendering, lambda: self.renderer.submit(code, inspection))
            facts = (answered, self.renderer.submit(sample.code, inspection))
        return Job(sample, code, rendering, facts)

    def _after(self, rendering: Future, begin: Callable[[], Future]) -> Future:
        """A Future of what `begin` starts once the rendering succeeded; of None if it did not."""
        result: Future = Future()

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
        if job.code is None or rendering.image is None:
            values = {name: self._failed(name, value) for name, value in values.items()}
        return {name: None if value is None else float(value) for name, value in values.items()}

    def _failed(self, name: str, value: float | None) -> float | None:
        """What an answer counts that draws nothing. UniSVG and Plot2Code leave such answers out, as published."""
        if self.as_published and name.startswith(("unisvg.", "plot2code.")):
            return None
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
        if job.code is None:
            return zero
        if (facts := self._facts(job)) is None:
            return {}
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
        trees = {
            "webcode2m.tree_bleu": text.tree_bleu(sample.code, job.code or ""),
            "webcode2m.word_recall": text.word_recall(sample.code, job.code or ""),
        }
        facts = self._facts(job) if job.code else ([], [])
        if facts is None:
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
        target, white = job.sample.image, Image.new("RGB", job.sample.image.size, "white")
        shown = image or white  # SVG-Bench compares with a white picture where an answer does not render
        sources = {"unisvg": pixels.unisvg, "starvector": pixels.starvector}
        values = {
            f"{source}.{name}": value
            for source, metrics in sources.items()
            for name, value in metrics(target, shown, as_published=self.as_published).items()
        }
        return values | (self.weights.svg_scores(target, shown, values["unisvg.ssim"]) if self.weights else {})

    def _latex(self, job: Job, image: Image.Image | None) -> dict:
        values = {"image2struct.ems": 0.0, "image2struct.ssim": 0.0}
        if image is not None:
            a, b = pixels.padded(job.sample.image, image)
            from metrics.earth_mover import earth_mover_similarity  # its solver's package takes seconds to import

            values["image2struct.ems"] = earth_mover_similarity(a, b)
            values["image2struct.ssim"] = pixels.image2struct_ssim(job.sample.image, image)
        if job.sample.code:
            pair, published = (job.sample.code, job.code or ""), self.as_published
            values["image2struct.edit_similarity"] = text.edit_similarity(*pair, published)
            values["detikzify.tex_edit_distance"] = text.tex_edit_distance(*pair, published)
        return values

    def _molecule(self, job: Job, image: Image.Image | None) -> dict:
        scores = molecules.scores(job.sample.code or "", job.code or "")
        kept = scores if job.sample.code else {"validity": scores["validity"]}
        return {f"chemdraw.{name}": value for name, value in kept.items()}
