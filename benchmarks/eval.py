"""Scoring speed: 1,000 synthetic answers over five domains, all metrics without weights, in one run.

    python benchmarks/eval.py --count 1000 --out results/eval.json

The answers are the references, every second one with seeded flaws, so that renderings differ from the targets. Measured
twice on fresh renderers: rendering and inspection alone (every job that scoring asks the workers for), and the whole
scoring. The share of the time in rendering is the ratio of the two. Memory is that of this process. `page` is a report
of 5,000 samples in a real Chromium: seconds to first contentful paint, bytes.
"""

import json
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
import data  # noqa: E402
import eval as evaluation  # noqa: E402
from answers.folder import Folder  # noqa: E402
from answers.server import Answer  # noqa: E402
from corpus import benchmarks  # noqa: E402
from data import Sample  # noqa: E402
from metrics.scoring import INSPECTION, Scorer, family_of  # noqa: E402
from render import Renderer, Rendering  # noqa: E402
from report.answers import write_report  # noqa: E402
from report.records import Record  # noqa: E402
from reward import Reward, Score  # noqa: E402
from workers.draw import chromium_path  # noqa: E402


def flawed(sample: Sample, number: int) -> str:
    """The reference, every second one with seeded flaws."""
    rng = np.random.default_rng(number)
    code = sample.code if number % 2 else data.mutate(sample.code, sample.language, rng) or sample.code
    return data.fenced(code, sample.language)


class Given(Folder):
    """Answers that are there already."""

    def __init__(self, texts: dict[str, str]):
        self.texts = texts

    def answer(self, samples, G, **_):
        return (Answer(sample.id, 0, self.texts[sample.id], "eos") for sample in samples)


def megabytes() -> float:
    """MiB that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def rendering_alone(samples: list[Sample], texts: dict[str, str]) -> float:
    """Seconds for every picture and inspection that scoring these answers wants, in the same chunks."""
    with Renderer() as renderer:
        started = time.perf_counter()
        for start in range(0, len(samples), 32):
            futures = []
            for sample in samples[start : start + 32]:
                code = data.extract_code(texts[sample.id], sample.language)
                futures += [renderer.submit(c, sample.language) for c in (sample.code, code)]
                if kind := INSPECTION.get(family_of(sample)):
                    futures += [renderer.submit(c, kind) for c in (sample.code, code)]
            for future in futures:
                future.result()
        return time.perf_counter() - started


def scoring(samples: list[Sample], texts: dict[str, str]) -> dict:
    with Renderer() as renderer:
        memory, count = [], 0
        started = time.perf_counter()
        scorer = Scorer(renderer)
        for _ in evaluation.evaluate(Given(texts), samples, renderer, Reward(), scorer=scorer, total=len(samples)):
            count += 1
            if count % max(1, len(samples) // 10) == 0:
                memory.append(round(megabytes()))
        return {"seconds": time.perf_counter() - started, "scored": count, "memory_mib_by_tenths": memory}


def page_of(count: int) -> dict:
    """A report of so many samples, opened in Chromium from the disk."""
    from playwright.sync_api import sync_playwright

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (64, 6, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(pixels).resize((256, 192), 0) for pixels in noise]
    score = Score(0.5, 0.5, 0.5, [0.5] * 4, 1.0, True, None, (2, 2))

    def records():
        for i in range(count):
            target = Sample(f"chart/{i:05d}", "chart", "python", pictures[i % 64], "Draw it.", "import this\n" * 30)
            shown = Rendering(pictures[(i + 1) % 64], None, 0.1)
            yield Record(target, 0, "", f"x = {i}\n" * 30, shown, score, 0.5, metrics={"plot2code.text_match": 0.5})

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "report.html"
        write_report(path, {"run": records()})
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox", "--disable-gpu"])
        paints = []
        for _ in range(3):
            tab = browser.new_page(viewport={"width": 1440, "height": 900})
            tab.goto(path.as_uri())
            tab.wait_for_selector(".card")
            entry = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? performance.now()"
            paints.append(tab.evaluate(entry) / 1000)
            tab.close()
        browser.close()
        return {"samples": count, "bytes": path.stat().st_size, "first_paint_seconds": [round(p, 2) for p in paints]}


@dataclass
class Config:
    """Measure scoring, and the page."""

    count: int = 1000
    """Answers to score."""
    page: int = 5000
    """Samples of the page; 0: no page."""
    out: Path | None = None
    """JSON file for the figures."""


def main(config: Config) -> None:
    samples = list(benchmarks.synthetic(config.count))
    texts = {sample.id: flawed(sample, i) for i, sample in enumerate(samples)}
    alone = rendering_alone(samples, texts)
    whole = scoring(samples, texts)
    result = {"answers": config.count, "rendering_alone_seconds": alone, "scoring": whole}
    result["share_in_rendering"] = alone / whole["seconds"]
    if config.page:
        result["page"] = page_of(config.page)
    print(json.dumps(result, indent=1))
    if config.out:
        config.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
