"""Charts and pages with words that a tiny model can learn to read: short ones, large letters, small pictures.

    python benchmarks/worded.py runs/text_reward/train.parquet --count 8000 --seed 1

A chart (160 x 96 px) has a title of a word and a number, and three bars with a word below each; a page has one or two
bands of one or two large words or numbers. Words are drawn from 24, so that nothing but the picture says which.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import environment  # noqa: E402, F401

import data  # noqa: E402
import synth  # noqa: E402
from programs import NAMES, Dice  # noqa: E402
from render import Renderer  # noqa: E402
from rewards.text import said  # noqa: E402

WORDS = (
    *("Atlas", "Birch", "Cedar", "Delta", "Ember", "Flint", "Grove", "Haven", "Iris", "Jade", "Koala", "Lemon"),
    *("Maple", "North", "Olive", "Pearl", "Quill", "River", "Stone", "Tulip", "Umber", "Vista", "Wheat", "Zebra"),
)
CHART = """import matplotlib.pyplot as plt
plt.figure(figsize=(2.5, 1.5), dpi=64)
plt.subplots_adjust(0.02, 0.2, 0.98, 0.8)
plt.title("{title}", fontsize=14)
plt.bar({labels}, {values}, color="{colour}")
plt.ylim(0, 8)
plt.xticks(fontsize=12)
plt.yticks([])"""


def chart(dice: Dice) -> str:
    title, values = f"{dice.pick(WORDS)} {dice.whole(10, 99)}", [dice.whole(1, 7) for _ in range(3)]
    labels = "[" + ", ".join(f'"{word}"' for word in dice.some(WORDS, 3)) + "]"
    return CHART.format(title=title, labels=labels, values=values, colour=dice.pick(NAMES[:6]))


def page(dice: Dice) -> str:
    body = '<body style="margin: 0; font: 140px sans-serif; color: white; text-align: center">'
    lines = ["<!DOCTYPE html>", "<html>", body]
    for _ in range(dice.whole(1, 2)):
        lines.append('<div style="display: flex; line-height: 360px">')
        for colour in dice.some(NAMES[:6], dice.whole(1, 2)):
            text = dice.pick(WORDS) if dice.whole(0, 3) else dice.whole(10, 99)
            lines.append(f'  <div style="flex: 1; background: {colour}">{text}</div>')
        lines.append("</div>")
    return "\n".join([*lines, "</body>", "</html>"])


def right_words(samples, texts, renderings) -> list[float | None]:
    """(B,) in [0, 1]: of the words and numbers of the target, or of the answer if that has more, those that both show,
    letter by letter, wherever they stand: a measure beside the reward `text`, which also asks where."""
    shares = []
    for sample, rendering in zip(samples, renderings, strict=True):
        target = sample.drawing.result()
        wanted = Counter(said(target.words, target.image).words)
        shown = Counter(said(rendering.words, rendering.image).words) if rendering.image else Counter()
        most = max(wanted.total(), shown.total())
        shares.append((wanted & shown).total() / most if wanted else None)
    return shares


MAKERS = {"chart": (chart, "python"), "html": (page, "html")}


def make(domain: str, index: int, seed: int) -> data.Sample:
    maker, language = MAKERS[domain]
    rng = np.random.default_rng((seed, len(domain), index))
    code = maker(Dice(rng, 0.0))
    return data.Sample(f"{domain}-{seed}-{index}", domain, language, None, f"Draw this as {language}.", code)


@dataclass
class Config:
    out: tyro.conf.Positional[Path]
    """Parquet file to write."""
    count: int = 1000
    """Number of programs, half charts and half pages."""
    seed: int = 0
    """Another seed, other programs."""


def main(config: Config) -> None:
    kept, lost = Counter(), Counter()
    samples = (make(("chart", "html")[k % 2], k // 2, config.seed) for k in range(config.count))
    with Renderer() as renderer:
        synth.write_parquet(synth.draw(samples, renderer, kept, lost), config.out)
    print(f"{config.out}: {dict(kept)}, left out {dict(lost)}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
