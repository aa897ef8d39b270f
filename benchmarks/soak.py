"""A long mixed run of the renderer, a tenth of it hostile: nothing lost, nothing slower, nothing growing.

    python benchmarks/soak.py --count 5000 --out results/soak.json

Programs of the five domains (synth.py) in turn, every tenth one replaced by a loop, a memory hog, a crash or garbage in
its language. Each is submitted once; waiting jobs are bounded. Memory is that of the whole process tree.
"""

import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
import sandbox  # noqa: E402
import synth  # noqa: E402
from render import Renderer  # noqa: E402

HOSTILE = {
    "python": ("while True: pass", "x = []\nwhile True: x.append(bytearray(1 << 20))", "import os; os._exit(1)", "1 +"),
    "svg": ("<svg", '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><g>', "\x01"),
    "html": ("<script>while (true) {}</script>", "<script>setTimeout(() => { while (true) {} }, 5)</script>x"),
    "latex": (r"\loop\iftrue\repeat", r"\input{/etc/passwd}", r"\def\a{x}\loop\edef\a{\a\a}\iftrue\repeat"),
}


def memory_mb() -> float:
    """Proportional set size of this process and all below it."""
    total = 0
    for pid in [os.getpid(), *sandbox.descendants(os.getpid())]:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:  # ended meanwhile
            continue
        total += int(rollup.split("\nPss:")[1].split()[0])
    return total / 1024


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@dataclass
class Config:
    """Run it, print and write what happened."""

    count: int = 5000
    """Programs."""
    workers: int | None = None
    """Programs at a time; one per core by default."""
    timeout: float = 2.0
    """Seconds for one program."""
    out: Path = Path("results/soak.json")
    """Where the figures go."""


def main(config: Config) -> None:
    jobs = []
    for i in range(config.count):
        domain = synth.DOMAINS[i % len(synth.DOMAINS)]
        sample = synth.make(domain, i // len(synth.DOMAINS), seed=5, difficulty=(i % 10) / 10)
        bad = HOSTILE[sample.language][i // 10 % len(HOSTILE[sample.language])] if i % 10 == 9 - i // 10 % 10 else None
        jobs.append((bad or sample.code, sample.language, bad is not None))
    answers, clock = Counter(), []
    # pauses of hostile programs come in bursts: throughput counts the good ones' own seconds
    good_seconds, memory, files = [], [], []
    with Renderer(config.workers, config.timeout, memory_mb=768, cache_mb=0) as renderer:
        waiting, start = [], time.perf_counter()
        for i, (code, language, bad) in enumerate(tqdm(jobs, "soak", unit="program")):
            waiting.append((renderer.submit(code, language), bad))
            if len(waiting) < 64 and i + 1 < len(jobs):
                continue
            for future, was_bad in waiting:
                rendering = future.result()
                kind = "hostile" if was_bad else "good"
                answers[f"{kind}, {'picture' if rendering.image else 'error'}"] += 1
                clock.append(time.perf_counter() - start)
                if not was_bad:
                    good_seconds.append(rendering.seconds)
            waiting = []
            memory.append(memory_mb())
            files.append(descriptors())
    share = max(1, len(good_seconds) // 10)
    first, last = sum(good_seconds[:share]), sum(good_seconds[-share:])
    settled = len(memory) // 10  # by then every worker has been started
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "programs": config.count,
        "answered": answers.total(),
        "answers": dict(answers),
        "seconds": round(clock[-1], 1),
        "throughput_last_tenth_over_first": round(first / last, 3),
        "memory_mb": {
            "after_a_tenth": round(memory[settled]),
            "at_the_end": round(memory[-1]),
            "most": round(max(memory)),
        },
        "descriptors": {"after_a_tenth": files[settled], "at_the_end": files[-1], "most": max(files)},
        "processes_left": len(sandbox.descendants(os.getpid())),
    }
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
