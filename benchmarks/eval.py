"""Scoring speed: 1,000 synthetic answers over five domains, all metrics without weights, in one run.

    python benchmarks/eval.py --count 1000 --out results/eval.json

The answers are the references, every second one with seeded flaws, so that about half of the renderings differ from
their targets (`equal_pictures` counts the others). They are gone through three times, each time with a fresh renderer:
only drawn, scored by `evaluate` as `eval.py run` does, and only drawn again, for a machine drifts. Drawing is
every job that scoring asks the sandboxed workers for, in the same order and the same chunks: the pictures of targets
and answers, and the inspections that give ChartMimic's facts of a figure and Design2Code's blocks of a page, for they
run the program too. The start of the workers is part of each.

`share_in_rendering` is the ratio of the wall times, the mean of the two drawings over the scoring. It suffers from
whatever else the machine does; `scoring_cpu_seconds`, what scoring takes this process more of CPU time, does less.
`memory_mib` is what this process holds after every twentieth of the answers, without the workers; `growth` compares its
last value with that after the first fifth.
"""

import itertools
import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))
import data  # noqa: E402
import eval as evaluation  # noqa: E402
from answers import rounds  # noqa: E402
from answers.folder import Folder  # noqa: E402
from answers.server import Answer  # noqa: E402
from corpus import benchmarks  # noqa: E402
from data import Sample  # noqa: E402
from flaws import mutate  # noqa: E402
from metrics.scoring import Scorer  # noqa: E402
from render import Renderer  # noqa: E402
from reward import Rewards  # noqa: E402

CHUNK = 32  # targets at a time, as eval.py has it


def flawed(sample: Sample, number: int) -> str:
    """The reference, every second one with seeded flaws."""
    rng = np.random.default_rng(number)
    code = sample.code if number % 2 else mutate(sample.code, sample.language, rng) or sample.code
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


def drawing(samples: list[Sample], texts: dict[str, str]) -> dict:
    """Every picture and inspection that scoring these answers wants, and nothing measured on them."""
    with Renderer() as renderer, Stopwatch() as watch:
        scorer, equal = Scorer(renderer), 0
        ready = (rounds.with_pictures(batch, renderer) for batch in rounds.batches(samples, CHUNK, renderer))
        asked = ([scorer.submit(s, data.extract_code(texts[s.id], s.language)) for s in batch] for batch in ready)
        for jobs in rounds.a_step_ahead(asked):
            for job in jobs:
                equal += job.rendering.result().image == job.sample.image
                for future in itertools.chain(job.facts or (), *job.squares.values()):
                    future.result()
    return watch.seconds() | {"equal_pictures": equal}


def scoring(samples: list[Sample], texts: dict[str, str]) -> dict:
    """What `eval.py run` does, but for reading and writing files."""
    memory, count, every = [], 0, max(1, len(samples) // 20)
    with Renderer() as renderer, Stopwatch() as watch:
        scorer, reward = Scorer(renderer), Rewards(cache_mb=64)
        options = {"scorer": scorer, "total": len(samples), "chunk": CHUNK}
        for count, _ in enumerate(evaluation.evaluate(Given(texts), samples, renderer, reward, **options), 1):
            if count % every == 0:
                memory.append(round(megabytes()))
    growth = memory[-1] / memory[len(memory) // 5 - 1] - 1
    return watch.seconds() | {"scored": count, "memory_mib": memory, "growth": growth}


class Stopwatch:
    """Seconds by the clock, and of CPU time of this process without the workers."""

    def __enter__(self):
        self.started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.stopped = time.perf_counter(), time.process_time()

    def seconds(self) -> dict[str, float]:
        wall, cpu = (b - a for a, b in zip(self.started, self.stopped, strict=True))
        return {"seconds": wall, "cpu_seconds": cpu}


@dataclass
class Config:
    """Measure scoring."""

    count: int = 1000
    """Answers to score."""
    out: Path | None = None
    """JSON file for the figures."""


def main(config: Config) -> None:
    samples = list(benchmarks.synthetic(config.count))
    texts = {sample.id: flawed(sample, i) for i, sample in enumerate(samples)}
    before, whole, after = drawing(samples, texts), scoring(samples, texts), drawing(samples, texts)
    seconds, cpu = ((before[key] + after[key]) / 2 for key in ("seconds", "cpu_seconds"))
    result = {"answers": config.count, "rendering": [before, after], "scoring": whole}
    result["share_in_rendering"] = seconds / whole["seconds"]
    result["scoring_cpu_seconds"] = whole["cpu_seconds"] - cpu
    print(json.dumps(result, indent=1))
    if config.out:
        config.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
