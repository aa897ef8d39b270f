"""What is in a data set, in numbers and in pictures, and which of its rows can be used.

python -m corpus inspect PATH [--contact-sheet OUT.png]
"""

import hashlib
import sys
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from corpus.checks import pieces
from corpus.drawn import check
from data import Sample, Samples, load, reason_of
from render import Renderer
from synth import contact_sheet


@dataclass
class Inspect:
    """Count, check and render a data set, and say what is wrong with which row."""

    path: tyro.conf.Positional[str]
    """Folder with MANIFEST.jsonl, .parquet, .jsonl, .json, or a folder of such files; FOLDER:test for a split."""
    contact_sheet: str | None = None
    """Write a PNG with up to ten pictures per domain here."""
    histograms: str | None = None
    """Write a PNG with the sizes of programs and pictures here."""
    limit: int | None = None
    """Look at the first so many rows only."""

    def __call__(self) -> None:
        samples = load(self.path, limit=self.limit)
        with Renderer() as renderer:
            report, shown = inspect(samples, renderer, self.histograms)
        print(report)
        if self.contact_sheet and shown:
            rows = [[(sample.id, sample.image) for sample in group] for group in shown.values()]
            contact_sheet(rows, self.contact_sheet)
            print(f"wrote {self.contact_sheet}")


def usable(samples: Samples, renderer=None, need_code: bool = False) -> tuple[Samples, Counter]:
    """(a view of the rows with a picture, drawn if need be, and code if `need_code`; reason -> how many were dropped).
    Decodes all."""
    good, dropped = [], Counter()
    for index, sample, problem in tqdm(check(samples, renderer), "checking", len(samples), delay=2, leave=False):
        if sample is None:
            dropped[reason_of(problem)] += 1
        elif sample.image is None:
            dropped["no picture"] += 1
        elif need_code and not sample.code:
            dropped["no code"] += 1
        else:
            good.append(samples.indices[index])
    return replace(samples, indices=array("q", good)), dropped


def load_usable(
    path: str | Path, renderer: Renderer | None, need_code: bool = False, limit: int | None = None
) -> tuple[Samples, Counter]:
    """`load` and `usable` in one: what was dropped, and why, is printed. Raises ValueError where nothing is left."""
    samples = load(path, limit)
    good, dropped = usable(samples, renderer, need_code)
    if dropped:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in dropped.most_common(5))
        print(f"{path}: {len(samples)} rows, {len(good)} used, {dropped.total()} dropped: {reasons}", file=sys.stderr)
    if not len(good):
        raise ValueError(f"{path} holds no usable sample; `python -m corpus inspect {path}` says why.")
    return good, dropped


def inspect(samples: Samples, renderer, histograms_to: str | Path | None = None) -> tuple[str, dict[str, list[Sample]]]:
    """(report, up to ten samples per domain for the contact sheet). histograms_to: a PNG of how large they are."""
    counts, hashes, problems, drafts, without_code = Counter(), Counter(), [], 0, 0
    shown, lengths, sides, words = (defaultdict(list) for _ in range(4))
    for _, sample, problem in tqdm(check(samples, renderer), "inspecting", len(samples), delay=2, leave=False):
        if problem:
            problems.append(problem)
            continue
        counts[sample.domain, sample.language] += 1
        drafts += sample.draft is not None
        without_code += not sample.code
        sides[sample.domain].append(max(sample.image.size))
        if sample.code:
            lengths[sample.domain].append(len(sample.code))
            words[sample.domain].append(pieces(sample.code))
            hashes[hashlib.sha256(sample.code.encode()).digest()] += 1
        if len(shown[sample.domain]) < 10:
            shown[sample.domain].append(sample)
    lines = [f"{domain:<9} {language:<9} {count:>7}" for (domain, language), count in sorted(counts.items())]
    for title, values in (("code length, characters", lengths), ("longer side of the picture, pixels", sides)):
        lines += ["", f"{title}: least, quartiles, most"]
        for domain in sorted(values):
            quantiles = np.quantile(values[domain], (0, 0.25, 0.5, 0.75, 1))
            lines.append(f"{domain:<9}" + "".join(f" {value:7.0f}" for value in quantiles))
    repeats = sum(hashes.values()) - len(hashes)
    lines += ["", f"{drafts} have a draft to refine, {repeats} repeat the exact code of another"]
    if without_code:
        lines += [f"{without_code} have no code: ViRL can use them, SFT cannot"]
    lines += [f"{len(samples)} rows, {sum(counts.values())} usable, {len(problems)} dropped", *problems]
    if histograms_to and sides:
        histograms(words, sides, histograms_to)
    return "\n".join(lines), shown


def histograms(words: dict[str, list[int]], sides: dict[str, list[int]], path: str | Path) -> None:
    """Two stacked histograms, on logarithmic axes: words and signs of the programs (about their tokens), pixels of the
    longer sides of the pictures; a colour for each domain."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    titles = ("words and signs of a program (about its tokens)", "longer side of a picture, px")
    for axes, title, values in zip(figure.subplots(1, 2), titles, (words, sides), strict=True):
        domains = sorted(domain for domain in values if values[domain])
        if domains:
            most = max(max(values[domain]) for domain in domains)
            least = min(min(values[domain]) for domain in domains)
            bins = np.geomspace(max(1, least), max(most, least + 1), 40)
            axes.hist([values[domain] for domain in domains], bins, stacked=True, label=domains)
            axes.legend()
        axes.set(xscale="log", xlabel=title, ylabel="rows")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
