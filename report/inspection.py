"""What is in a data set, in numbers and in pictures."""

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from data import Sample, Samples, check


def inspect(samples: Samples) -> tuple[str, dict[str, list[Sample]]]:
    """(report, up to ten samples per domain for the contact sheet)."""
    counts, hashes, problems, drafts = Counter(), Counter(), [], 0
    shown, lengths, sides = defaultdict(list), defaultdict(list), defaultdict(list)
    for index, sample, problem in tqdm(check(samples), "inspecting", len(samples), delay=2, leave=False):
        rendering = samples.renderings.get(samples.indices[index])
        if rendering and rendering.error:
            problem = f"{sample.id} ({sample.domain}): does not render: {rendering.error.strip()}"
        if problem:
            problems.append(problem)
            continue
        counts[sample.domain, sample.language] += 1
        drafts += sample.draft is not None
        sides[sample.domain].append(max(sample.image.size))
        if sample.code:
            lengths[sample.domain].append(len(sample.code))
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
    lines += [f"{len(samples)} rows, {sum(counts.values())} usable, {len(problems)} dropped", *problems]
    return "\n".join(lines), shown


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
