"""The page of every target with what each run made of it, out of records."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from answers.recorded import read_records
from metrics.catalogue import METRICS
from metrics.judge import judged_line
from metrics.pixels import ssim
from records import Record
from report.effort import write_effort
from report.page import data_uri, thumbnail, write_page
from report.statistics import best_of_lines, comparisons, references_line, refinement_lines, shown_domains, summarize
from report.words_read import watch


def write_report(
    path, runs: dict[str, Iterable[Record]], curves: Sequence = (), title: str = "nanovinci", note: str = ""
) -> None:
    """One self-contained offline page: summary, `note`, curves (PNG files), and what each run made of each target.
    Beside it, where there are several answers or rounds, NAME_effort.png and .svg: score against their number.

    Records are read once and one by one, so that `read_records` can feed thousands without holding their pictures."""
    names, slim, targets, details = list(runs), {}, {}, []
    for r, name in enumerate(names):
        slim[name] = []
        for record in runs[name]:
            s = record.sample
            if s.id not in targets:
                index = {"key": len(details), "id": s.id, "domain": s.domain, "language": s.language}
                targets[s.id] = index | {"runs": [[] for _ in names]}
                texts = {"prompt": s.prompt, "reference": s.code, "image": thumbnail(s.image)}
                details.append(texts | {"runs": [[] for _ in names]})
            key, score = targets[s.id]["key"], {"visual": record.score.visual}
            score["metrics"] = {name: round(x, 4) for name, x in record.metrics.items() if x is not None}
            targets[s.id]["runs"][r].append(score | {"failure": record.failure, "detail": record.detail})
            details[key]["runs"][r].append([_round(answer) for answer in [*record.attempts, record]])
            slim[name].append(without_pictures(record))
    said = [line(name, slim[name]) for name in names for line in (references_line, judged_line)]
    effort = Path(path).with_name(Path(path).stem + "_effort")
    effort.parent.mkdir(parents=True, exist_ok=True)
    lines = [line for line in [note, *said] if line] + comparisons(slim)
    summaries = {name: summarize(records) for name, records in slim.items()}
    index = {
        "runs": names,
        "labels": {name: f"{metric.source}: {metric.label}" for name, metric in METRICS.items()},
        "metrics": [row for name in names for row in _metric_rows(name, summaries[name])],
        "summary": [row for name in names for row in _summary_rows(name, summaries[name])],
        "lines": [{"text": line, "sign": _sign(line)} for line in lines + refinement_lines(slim) + best_of_lines(slim)],
        "targets": list(targets.values()),
        "effort": [[data_uri("png", picture) for picture in pair] for pair in write_effort(slim, effort)],
        "curves": [(Path(c).parent.name, data_uri("png", Path(c).read_bytes())) for c in curves],
    }
    write_page(path, title, index, details)


def _summary_rows(name: str, summary: dict[str, dict]) -> list[dict]:
    return [{"run": name, "domain": domain} | summary[domain] for domain in shown_domains(summary)]


def _metric_rows(name: str, summary: dict[str, dict]) -> list[dict]:
    """The benchmarks' metrics of each domain, over how many targets, and for which of them weights are missing."""
    rows = []
    for domain, part in summary.items():
        if domain != "overall":
            found = [metric for metric in METRICS if metric in part and "." in metric]
            those = {metric: {"values": part[metric], "n": part["n"][metric]} for metric in found}
            rows += [{"run": name, "domain": domain, "metric": metric} | of for metric, of in those.items()]
            rows += [{"run": name, "domain": domain, "metric": m, "needs": flag} for m, flag in part["missing"].items()]
    return rows


def _sign(line: str) -> str:
    if "bootstrap" not in line or "no significant" in line:
        return ""
    return "up" if re.search(r": (\w+ )?\+", line) else "down"


def _round(record: Record) -> dict:
    """What the page shows of one answer."""
    score, shown = record.score, record.rendering
    mean = float(np.average(score.fine, weights=score.weights or None)) if score.fine else 0.0
    scores = {name: getattr(score, name) for name in ("visual", "coarse", "alignment", "total", "fine", "grid")}
    others = {name: value for name, value in score.parts.items() if name not in scores and value is not None}
    texts = {"code": record.code, "text": record.text, "error": shown.error, "failure": record.failure}
    texts["metrics"] = {name: value for name, value in record.metrics.items() if value is not None}
    rest = {"ssim": record.ssim, "tokens": record.tokens, "finish": record.finish, "seconds": shown.seconds}
    image = shown.image and thumbnail(shown.image)
    said = record.judgement and "\n\n".join(f"{rubric}:\n{text}" for rubric, text in record.judgement.replies.items())
    return (
        scores
        | texts
        | rest
        | {"rewards": others, "mean": mean, "detail": record.detail, "image": image, "judge": said}
    )


def without_pictures(record: Record) -> Record:
    slim = replace(record, sample=replace(record.sample, image=None), rendering=replace(record.rendering, image=None))
    return replace(slim, attempts=[without_pictures(answer) for answer in record.attempts])


@dataclass
class Page:
    """Write samples.html: what a run of ViRL answered in its newest step, out of the records in RUN/samples."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""

    def __call__(self) -> None:
        path, name = self.run / "samples.html", self.run.resolve().name
        read = read_records(self.run / "samples")
        records = (replace(record, ssim=ssim(record.sample.image, record.rendering.image)) for record in read)
        try:
            note = watch(self.run)
        except (OSError, ValueError, KeyError, RuntimeError) as error:  # the page is there without
            note = f"Words: no answer was read off its picture ({error})."
        write_report(path, {"newest step": records}, title=f"{name}: samples", note=note)
        print(f"wrote {path}")
