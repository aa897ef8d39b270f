"""The reward's report card: what it says about errors of known size, and about pictures that try to cheat it.

    python reward.py audit DATA --out runs/audit             # DATA: what data.load reads; programs are rendered

For every target: `GRADED` perturbations, each at sizes that grow, and `HACKS`, pictures that hold nothing of what the
target shows. A reward that measures likeness loses more the larger the error is (Spearman's rank correlation of size
and loss), gives every hack less than any mild perturbation, and orders same > perturbed > another program > blank.

`flaws` are mutations of the program itself (prompts.mutate: wrong numbers, colours, words, things left out), rendered;
the others are made from the picture.
"""

import colorsys
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from scipy.stats import spearmanr
from tqdm import tqdm

import data
from features import background_of
from render import Renderer, Rendering

LEVELS = 5


# ---- errors of a known size ------------------------------------------------------------------------------------------


def on_background(target: Image.Image, part: Image.Image, at: tuple[int, int]) -> Image.Image:
    page = Image.new("RGB", target.size, background_of(target))
    page.paste(part, at)
    return page


def shift(target: Image.Image, level: int) -> Image.Image:
    """Moved right and down by 0.5, 1, 2, 4, 8 % of the sides."""
    fraction = 0.005 * 2 ** (level - 1)
    return on_background(target, target, (round(fraction * target.width), round(fraction * target.height)))


def scale(target: Image.Image, level: int) -> Image.Image:
    """Drawn 4, 8, 16, 30, 50 % smaller, in the middle of the page."""
    factor = 1 - (0.04, 0.08, 0.16, 0.3, 0.5)[level - 1]
    size = (max(1, round(factor * target.width)), max(1, round(factor * target.height)))
    at = ((target.width - size[0]) // 2, (target.height - size[1]) // 2)
    return on_background(target, target.resize(size, Image.Resampling.BILINEAR), at)


def recolour(target: Image.Image, level: int) -> Image.Image:
    """The most frequent colour beside the background goes 10, 20, 40, 70, 100 % of the way to its complement."""
    pixels = np.asarray(target).astype(np.int16)
    background = np.array(background_of(target), dtype=np.int16)
    content = pixels[np.abs(pixels - background).sum(-1) > 60]
    if not len(content):
        return target
    colours, counts = np.unique(content // 16, axis=0, return_counts=True)
    colour = colours[counts.argmax()] * 16 + 8
    hue, saturation, value = colorsys.rgb_to_hsv(*(colour / 255))
    far = np.array(colorsys.hsv_to_rgb((hue + 0.5) % 1, max(saturation, 0.8), value if value > 0.3 else 0.8)) * 255
    amount = (0.1, 0.2, 0.4, 0.7, 1.0)[level - 1]
    near = np.clip(1 - np.abs(pixels - colour).sum(-1, keepdims=True) / 120, 0, 1)  # 1 at the colour, edges less
    return Image.fromarray(np.clip(pixels + amount * near * (far - colour), 0, 255).astype(np.uint8))


def content_cells(target: Image.Image, n: int = 8) -> list[tuple[int, int, int, int]]:
    """The cells of an n x n grid that hold something, fullest first."""
    difference = np.asarray(target).astype(np.int16) - np.array(background_of(target), dtype=np.int16)
    xs, ys = (np.linspace(0, side, n + 1).round().astype(int) for side in target.size)
    cells = []
    for top, bottom in zip(ys[:-1], ys[1:], strict=True):
        for left, right in zip(xs[:-1], xs[1:], strict=True):
            amount = (np.abs(difference[top:bottom, left:right]).sum(-1) > 30).sum()
            if amount:
                cells.append((amount, (int(left), int(top), int(right), int(bottom))))
    return [cell for _, cell in sorted(cells, reverse=True)]


def missing(target: Image.Image, level: int) -> Image.Image:
    """5, 10, 20, 40, 70 % of what is there painted over, fullest cells first."""
    cells, page = content_cells(target), target.copy()
    for cell in cells[: max(level, round((0.05, 0.1, 0.2, 0.4, 0.7)[level - 1] * len(cells)))]:
        ImageDraw.Draw(page).rectangle((cell[0], cell[1], cell[2] - 1, cell[3] - 1), fill=background_of(target))
    return page


def extra(target: Image.Image, level: int) -> Image.Image:
    """1, 2, 4, 8, 16 discs that do not belong there."""
    page, rng = target.copy(), np.random.default_rng(0)
    radius = 0.05 * min(target.size)
    for _ in range(2 ** (level - 1)):
        x, y = rng.uniform(0.1, 0.9, 2) * target.size
        colour = tuple(int(c) for c in rng.integers(0, 200, 3))
        ImageDraw.Draw(page).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return page


def squeeze(target: Image.Image, level: int) -> Image.Image:
    """The same drawing on a page 5, 10, 20, 35, 50 % less high."""
    return target.resize((target.width, max(1, round(target.height * (0.95, 0.9, 0.8, 0.65, 0.5)[level - 1]))))


GRADED = {"shift": shift, "scale": scale, "colour": recolour, "missing": missing, "extra": extra, "squeeze": squeeze}


def flawed_programs(sample: data.Sample) -> list[str]:
    """The program with more and more flaws, up to LEVELS of them; fewer where it cannot be mutated."""
    rng, code, flawed = np.random.default_rng(len(sample.code)), sample.code, []
    for _ in range(LEVELS):
        try:
            code = data.mutate(code, sample.language, rng)
        except ValueError:
            break
        flawed.append(code)
    return flawed


# ---- pictures that cheat ---------------------------------------------------------------------------------------------


def shuffled(target: Image.Image, n: int = 4) -> Image.Image:
    """Its n x n tiles in another order."""
    width, height = target.width // n, target.height // n
    boxes = [(x * width, y * height, (x + 1) * width, (y + 1) * height) for y in range(n) for x in range(n)]
    page = target.copy()
    for source, place in zip(boxes, np.random.default_rng(0).permutation(len(boxes)), strict=True):
        page.paste(target.crop(source), boxes[place][:2])
    return page


def hacks(target: Image.Image, other: Image.Image) -> dict[str, Image.Image]:
    mean = tuple(int(c) for c in np.asarray(target).reshape(-1, 3).mean(0))
    noise = np.random.default_rng(0).integers(0, 256, (target.height, target.width, 3), dtype=np.uint8)
    giant = Image.new("RGB", (4 * target.width, 4 * target.height), background_of(target))
    giant.paste(target, (0, 0))
    return {
        "blank": Image.new("RGB", target.size, background_of(target)),
        "mean colour": Image.new("RGB", target.size, mean),
        "blurred": target.filter(ImageFilter.GaussianBlur(0.08 * max(target.size))),
        "tiles shuffled": shuffled(target),
        "mirrored": target.transpose(Image.Transpose.ROTATE_180),
        "negative": ImageChops.invert(target),
        "noise": Image.fromarray(noise),
        "another picture": other,
        "giant canvas": giant,
    }


# ---- the audit -------------------------------------------------------------------------------------------------------


@dataclass
class Findings:
    """What the reward said about one target; scores are `visual`, nan where a flawed program does not render."""

    id: str
    domain: str
    same: float
    graded: dict[str, list[float]]  # kind -> (LEVELS,), size of the error growing
    hacks: dict[str, float]


def examine(samples: Sequence[data.Sample], reward, renderer: Renderer) -> Iterator[Findings]:
    """Findings of every sample that has a picture and code."""
    flawed = {s.id: [renderer.submit(code, s.language) for code in flawed_programs(s)] for s in samples}
    by_domain = defaultdict(list)
    for sample in samples:
        by_domain[sample.domain].append(sample)
    for sample in tqdm(samples, "auditing", unit="target"):
        peers = by_domain[sample.domain]
        other = peers[(peers.index(sample) + 1) % len(peers)].image
        attempts = {("same", 0): sample.image}
        for kind, perturb in GRADED.items():
            attempts |= {(kind, level): perturb(sample.image, level) for level in range(1, LEVELS + 1)}
        attempts |= {("flaws", k): f.result().image for k, f in enumerate(flawed[sample.id], 1)}
        attempts |= {("hack", name): picture for name, picture in hacks(sample.image, other).items()}
        drawn = {key: picture for key, picture in attempts.items() if picture is not None}
        renderings = [Rendering(picture, None, 0.0) for picture in drawn.values()]
        scores = reward.score([sample.image] * len(drawn), renderings, [1.0] * len(drawn))
        visual = {key: score.visual for key, score in zip(drawn, scores, strict=True)}
        graded = {
            kind: [visual.get((kind, level), np.nan) for level in range(1, LEVELS + 1)] for kind in [*GRADED, "flaws"]
        }
        cheats = {name: value for (kind, name), value in visual.items() if kind == "hack"}
        yield Findings(sample.id, sample.domain, visual["same", 0], graded, cheats)


def rank_correlation(losses: Sequence[float]) -> float:
    """Spearman's correlation of the losses with the order of their sizes; ties share their mean rank."""
    losses = np.round(losses, 6)
    return 0.0 if np.ptp(losses) == 0 else float(spearmanr(range(len(losses)), losses).statistic)


def summarize(findings: Sequence[Findings]) -> dict:
    """domain -> the numbers of the report card."""
    domains = defaultdict(list)
    for finding in findings:
        domains[finding.domain].append(finding)
        domains["overall"].append(finding)
    card = {}
    for domain, mine in sorted(domains.items()):
        kinds = {}
        for kind in [*GRADED, "flaws"]:
            scores = np.array([finding.graded[kind] for finding in mine])  # (targets, LEVELS)
            whole = [row for row in scores if not np.isnan(row).any()]
            rho = [rank_correlation([1 - value for value in row]) for row in whole]
            medians = np.nanmedian(scores, 0).round(3).tolist() if whole else []
            share = round(float(np.mean([r >= 0.9 for r in rho])), 3) if rho else None
            kinds[kind] = {"median_by_size": medians, "share_with_rho_at_least_0.9": share, "targets": len(whole)}
        mild = {kind: row["median_by_size"][0] for kind, row in kinds.items() if row["median_by_size"]}
        hack = {name: float(np.mean([f.hacks[name] for f in mine])) for name in mine[0].hacks}
        order = []
        for f in mine:
            steps = [f.same, float(np.nanmedian([row[1] for row in f.graded.values()])), f.hacks["another picture"]]
            order += [a > b for a, b in zip(steps, [*steps[1:], f.hacks["blank"]], strict=True)]
        card[domain] = {
            "targets": len(mine),
            "same_least": round(min(f.same for f in mine), 4),
            "blank_most": round(max(f.hacks["blank"] for f in mine), 4),
            "hacks_mean": {name: round(value, 3) for name, value in hack.items()},
            "mildest_median": round(min(mild.values()), 3),
            "ordered": round(float(np.mean(order)), 4),
            "graded": kinds,
        }
    return card


def table(card: dict) -> str:
    """The report card as text, a column per domain."""
    rows = [["", *card]]
    rows.append(["targets", *(str(c["targets"]) for c in card.values())])
    rows.append(["same, least", *(f"{c['same_least']:.3f}" for c in card.values())])
    rows.append(["same > perturbed > other > blank", *(f"{c['ordered']:.1%}" for c in card.values())])
    for kind in [*GRADED, "flaws"]:
        cells = []
        for column in card.values():
            row = column["graded"][kind]
            share = row["share_with_rho_at_least_0.9"]
            ends = f"{row['median_by_size'][0]:.2f} .. {row['median_by_size'][-1]:.2f}" if row["targets"] else ""
            cells.append(f"{ends} ({share:.0%})" if share is not None else "-")
        rows.append([f"{kind}: smallest .. largest (rho >= 0.9)", *cells])
    rows.append(["smallest error, worst kind", *(f"{c['mildest_median']:.3f}" for c in card.values())])
    for name in next(iter(card.values()))["hacks_mean"]:
        rows.append([f"hack: {name}", *(f"{c['hacks_mean'][name]:.3f}" for c in card.values())])
    rows.append(["blank, most", *(f"{c['blank_most']:.3f}" for c in card.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def plot(card: dict, path: Path) -> None:
    """Score over the size of the error, a panel per domain; hacks as dots at the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(card), 3.6), layout="constrained")
    for axes, (domain, column) in zip(
        np.atleast_1d(figure.subplots(1, len(card), sharey=True)), card.items(), strict=True
    ):
        for kind, row in column["graded"].items():
            if row["targets"]:
                axes.plot(range(1, LEVELS + 1), row["median_by_size"], marker="o", markersize=3, label=kind)
        for value in column["hacks_mean"].values():
            axes.plot(LEVELS + 1, value, "x", color="black", markersize=5)
        axes.set(title=f"{domain} ({column['targets']})", ylim=(-0.02, 1.02), xlabel="size of the error")
        axes.set_xticks([*range(1, LEVELS + 1), LEVELS + 1], [*map(str, range(1, LEVELS + 1)), "hacks"])
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("visual score, median")
    figure.axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=110)


@dataclass
class Config:
    """Audit the reward on real pictures; writes audit.json and audit.png."""

    data: tyro.conf.Positional[str]
    """What data.load reads; targets without a picture are rendered."""
    mode: Literal["calibrated", "vincicoder"] = "calibrated"
    """The reward's mode."""
    encoder: str = "pyramid"
    """The reward's image features."""
    limit: int | None = None
    """The first so many targets only."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/audit")
    """Folder for the findings."""


def main(reward_class, arguments: Sequence[str]) -> None:
    config = tyro.cli(Config, args=arguments, prog="reward.py audit")
    try:
        with Renderer() as renderer:
            samples, _ = data.load_usable(config.data, renderer, need_code=True, limit=config.limit)
            samples = [samples[i] for i in range(len(samples))]
            findings = list(examine(samples, reward_class(config.mode, config.encoder), renderer))
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"reward.py audit: {error}")
    card = summarize(findings)
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "audit.json").write_text(json.dumps(card, indent=1) + "\n")
    plot(card, config.out / "audit.png")
    print(table(card))
    print(f"wrote {config.out}/audit.json and audit.png", file=sys.stderr)
