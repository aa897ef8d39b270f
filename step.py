"""What a ViRL step says about itself: numbers for metrics.jsonl and the console, and the newest answers for a page.

A number over the answers of a step is one line of STEP_METRICS: then it is in metrics.jsonl, on the console if it has
a format, and in curves.png (report/curves.py draws whatever metrics.jsonl holds).
"""

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from processes import all_gather
from records import FAILURES, RecordWriter
from reward import Score, flat
from run import Run

QUANTILES = ("p05", "p25", "p50", "p75", "p95")  # of each domain's rewards


@dataclass
class Rollout:
    """The B = N G answers of a step, of all processes, those of a group one after the other."""

    domains: list[str]  # (B,)
    scores: list[Score]  # (B,)
    failures: list[str | None]  # (B,) what went wrong, one of records.FAILURES
    lengths: np.ndarray  # (B,) tokens
    cut: np.ndarray  # (B,) whether they ended at max_new_tokens
    logps: np.ndarray  # (B,) sums over their tokens
    G: int

    @classmethod
    def of(cls, groups: list) -> "Rollout":
        """groups: train_virl.Group, judged. Every process has to call it."""
        mine = []
        for group in groups:
            for completion, record in zip(group.completions, group.records, strict=True):
                numbers = len(completion.ids), completion.finish == "length", float(completion.logps.sum())
                mine.append((group.sample.domain.replace("/", "_"), record.score, record.failure, *numbers))
        domains, scores, failures, *numbers = zip(*(row for share in all_gather(mine) for row in share), strict=True)
        return cls(domains, scores, failures, *np.array(numbers), len(groups[0].records))

    def mean(self, value: Callable[[Score], float]) -> float:
        return float(np.mean([value(score) for score in self.scores]))

    @property
    def rewards(self) -> np.ndarray:
        """(N, G)"""
        return np.reshape([score.total for score in self.scores], (-1, self.G))


# name -> what it is of a step's answers, and how the console says it
STEP_METRICS: dict[str, tuple[Callable[[Rollout], float], str]] = {
    "reward/mean": (lambda step: step.mean(lambda score: score.total), "reward={:.3f}"),
    "reward/std_in_group": (lambda step: step.rewards.std(1).mean(), ""),
    "reward/visual": (lambda step: step.mean(lambda score: score.visual), "visual={:.3f}"),
    "reward/coarse": (lambda step: step.mean(lambda score: score.coarse), ""),
    "reward/alignment": (lambda step: step.mean(lambda score: score.alignment), ""),
    "render_ok": (lambda step: step.mean(lambda score: score.executed), "executes={:.0%}"),
    "zero_variance_groups": (lambda step: int(flat(step.rewards).sum()), "flat={}"),
    "length/mean": (lambda step: step.lengths.mean(), "length={:.0f}"),
    "length/p95": (lambda step: np.percentile(step.lengths, 95), ""),
    "length/cut": (lambda step: step.cut.mean(), ""),
    "entropy": (lambda step: -step.logps.sum() / step.lengths.sum(), ""),
    "tokens": (lambda step: int(step.lengths.sum()), ""),
}


def rollout_metrics(groups: list) -> dict[str, float]:
    """STEP_METRICS over the answers of a step, of all processes; each domain's rewards; the share of each failure."""
    step = Rollout.of(groups)
    values = {name: of(step) for name, (of, _) in STEP_METRICS.items()}
    metrics = {name: value if isinstance(value, int) else float(value) for name, value in values.items()}
    for name in step.scores[0].parts:  # each reward by its name
        values = [score.parts[name] for score in step.scores if score.parts[name] is not None]
        metrics |= {f"reward/{name}": float(np.mean(values))} if values else {}
    for domain in sorted(set(step.domains)):
        scores = [score for its, score in zip(step.domains, step.scores, strict=True) if its == domain]
        metrics[f"visual/{domain}"] = float(np.mean([score.visual for score in scores]))
        for name in QUANTILES:
            metrics[f"rewards/{domain}/{name}"] = float(np.percentile([s.total for s in scores], int(name[1:])))
    return metrics | {f"failure/{kind}": step.failures.count(kind) / len(step.failures) for kind in FAILURES}


def training_metrics(sums: dict, norms: Sequence[float]) -> dict[str, float]:
    """Means over the minibatches, and over their tokens: loss, clipped share, distance of sampler and trainer."""
    shares = all_gather(dict(sums))
    worst = max(share["mismatch_max"] for share in shares)
    sums = {name: sum(share.get(name, 0) for share in shares) for name in sums} | {"mismatch_max": worst}
    tokens = max(1, sums["trained_tokens"])
    means = {name: sums[name] / tokens for name in ("clipped", "mismatch", "kl") if name in sums}
    counts = {"mismatch_max": sums["mismatch_max"], "trained_tokens": int(sums["trained_tokens"])}
    return {"loss": sums["loss"] / len(norms), "grad_norm": float(np.mean(norms))} | means | counts


@contextlib.contextmanager
def timer(times: dict, name: str):
    """Adds the seconds of a block to times[name]."""
    start = time.perf_counter()
    yield
    times[name] = times.get(name, 0.0) + time.perf_counter() - start


def status_line(metrics: dict) -> str:
    """What the console says of a step."""
    said = [form.format(metrics[name]) for name, (_, form) in STEP_METRICS.items() if form]
    phases = [f"{phase}={metrics.get(f'time/{phase}', 0):.1f}" for phase in ("rollout", "held_up", "update")]
    return " ".join([*said, *phases, "s"])


def write_samples(run: Run, step: int, groups: list) -> None:
    """RUN/samples: the newest step's answers (the first process's), which `python -m report page RUN` shows."""
    if not run.writes:
        return
    folder, unfinished = run.folder / "samples", run.folder / ".samples.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    times = Counter(group.sample.id for group in groups)  # a folder keeps targets apart by their ids
    with RecordWriter(unfinished) as writer:
        for group in groups:
            sample = group.sample
            if times[sample.id] > 1:
                sample = replace(sample, id=f"{sample.id} ({group.completions[0].number})")
            for record in group.records:
                writer.append(replace(record, sample=sample))
    (unfinished / "step").write_text(f"{step}\n")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
