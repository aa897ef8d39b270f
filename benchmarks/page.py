"""The report page of 5,000 targets in a real Chromium: how long until something is seen, and until it answers.

    python benchmarks/page.py --out results/page.json

Pictures of 256 x 192 px with 48 blocks of noise each, programs of 30 lines. Opened from the disk, several times, each
time in a fresh tab; medians. First paint: the browser's first-contentful-paint. Cards: until 24 cards with pictures are
laid out and decoded. Filter, search, sort: from the event until the new cards are laid out. Key: one press of `j`.
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
import environment  # noqa: E402, F401

from data import Sample  # noqa: E402
from languages.browser import chromium_path  # noqa: E402
from records import Record  # noqa: E402
from render import Rendering  # noqa: E402
from report.answers import write_report  # noqa: E402
from reward import Score  # noqa: E402

CARDS = """async () => {
    const pictures = [...document.querySelectorAll(".card img")];
    await Promise.all(pictures.map((picture) => picture.decode()));
    return performance.now();
}"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
ACT = """([selector, value, event]) => {
    const node = document.querySelector(selector), started = performance.now();
    node.value = value;
    node.dispatchEvent(new Event(event));
    document.body.getBoundingClientRect();
    return [performance.now() - started, document.getElementById("count").textContent];
}"""
KEY = """() => {
    const started = performance.now();
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "j" }));
    document.body.getBoundingClientRect();
    return performance.now() - started;
}"""


def records(count: int):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (64, 6, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(pixels).resize((256, 192), 0) for pixels in noise]
    for i, visual in enumerate(rng.random(count)):
        domain = ("chart", "svg", "html")[i % 3]
        target = Sample(f"{domain}/{i:05d}", domain, "python", pictures[i % 64], "Draw it.", "import this\n" * 30)
        failed = i % 10 == 3
        shown = (
            Rendering(None, "timed out after 10 s", 10.0) if failed else Rendering(pictures[(i + 1) % 64], None, 0.1)
        )
        visual = 0.0 if failed else float(visual)
        rest = {"total": visual, "alignment": 1.0, "executed": not failed, "error": shown.error}
        score = Score(visual, visual, [visual] * 4, (2, 2), **rest)
        yield Record(target, 0, "", f"x = {i}\n" * 30, shown, score, 0.5, metrics={"plot2code.text_match": visual})


def measure(browser, path: Path, keys: int) -> dict[str, float]:
    """Seconds of each thing, in one fresh tab."""
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    requests = []
    tab.on("request", lambda request: requests.append(request.url) if not request.url.startswith("data:") else None)
    tab.goto(path.as_uri())
    tab.wait_for_selector(".card")
    seconds = {"cards": tab.evaluate(CARDS) / 1000, "first_paint": tab.evaluate(PAINT) / 1000}
    for name, *action in (
        ("filter", "#pick-failure", "time-out", "change"),
        ("all_again", "#pick-failure", "all", "change"),
        ("search", "#search", "0499", "input"),
        ("search_cleared", "#search", "", "input"),
        ("sort", "#pick-sort", "low", "change"),
    ):
        seconds[name] = tab.evaluate(ACT, action)[0] / 1000
    seconds["key"] = float(np.median([tab.evaluate(KEY) for _ in range(keys)])) / 1000
    tab.close()
    if requests != [path.as_uri()]:
        raise RuntimeError(f"The page asked for {requests[1]}.")
    return seconds


@dataclass
class Config:
    """Measure the page."""

    count: int = 5000
    """Targets on it."""
    repeat: int = 5
    """Fresh tabs."""
    keys: int = 100
    """Presses of j in each."""
    out: Path | None = None
    """JSON file for the figures."""


def main(config: Config) -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path, started = Path(folder) / "report.html", time.perf_counter()
        write_report(path, {"run": records(config.count)})
        result = {"targets": config.count, "megabytes": path.stat().st_size / 1e6}
        result["seconds_to_write"] = time.perf_counter() - started
        result["peak_mib_to_write"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox", "--disable-gpu"])
        result["chromium"] = browser.version
        runs = [measure(browser, path, config.keys) for _ in range(config.repeat)]
        browser.close()
    result["seconds"] = {name: round(float(np.median([run[name] for run in runs])), 4) for name in runs[0]}
    result["slowest_cards"] = round(max(run["cards"] for run in runs), 3)
    print(json.dumps(result, indent=1))
    if config.out:
        config.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
