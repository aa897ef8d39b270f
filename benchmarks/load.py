"""Verdicts on a busy machine: the same programs alone and beside eight busy processes, by a limit that some exceed.

    python benchmarks/load.py --out results/load.json
    python benchmarks/load.py --beside "make test"     # any command beside them; ends with its exit status

A verdict is the picture, pixel for pixel, or the text of the error. Most programs take 0.2 to 3 s of CPU time, some of
them sleep; a tenth never ends or sleeps too long. The exit status is 1 if a verdict is another beside the busy
processes. Those are loops in Python at `nice 0`; they end with this script, however it ends.
"""

import contextlib
import hashlib
import json
import os
import random
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
import sandbox  # noqa: E402
from render import Renderer, Rendering  # noqa: E402

CHART = """import matplotlib.pyplot as plt
x = 0
for i in range({n}): x = (x * 31 + i) % 1000
plt.figure(figsize=(3, 2))
plt.bar([1, 2, 3], [x, 500, {seed}])
plt.show()
"""
SLEEPS = "import time\nfor i in range(10): time.sleep({seconds} / 10)\n"
PAGE = """<body style="margin:40px"><h1>Sums {seed}</h1><p id="p"></p>
<script>let x = 0; for (let i = 0; i < {n}; i++) x = (x * 31 + i) % 1000; p.textContent = x</script>"""
DOCUMENT = r"""\documentclass{{article}}\newcount\i\newcount\x\begin{{document}}
\loop\advance\i by 1 \x=\i \multiply\x by 31 \ifnum\i<{n} \repeat {seed} sums end with \the\x.\end{{document}}"""
DRAWING = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 30"><filter id="f">
<feTurbulence baseFrequency="0.{seed}" numOctaves="3"/><feGaussianBlur stdDeviation="1"/></filter>{rects}</svg>"""
SIZES = {"python": 1_000_000, "html": 20_000_000, "latex": 200_000, "svg": 10}  # n of a program of some 0.1 s
ENDLESS = {
    "python": "while True: pass",
    "html": "<script>while (true) {}</script>",
    "latex": r"\loop\iftrue\repeat",
    "svg": DRAWING.format(seed=5, rects='<rect width="40" height="30" filter="url(#f)"/>' * 20_000),
}


def program(language: str, n: int, seed: int) -> str:
    if language == "svg":
        rects = '<rect width="40" height="30" filter="url(#f)"/>' * n
        return DRAWING.format(seed=100 + seed, rects=rects)
    return {"python": CHART, "html": PAGE, "latex": DOCUMENT}[language].format(n=n, seed=seed)


def programs(count: int, limit: float, speeds: dict[str, float]) -> list[tuple[str, str, str]]:
    """(kind, code, language) of each program; a tenth goes beyond the limit. speeds: n of a program of one second."""
    dice, made = random.Random(7), []
    for i in range(count):
        language = ("python", "html", "latex", "svg", "python")[i % 5]
        seconds = min(3.0, 0.7 * limit) * 15 ** -dice.random()  # as many from 0.2 to 0.4 as from 1.5 to 3
        code = program(language, int(seconds * speeds[language]), i)
        kind = "works"
        if i % 10 == 9:
            endless = ("python", "html", "latex", "svg")[i // 10 % 4]
            kind, code, language = "never ends", f"{ENDLESS[endless]}\n", endless
            if i % 30 == 29:
                kind, code, language = "sleeps too long", SLEEPS.format(seconds=10 * limit), "python"
        elif i % 10 == 4:
            kind, code = "sleeps and works", SLEEPS.format(seconds=0.2 * limit) + code
        made.append((kind, code, language))
    return made


@contextlib.contextmanager
def busy(count: int, apart: bool = True) -> Iterator[None]:
    """So many processes that never wait. apart: a session each, for the kernel shares the cores among sessions first;
    else all in this one, as if they had been started from one terminal."""
    loops = []
    try:
        for _ in range(count):
            command = [sys.executable, "-c", "while True: pass"]
            loops.append(subprocess.Popen(command, start_new_session=apart, preexec_fn=sandbox.die_with_parent))
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def speeds(renderer: Renderer) -> dict[str, float]:
    found = {}
    for language, n in SIZES.items():
        little = min(renderer.render(program(language, 1, i), language).seconds for i in range(1, 4))
        much = min(renderer.render(program(language, 4 * n, i), language).seconds for i in range(1, 4))
        found[language] = 4 * n / max(0.05, much - little)
    return found


def verdict(rendering: Rendering) -> str:
    return rendering.error or hashlib.sha256(rendering.image.tobytes()).hexdigest()


@dataclass
class Config:
    """Draw them twice, print and write what was different."""

    count: int = 100
    """Programs."""
    limit: float = 5.0
    """Seconds that a program may have."""
    busy: int = 8
    """Processes that keep the machine busy."""
    workers: int | None = None
    """Programs at a time; one per core by default."""
    beside: str | None = None
    """Run this command beside the busy processes, and nothing else."""
    out: Path = Path("results/load.json")
    """Where the figures go."""


def main(config: Config) -> int:
    if config.beside:
        with busy(config.busy, apart=False):
            as_from_another_terminal = {"start_new_session": True, "preexec_fn": sandbox.die_with_parent}
            command = subprocess.Popen(shlex.split(config.beside), **as_from_another_terminal)
            try:
                return command.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(command.pid, signal.SIGTERM)
    runs, took = [], []
    with Renderer(config.workers, config.limit, cache_mb=0) as renderer:
        jobs = programs(config.count, config.limit, speeds(renderer))
        for loops in (0, config.busy):
            with busy(loops):
                started = time.perf_counter()
                futures = [renderer.submit(code, language) for _, code, language in jobs]
                runs.append([future.result() for future in tqdm(futures, f"beside {loops}", unit="program")])
                took.append(time.perf_counter() - started)
    alone, beside = runs
    pairs = [(kind, language, a, b) for (kind, _, language), a, b in zip(jobs, alone, beside, strict=True)]
    late = lambda rendering: (rendering.error or "").startswith("timeout")  # noqa: E731
    worked = [a.seconds for kind, _, a, _ in pairs if kind == "works"]
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "programs": dict(Counter(kind for kind, *_ in pairs)),
        "limit_seconds": config.limit,
        "busy_processes": config.busy,
        "cores": os.cpu_count(),
        "time_outs_alone": sum(map(late, alone)),
        "time_outs_beside": sum(map(late, beside)),
        "time_outs_only_beside": sum(late(b) and not late(a) for a, b in zip(alone, beside, strict=True)),
        "other_verdicts": [
            {"kind": kind, "language": language, "alone": verdict(a), "beside": verdict(b)}
            for kind, language, a, b in pairs
            if verdict(a) != verdict(b)
        ],
        "seconds_alone": round(took[0], 1),
        "seconds_beside": round(took[1], 1),
        "seconds_of_one_that_works": {"least": round(min(worked), 2), "most": round(max(worked), 2)},
        "times_as_long_beside": round(statistics.median(b.seconds / a.seconds for *_, a, b in pairs), 1),
        "longest_beside_seconds": round(max(b.seconds for b in beside), 1),
    }
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 1 if result["other_verdicts"] else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
