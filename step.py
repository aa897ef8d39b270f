"""What a ViRL step says about itself: numbers for metrics.jsonl, one line for the console, a page with its answers.

`groups` are train_virl's: a sample, its completions, renderings and scores.
"""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

import data
import eval as evaluation
from metrics.pixels import ssim
from processes import from_all
from records import FAILURES, find_failure
from report.curves import QUANTILES
from reward import flat
from run import Run


def rollout_metrics(groups: list) -> dict:
    """Reward, rendering and length over all answers of a step, in all processes, and each domain's reward."""
    mine = []
    for group in groups:
        for score, c, rendering in zip(group.scores, group.completions, group.renderings, strict=True):
            numbers = len(c.ids), c.finish == "length", float(c.logps.sum())
            mine.append((group.sample.domain, score, failure(group.sample, c, rendering), *numbers))
    domains, scores, failures, *numbers = zip(*(answer for share in from_all(mine) for answer in share), strict=True)
    lengths, cut, logps = np.array(numbers)
    rewards = np.reshape([score.total for score in scores], (-1, len(groups[0].scores)))  # (N, G)
    mean = lambda values: float(np.mean(list(values)))  # noqa: E731
    metrics = {
        "reward/mean": mean(score.total for score in scores),
        "reward/std_in_group": float(rewards.std(1).mean()),
        "reward/visual": mean(score.visual for score in scores),
        "reward/coarse": mean(score.coarse for score in scores),
        "reward/alignment": mean(score.alignment for score in scores),
        **{f"reward/{name}": mean(score.parts[name] for score in scores) for name in scores[0].parts},
        "render_ok": mean(score.executed for score in scores),
        "zero_variance_groups": int(flat(rewards).sum()),
        "length/mean": float(lengths.mean()),
        "length/p95": float(np.percentile(lengths, 95)),
        "length/cut": float(cut.mean()),
        "entropy": -float(logps.sum() / lengths.sum()),
        "tokens": int(lengths.sum()),
    }
    for domain in sorted(set(domains)):
        its_scores = [score for its, score in zip(domains, scores, strict=True) if its == domain]
        metrics[f"visual/{domain}"] = mean(score.visual for score in its_scores)
        quantiles = np.percentile([score.total for score in its_scores], [int(name[1:]) for name in QUANTILES])
        metrics |= {f"rewards/{domain}/{name}": float(x) for name, x in zip(QUANTILES, quantiles, strict=True)}
    return metrics | {f"failure/{kind}": failures.count(kind) / len(failures) for kind in FAILURES}


def failure(sample, completion, rendering) -> str | None:
    """What went wrong with an answer, one of FAILURES; None if nothing did."""
    code, text = data.extract_code(completion.text, sample.language), completion.text
    about = {"code": code, "text": text, "sample": sample, "rendering": rendering, "finish": completion.finish}
    return find_failure(SimpleNamespace(**about))[0]


def training_metrics(sums: dict) -> dict:
    """Means over the tokens that were trained on: the loss, its clipped share, the distance sampler - trainer."""
    shares = from_all(dict(sums))
    worst = max(share["mismatch_max"] for share in shares)
    sums = {name: sum(share.get(name, 0) for share in shares) for name in sums} | {"mismatch_max": worst}
    tokens = max(1, sums["trained_tokens"])
    metrics = {"loss": sums["loss"], "clipped": sums["clipped"] / tokens, "mismatch": sums["mismatch"] / tokens}
    metrics |= {"mismatch_max": sums["mismatch_max"], "trained_tokens": int(sums["trained_tokens"])}
    return metrics | ({"kl": sums["kl"] / tokens} if "kl" in sums else {})


def status_line(metrics: dict, groups: int) -> str:
    phases = " ".join(f"{phase}={metrics.get(f'time/{phase}', 0):.1f}" for phase in ("rollout", "held_up", "update"))
    return (
        f"reward={metrics['reward/mean']:.3f} visual={metrics['reward/visual']:.3f} "
        f"executes={metrics['render_ok']:.0%} flat={metrics['zero_variance_groups']}/{groups} "
        f"length={metrics['length/mean']:.0f} {phases} s"
    )


def _named(sample: data.Sample, number: int, times: Counter) -> data.Sample:
    return sample if times[sample.id] == 1 else replace(sample, id=f"{sample.id} ({number})")


def write_samples(run: Run, groups: list) -> None:
    """samples.html: the newest step's answers (the first process's), as eval.py's report shows them."""
    if not run.writes:
        return
    times = Counter(group.sample.id for group in groups)  # a page keeps targets apart by their ids
    records = []
    for group in groups:
        for completion, rendering, score in zip(group.completions, group.renderings, group.scores, strict=True):
            sample = _named(group.sample, completion.number, times)
            code, likeness = data.extract_code(completion.text, sample.language), ssim(sample.image, rendering.image)
            more = {"tokens": len(completion.ids), "finish": completion.finish, "decoding": "sampled"}
            about = (completion.index, completion.text, code, rendering, score, likeness)
            records.append(evaluation.Record(sample, *about, **more))
    evaluation.write_report(run.folder / "samples.html", {"newest step": records}, title=f"{run.folder.name}: samples")
