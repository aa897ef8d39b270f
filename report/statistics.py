"""From records to numbers: means over targets with bootstrap intervals, comparisons of runs, tables."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from metrics.catalogue import METRICS as METRIC_LIST
from metrics.catalogue import missing_of
from metrics.judge import judged_line
from metrics.scoring import family_of
from records import Record

METRICS = ("execute", "visual", "ssim")  # those that every target has; the others are in metrics/catalogue.py


def per_target(records: Iterable[Record], metric: str, round: int = -1) -> dict[str, float]:
    """{sample id: mean of `metric`, or of a reward by its name, over the target's answers}; `round` picks a refinement
    round, -1 the last."""
    values: dict[str, list[float]] = {}
    for record in records:
        answer = [*record.attempts, record][round]
        value = _value(answer, metric)
        if value is not None:
            values.setdefault(record.sample.id, []).append(float(value))
    return {id: float(np.mean(v)) for id, v in values.items()}


def _value(record: Record, metric: str) -> float | None:
    if metric in METRICS:
        return {"execute": record.score.executed, "visual": record.score.visual, "ssim": record.ssim}[metric]
    return record.metrics.get(metric, record.score.parts.get(metric))


def metrics_of(records: Iterable[Record]) -> list[str]:
    """The benchmarks' metrics that these records have, in the catalogue's order."""
    there = {name for record in records for name in record.metrics}
    return [name for name in METRIC_LIST if name in there]


def bootstrap(values: Sequence[float], resamples: int = 4000, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high): percentile bootstrap, 95 %, of the mean of (n,) per-target values (Efron 1979)."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("There is nothing to average: no target was evaluated.")
    rng = np.random.default_rng(seed)
    block = max(1, 2**20 // len(values))  # bounds the memory of one draw
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    means = [values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes]
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def paired_bootstrap(a: Sequence[float], b: Sequence[float], **options) -> tuple[float, float, float]:
    """(mean of a - b, low, high) for per-target values of two runs on the same targets, both (n,)."""
    if len(a) != len(b):
        raise ValueError(f"A paired comparison needs the same targets in both runs, not {len(a)} and {len(b)}.")
    return bootstrap(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64), **options)


def summarize(records: Sequence[Record]) -> dict[str, dict]:
    """{"overall" and each domain: targets, samples, (mean, low, high) of each metric, n of each: the targets in its
    mean, those whose programs cannot be inspected and why, failures, visual per round}."""
    if not records:
        raise ValueError("There are no records to summarize; evaluate at least one target.")
    domains = sorted({record.sample.domain for record in records})
    groups = {"overall": records} | {d: [r for r in records if r.sample.domain == d] for d in domains}
    summary = {}
    for name, group in groups.items():
        own = metrics_of(group) if name != "overall" or len(domains) == 1 else []
        values = {metric: list(per_target(group, metric).values()) for metric in [*METRICS, *own]}
        rows = {metric: bootstrap(those) for metric, those in values.items() if those}
        summary[name] = {
            "targets": len({record.sample.id for record in group}),
            "samples": len(group),
            **rows,
            "n": {metric: len(values[metric]) for metric in rows},
            "references": {r.sample.id: r.reference_problem for r in group if r.reference_problem},
            "failures": dict(Counter(record.failure for record in group if record.failure).most_common()),
            "missing": missing_of({family_of(r.sample) for r in group}, set(rows)) if name != "overall" else {},
            "rounds": by_round(group),
        }
    return summary


def by_round(records: Sequence[Record], metric: str = "visual") -> list[tuple[float, float, float]]:
    """(mean, low, high) of `metric` after 0, 1, .. K refinement rounds, K being the least that an answer has."""
    rounds = range(1 + min(len(record.attempts) for record in records))
    return [bootstrap(list(per_target(records, metric, k).values())) for k in rounds]


def shown_domains(summary: dict[str, dict]) -> list[str]:
    """A single domain would only repeat the overall row."""
    return list(summary) if len(summary) > 2 else ["overall"]


def table(runs: dict[str, Sequence[Record]]) -> str:
    """Aligned text, a row per run and domain: targets, execute rate, visual score and SSIM with 95 % intervals."""
    rows = [("run", "domain", "n", "executes %", "visual score", "SSIM")]
    for name, records in runs.items():
        summary = summarize(records)
        for domain in shown_domains(summary):
            part = summary[domain]
            n = f"{part['targets']}" + (
                f" x {part['samples'] / part['targets']:g}" if len(records) > part["targets"] else ""
            )
            rate = [100 * x for x in part["execute"]]
            cells = [f"{m:.3f} [{low:.3f}, {high:.3f}]" for m, low, high in (part["visual"], part["ssim"])]
            rows.append((name, domain, n, "{:.1f} [{:.1f}, {:.1f}]".format(*rate), *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def compare(name_a: str, a: Sequence[Record], name_b: str, b: Sequence[Record], metric: str = "visual") -> str:
    """One sentence: a minus b on the targets both runs have, with its 95 % paired bootstrap interval."""
    left, right = per_target(a, metric), per_target(b, metric)
    common = [id for id in left if id in right]
    what = f"{name_a} - {name_b}"
    if not common:
        return f"{what}: no targets in common"
    mean, low, high = paired_bootstrap([left[id] for id in common], [right[id] for id in common])
    verdict = ", no significant change" if low <= 0 <= high else ""
    label = "" if metric == "visual" else f"{metric} "
    method = f"95 % paired bootstrap over {len(common)} targets"
    return f"{what}: {label}{mean:+.3f} [{low:+.3f}, {high:+.3f}] ({method}{verdict})"


def compare_all(name_a: str, a: Sequence[Record], name_b: str, b: Sequence[Record]) -> list[str]:
    """`compare` in every metric that both runs have. ValueError where they have no target in common."""
    common = {r.sample.id for r in a} & {r.sample.id for r in b}
    if not common:
        raise ValueError("The two runs have no target in common; compare runs on the same data.")
    sizes = [len({r.sample.id for r in run}) for run in (a, b)]
    lines = [f"{len(common)} targets in common, of {sizes[0]} and {sizes[1]}"]
    both = [metric for metric in metrics_of(a) if metric in metrics_of(b)]
    return lines + [compare(name_a, a, name_b, b, metric) for metric in [*METRICS, *both]]


def metric_table(records: Sequence[Record]) -> str:
    """The benchmarks' metrics, a line for each domain and metric, with 95 % intervals; what is missing and why."""
    summary, lines = summarize(records), []
    for domain in [name for name in summary if name != "overall"]:
        for metric in [name for name in METRIC_LIST if name in summary[domain] and name not in METRICS]:
            mean, low, high = summary[domain][metric]
            lower = " (lower is better)" if METRIC_LIST[metric].lower_is_better else ""
            n = summary[domain]["n"][metric]
            lines.append(f"{domain:12} {metric:30} {mean:8.3f} [{low:.3f}, {high:.3f}] n {n}{lower}")
        flags: dict[str, list[str]] = {}
        for metric, flag in summary[domain]["missing"].items():
            flags.setdefault(flag, []).append(metric)
        lines += [f"{domain:12} missing: {', '.join(names)} (needs {flag})" for flag, names in flags.items()]
    return "\n".join(lines)


def references_line(name: str, records: Iterable[Record], most: int = 5) -> str | None:
    """Whose programs cannot be inspected, and why; None where all can."""
    problems = {r.sample.id: r.reference_problem for r in records if r.reference_problem}
    if not problems:
        return None
    says = f"{name}: {len(problems)} targets are in no mean that needs their program, which cannot be inspected"
    return f"{says}: {named(problems, most)}"


def named(problems: dict[str, str], most: int = 5) -> str:
    """The first of {id: what is wrong with it}, and how many more there are."""
    shown = "; ".join(f"{id} ({why})" for id, why in list(problems.items())[:most])
    return shown + (f"; and {len(problems) - most} more, in summary.json" if len(problems) > most else "")


def print_summary(runs: dict[str, Sequence[Record]], left_out: dict[str, str] | None = None) -> None:
    """left_out: targets that nothing was asked about -> why."""
    print(table(runs))
    for name, records in runs.items():
        if text := metric_table(records):
            print(f"\n{name}:\n{text}\n")
        kinds = Counter(record.failure for record in records if record.failure).most_common()
        kinds = ", ".join(f"{kind} {n}" for kind, n in kinds) or "none"
        worst = Counter(r.detail for r in records if r.failure in ("syntax error", "runtime error")).most_common(1)
        often = f" (most often: {worst[0][0]})" if worst else ""
        lost = f"; targets dropped: {len(left_out)}: {named(left_out)}" if left_out else ""
        print(f"{name}, failures of {len(records)} answers: {kinds}{often}{lost}")
        for line in filter(None, (references_line(name, records), judged_line(name, records))):
            print(line)
    for line in [*refinement_lines(runs), *best_of_lines(runs), *comparisons(runs), *comparisons(runs, "execute")]:
        print(line)


def best_of(records: Iterable[Record], metric: str = "visual") -> list[tuple[float, float, float]]:
    """(mean, low, high) of `metric` for the best of 1, 2, .. G answers by reward, G being the least that a target has.

    Of a target's G answers every n are as likely to have been the ones drawn: sorted by reward, the i-th best (from 0)
    is the best of n with probability C(G - 1 - i, n - 1) / C(G, n), so no answer is wasted on the estimate."""
    answers: dict[str, list[Record]] = {}
    for record in records:
        answers.setdefault(record.sample.id, []).append(record)
    curve = []
    for n in range(1, 1 + min(map(len, answers.values()))):
        values = []
        for group in answers.values():
            ranked = sorted(group, key=lambda r: -r.score.total)
            odds = [math.comb(len(group) - 1 - i, n - 1) / math.comb(len(group), n) for i in range(len(group))]
            values.append(sum(p * float(_value(r, metric) or 0) for p, r in zip(odds, ranked, strict=True)))
        curve.append(bootstrap(values))
    return curve


def best_of_lines(runs: dict[str, Sequence[Record]]) -> list[str]:
    """The visual score of the best of n answers, for the runs with several per target."""
    show = lambda curve: " -> ".join(f"{m:.3f} [{low:.3f}, {high:.3f}]" for m, low, high in curve)  # noqa: E731
    curves = {name: best_of(records) for name, records in runs.items()}
    return [
        f"{name}, visual score of the best of 1..{len(curve)} by reward: {show(curve)}"
        for name, curve in curves.items()
        if len(curve) > 1
    ]


def comparisons(runs: dict[str, Sequence[Record]], metric: str = "visual") -> list[str]:
    """`compare` for every two runs decoded the same way, later minus earlier."""
    pairs = [(a, b) for b, a in itertools.combinations(runs, 2) if runs[a][0].decoding == runs[b][0].decoding]
    return [compare(a, runs[a], b, runs[b], metric) for a, b in pairs]


def refinement_lines(runs: dict[str, Sequence[Record]]) -> list[str]:
    """The visual score after 0, 1, .. K refinement rounds, for the runs that have any."""
    rounds = {name: by_round(records) for name, records in runs.items()}
    show = " -> ".join
    return [
        f"{name}, visual score by refinement round: "
        + show(f"{m:.3f} [{low:.3f}, {high:.3f}]" for m, low, high in values)
        for name, values in rounds.items()
        if len(values) > 1
    ]
