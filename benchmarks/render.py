"""Renderer throughput against the method of the paper's release: same programs, same core, same run.

    make benchmark-tools                                      # cairosvg and pdftoppm, which only the release needs
    python benchmarks/render.py --data PATH                   # real programs (data.load), and as many of synth.py
    python benchmarks/render.py --data PATH --count 40 --out results/render.json

The release (VinciCoder dbe1e94, `examples/reward_function/vincicoder.py`) starts a Python process per program, launches
a browser per page, runs pdflatex with its stock format and rasterises by pdftoppm at 300 dpi, and draws svg by cairosvg
at 336 px. `reference_*` below are these methods without what cannot run (a hard-coded path, a pool per call). Both
sides end with an RGB picture in memory. Programs alternate between the two, so that noise of the machine hits both; a
time is the median over `repeats` of one program, a row the mean of these over programs, a ratio that of the means.

The release's methods run programs without a sandbox: use data that you trust.
"""

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
import data  # noqa: E402
import sandbox  # noqa: E402
import synth  # noqa: E402
from languages import (  # noqa: E402
    LANGUAGES,  # noqa: E402
    browser,
    latex,
)
from render import Renderer, interpreter  # noqa: E402

SIDE = 336  # px of an svg's picture, as in the release
# our renders of a program that are timed together: what a worker tidies up afterwards is part of its price
IN_A_ROW = 3
DOMAINS = ("chart", "molecule", "svg", "html", "latex")


def reference_python(code: str, folder: str) -> Image.Image:
    """A fresh interpreter; every file name a figure is saved under is replaced, otherwise a savefig is added."""
    picture, script = Path(folder, "picture.png"), Path(folder, "program.py")
    saves = r"((?:savefig|MolToFile|renderToFile|WriteDrawingText|\.save)\(\s*(?:\w+\s*,\s*)?)([\"'][^\"']+[\"'])"
    code, found = re.subn(saves, lambda hit: f"{hit[1]}{str(picture)!r}", code)
    code = code.replace("plt.show()", "")
    if not found:
        code += f"\nimport matplotlib.pyplot as plt\nplt.savefig({str(picture)!r})\n"
    script.write_text("import matplotlib\nmatplotlib.use('Agg')\n" + code)
    subprocess.run([interpreter(), script], cwd=folder, check=True, capture_output=True, timeout=60)
    return Image.open(picture).convert("RGB")


def reference_svg(code: str, folder: str) -> Image.Image:
    import cairosvg

    picture = Path(folder, "picture.png")
    cairosvg.svg2png(bytestring=code.encode(), write_to=str(picture), output_width=SIDE, output_height=SIDE)
    return Image.open(picture).convert("RGB")


def reference_html(code: str, folder: str) -> Image.Image:
    from playwright.sync_api import sync_playwright

    page_file, picture = Path(folder, "page.html"), Path(folder, "picture.png")
    page_file.write_text(code)
    with sync_playwright() as playwright:
        page = new_page(playwright)
        page.goto(page_file.as_uri(), wait_until="load", timeout=20_000)
        page.screenshot(path=str(picture), full_page=True, timeout=20_000)
        page.context.browser.close()
    return Image.open(picture).convert("RGB")


def new_page(playwright):
    """A page of a browser of its own."""
    chromium = playwright.chromium.launch(executable_path=browser.chromium_path())
    return chromium.new_page(viewport={"width": 1280, "height": 720})


def reference_latex(code: str, folder: str) -> Image.Image:
    Path(folder, "program.tex").write_text(latex.latex_document(code))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "program.tex"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    subprocess.run(
        ["pdftoppm", "-r", "300", "-png", "-f", "1", "-l", "1", "program.pdf", "page"], cwd=folder, check=True
    )
    return Image.open(next(Path(folder).glob("page*.png"))).convert("RGB")


REFERENCES = {"python": reference_python, "svg": reference_svg, "html": reference_html, "latex": reference_latex}


def programs(path: str | None, count: int) -> dict[str, list[data.Sample]]:
    """domain -> up to `count` programs: half of `path`, spread over it, and half made by synth.py."""
    found = defaultdict(list)
    if path:
        for _, sample, problem in data.check(data.load(path)):
            if sample and sample.code and sample.domain in DOMAINS:
                found[sample.domain].append(sample)
            elif problem:
                print(f"left out: {problem}", file=sys.stderr)
    chosen = {}
    for domain in DOMAINS:
        real = found[domain][:: max(1, len(found[domain]) // max(1, count // 2))][: count // 2]
        made = [synth.make(domain, i, seed=99, difficulty=(i % 5 + 1) / 5) for i in range(count - len(real))]
        chosen[domain] = real + made
    return chosen


def seconds(work) -> float | None:
    """Wall time; None where it fails."""
    start = time.perf_counter()
    try:
        result = work()
    except Exception as error:
        print(f"failed: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        return None
    return None if getattr(result, "error", None) else time.perf_counter() - start


class Floor:
    """The same drawing without a sandbox and without tidying up: benchmarks/floor.py, asked program by program."""

    def __init__(self):
        command = [interpreter(), str(Path(__file__).with_name("floor.py"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, code: str, language: str) -> float | None:
        self.process.stdin.write(json.dumps([code, language]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __enter__(self) -> "Floor":
        return self

    def __exit__(self, *_) -> None:
        sandbox.kill_tree(self.process)


def compare(samples: list[data.Sample], renderer: Renderer, floor: Floor, repeats: int, bar: tqdm) -> dict:
    """Release, ours, floor: mean, p50, p95 of the programs' medians in ms, over those that both release and we draw."""
    times, drawn = defaultdict(list), defaultdict(int)
    language = samples[0].language
    renderer.render(LANGUAGES[language].sample, language)  # the worker is up
    floor.seconds(LANGUAGES[language].sample, language)
    ways = {
        "release": lambda code, folder: REFERENCES[language](code, folder),
        "nanovinci": lambda code, _: [renderer.render(code, language) for _ in range(IN_A_ROW)][-1],
    }
    for sample in samples:
        mine = defaultdict(list)
        for _ in range(repeats):
            for name, way in ways.items():
                with tempfile.TemporaryDirectory() as folder:
                    mine[name].append(seconds(lambda: way(sample.code, folder)))  # noqa: B023
            if mine["nanovinci"][-1]:
                mine["nanovinci"][-1] /= IN_A_ROW
            mine["floor"].append(floor.seconds(sample.code, language))
            bar.update()
        for name, values in mine.items():
            drawn[name] += None not in values
        if not any(None in values for values in mine.values()):
            for name, values in mine.items():
                times[name].append(1000 * statistics.median(values))
    rows = {}
    for name, values in times.items():
        p50, p95 = np.percentile(values, (50, 95))
        rows[name] = {
            "mean": round(float(np.mean(values)), 1),
            "p50": round(float(p50), 1),
            "p95": round(float(p95), 1),
        }
    row = {"programs": len(samples), "drawn": dict(drawn), "compared": len(times["release"]), "ms": rows}
    row["times_faster"] = round(rows["release"]["mean"] / rows["nanovinci"]["mean"], 2)
    row["times_the_floor"] = round(rows["nanovinci"]["mean"] / rows["floor"]["mean"], 2)
    return row


@contextlib.contextmanager
def on_cores(cores: list[int]):
    """What is started inside, and whatever that starts, shares `cores`."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


def throughput(jobs: list[data.Sample], workers: int) -> float:
    """Programs a second of a warm renderer, which draws all of them once per worker: what a worker does at first sight
    (a TeX format, a font) then weighs the same, however many there are."""
    jobs = jobs * workers
    with Renderer(workers, timeout=30, cache_mb=0) as renderer:
        warm = (
            [(LANGUAGES[s.language].sample, s.language) for s in {s.language: s for s in jobs}.values()] * workers * 2
        )
        for future in [renderer.submit(code + "\n" * i, language) for i, (code, language) in enumerate(warm)]:
            future.result()
        start = time.perf_counter()
        for future in [renderer.submit(sample.code, sample.language) for sample in jobs]:
            future.result()
        return len(jobs) / (time.perf_counter() - start)


def duplicates(sample: data.Sample, group: int) -> float:
    """Time of a group of equal programs, in times of one."""
    with Renderer(1, timeout=30) as renderer:
        renderer.render(LANGUAGES[sample.language].sample, sample.language)
        one = seconds(lambda: renderer.render(sample.code + "\n", sample.language))
        futures = lambda: [renderer.submit(sample.code, sample.language) for _ in range(group)]  # noqa: E731
        return seconds(lambda: [future.result() for future in futures()]) / one


def recovery(language: str, endless: str) -> float | None:
    """Seconds from the deadline of an endless program to the next picture; None if it ended by itself."""
    with Renderer(1, timeout=1.0) as renderer:
        renderer.render(LANGUAGES[language].sample, language)
        start = time.perf_counter()
        if "timeout" not in (renderer.render(endless, language).error or ""):
            return None
        renderer.render(LANGUAGES[language].sample + "\n", language)  # not from the cache
        return round(time.perf_counter() - start - 1.0, 2)


ENDLESS = {
    "python": "while True: pass",
    "html": "<script>while (true) {}</script>",
    "latex": r"\loop\iftrue\repeat",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 400"><filter id="f"><feTurbulence '
    'numOctaves="999999"/></filter>' + 99 * '<rect width="400" height="400" filter="url(#f)"/>' + "</svg>",
}


@dataclass
class Config:
    """Compare, print a table, write the figures."""

    data: str | None = None
    """Real programs: what data.load reads. Without, all are made by synth.py."""
    count: int = 12
    """Programs per domain."""
    repeats: int = 3
    """Times each is drawn by either side."""
    out: Path = Path("results/render.json")
    """Where the figures go."""


def main(config: Config) -> None:
    chosen = programs(config.data, config.count)
    result = {"date": time.strftime("%Y-%m-%d"), "count": config.count, "repeats": config.repeats, "domains": {}}
    with (
        Renderer(1, timeout=30, cache_mb=0) as renderer,
        Floor() as floor,
        tqdm(total=len(DOMAINS) * config.count * config.repeats) as bar,
    ):
        for domain, samples in chosen.items():
            bar.set_description(domain)
            result["domains"][domain] = row = compare(samples, renderer, floor, config.repeats, bar)
            bar.write(f"{domain:10}{row}")
    rows = result["domains"].values()
    sums = {name: sum(row["ms"][name]["mean"] for row in rows) for name in ("release", "nanovinci")}
    result["mixture_times_faster"] = round(sums["release"] / sums["nanovinci"], 2)
    result["programs_per_second"] = {}
    cores = sorted(os.sched_getaffinity(0))[:2]
    settings = {"one_core": (1, cores[:1]), "one_worker": (1, cores), "two_workers": (2, cores)}
    for left_out in ("", "html"):  # a browser uses more than one core for one page
        rows = [samples for domain, samples in chosen.items() if domain != left_out]
        jobs = [sample for group in zip(*rows, strict=True) for sample in group] * config.repeats
        rates = {name: [] for name in settings}
        for _ in range(3):
            for name, (workers, own) in settings.items():
                with on_cores(own):
                    rates[name].append(throughput(jobs, workers))
        row = {name: statistics.median(rate) for name, rate in rates.items()}
        row["ratio"] = row["two_workers"] / row["one_worker"]
        row["ratio_one_core"] = row["two_workers"] / row["one_core"]
        row = {name: round(value, 2) for name, value in row.items()}
        result["programs_per_second"][f"without {left_out}" if left_out else "all domains"] = row
    result["group_of_8_equal_over_one"] = round(duplicates(chosen["chart"][0], 8), 2)
    result["recovery_seconds"] = {name: recovery(name, code) for name, code in ENDLESS.items()}
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
