"""What is in a data set, in numbers and in pictures."""

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from corpus.checks import pieces
from data import Sample, Samples, check


def inspect(samples: Samples, histograms_to: str | Path | None = None) -> tuple[str, dict[str, list[Sample]]]:
    """(report, up to ten samples per domain for the contact sheet). histograms_to: a PNG of how large they are."""
    counts, hashes, problems, drafts, without_code = Counter(), Counter(), [], 0, 0
    shown, lengths, sides, words = (defaultdict(list) for _ in range(4))
    for _, sample, problem in tqdm(check(samples), "inspecting", len(samples), delay=2, leave=False):
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


def contact_sheet(groups: dict[str, list[Sample]], path: str | Path, side: int = 176) -> None:
    """One row of pictures per domain, ids below them."""
    sheet = Image.new("RGB", (side * max(map(len, groups.values())), (side + 16) * len(groups)), "lightgray")
    for row, group in enumerate(groups.values()):
        for column, sample in enumerate(group):
            x, y, picture = column * side, row * (side + 16), sample.image.copy()
            picture.thumbnail((side - 8, side - 8))
            sheet.paste(picture, (x + (side - picture.width) // 2, y + (side - picture.height) // 2))
            ImageDraw.Draw(sheet).text((x + 4, y + side), sample.id[:28], fill="black")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
