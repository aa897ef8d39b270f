"""A picture in, the program that draws it out: what a trained model is for.

    python answer.py picture.png --model runs/demo/virl                      # a run, whose newest checkpoint answers
    python answer.py chart.png --model DIR --language python --best-of 8 --refine 2
    python answer.py --serve --model Qwen/Qwen3-VL-2B-Instruct               # a local page to drop pictures on

Beside the picture go NAME.answer.svg (or .py, .html ..), the program, and NAME.answer.png: target | what the program
draws | the tiles by their scores. Of several answers, and of all their corrections, the best one is kept. Nobody has
to know the right program for that: the reward compares pictures, and the target is there.
"""

import environment  # noqa: F401

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from PIL import Image
from tqdm import tqdm

import model as models
import prompts
from answers import live, rounds
from checkpoint import latest_checkpoint
from data import Sample
from languages import LANGUAGES
from metrics.scoring import Scorer
from pictures import to_rgb
from records import Record
from render import Renderer, Rendering
from reward import Rewards, open_picture
from rewards import comparison

NO_BAR = tqdm(disable=True)


class Drawing(Scorer):
    """Has answers drawn, and measures none of the benchmarks' metrics on them: the reward is what counts here."""

    def measure(self, job, rendering) -> dict:
        return {}


def language_and_domain(kind: str) -> tuple[str, str]:
    """What is asked for: by a language (`svg`, `tikz`), or by what the picture is (`chart`, `molecule`). Raises
    ValueError for what is neither."""
    for one in LANGUAGES.values():
        if kind in one.domains:
            return one.name, kind
    language = prompts.language_named(kind)
    return language, prompts.domain_of(language, None)


def sample_of(image: Image.Image, kind: str, seed: int = 0) -> Sample:
    """A picture with a prompt about it, phrased as those that the model was trained on. Raises ValueError for a kind
    that is none."""
    language, domain = language_and_domain(kind)
    prompt = prompts.direct_prompt(language, domain, np.random.default_rng(seed))
    return Sample("picture", domain, language, to_rgb(image), prompt)


def best_of(records: Sequence[Record]) -> Record:
    """What draws anything before what does not, a program before none, then by the reward; of equal ones the first."""
    return max(records, key=lambda one: (one.rendering.image is not None, one.code is not None, one.score.total))


class Answerer:
    """Answers pictures, with what is loaded once. Not for several threads at a time."""

    def __init__(self, policy, renderer: Renderer, rewards: Rewards, max_new_tokens: int = 1024):
        self.policy, self.rewards, self.max_new_tokens = policy, rewards, max_new_tokens
        self.scorer = Drawing(renderer)

    def answer(
        self, sample: Sample, G: int = 1, refine: int = 0, temperature: float = 0.0, seed: int = 0, bar=NO_BAR
    ) -> Iterator[list[Record]]:
        """G answers, then for each round of refinement what the model makes of its own last code."""
        options = {"temperature": temperature, "max_new_tokens": self.max_new_tokens}
        self.rewards.prepare([sample], self.scorer.renderer)
        answers = rounds.ask(self.policy, [sample], self.scorer, bar, G, seed=seed, **options)
        records = rounds.records_of(answers, self.scorer, self.rewards, temperature)
        yield records
        for k in range(refine):
            options["seed"] = seed + 1 + k
            records = rounds.refine(self.policy, records, self.scorer, self.rewards, bar, **options)
            yield records

    def draw(self, sample: Sample, code: str) -> Record:
        """What a program that somebody wrote draws, and what it is worth."""
        answer = rounds.Answer(sample.id, 0, prompts.fenced(code, sample.language), "eos")
        self.rewards.prepare([sample], self.scorer.renderer)
        drawing = self.scorer.submit(sample, code)
        (record,) = rounds.records_of([(answer, drawing)], self.scorer, self.rewards, 0.0)
        return record


# ------------------------------------------------------------------------------------------------------ command line
def folder_of(model: str) -> str:
    """A run's folder stands for its newest checkpoint; anything else is the model itself. Raises ValueError for a run
    that has none yet."""
    if not (Path(model) / "checkpoints").is_dir():
        return model
    if (newest := latest_checkpoint(Path(model))) is None:
        raise ValueError(f"{model} is a run that has no checkpoint yet; give another --model.")
    return str(newest)


@dataclass
class Config:
    """Answer a picture with the program that draws it, or with --serve any number of them on a local page."""

    picture: tyro.conf.Positional[Path | None] = None
    """The picture; with --serve none."""
    model: str = ""
    """Folder or hub name of a Qwen2.5-VL or Qwen3-VL, or the folder of a run, whose newest checkpoint is taken."""
    language: str = "svg"
    """What to write: svg, python, html, latex or mermaid; or what the picture is, where that says more: chart,
    molecule. A model answers well in what it was trained on."""
    best_of: int = 1
    """Answers to choose from, by the reward. One is the most likely one, several are sampled."""
    refine: int = 0
    """Rounds in which the model sees the picture together with its own last code."""
    out: Path | None = None
    """Folder for what is written; the picture's own if not given."""
    max_new_tokens: int = 1024
    """Longest answer."""
    seed: int = 0
    """Seed of what is sampled, and of how the prompt is phrased."""
    reward: tuple[str, ...] = ()
    """By what the best is chosen: NAME=WEIGHT of visual, alignment, or FILE.py:FUNCTION=WEIGHT, as reward.py says."""
    serve: bool = False
    """Show a page on this machine, for this machine only: drop a picture, watch, correct, draw again."""
    port: int = 8765
    """Of the page; 0 for any that is free."""
    device: str = "cpu"
    """cpu or cuda."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights."""
    timeout: float = 10.0
    """Seconds that one program may have."""
    allow_unsafe_rendering: bool = False
    """Draw even where this machine offers no sandbox: programs can then do anything you can."""

    def __call__(self) -> None:
        """Raises ValueError, OSError or RuntimeError, in one sentence, for what cannot be done."""
        if not self.model:
            raise ValueError("Give --model: a folder, a run's folder, or a hub name.")
        if bool(self.picture) == self.serve:
            raise ValueError("Give a picture to answer, or --serve without one.")
        if self.best_of < 1 or self.refine < 0:
            raise ValueError("--best-of has to be at least 1, --refine at least 0.")
        language_and_domain(self.language)  # what is wrong with it is said before a model is loaded
        picture = open_picture(self.picture) if self.picture else None
        with Renderer(timeout=self.timeout, allow_unsafe=self.allow_unsafe_rendering) as renderer:
            rewards = Rewards(self.reward, device=self.device, cache_mb=64)
            policy = models.Policy.load(folder_of(self.model), self.device, getattr(torch, self.dtype))
            answerer = Answerer(policy, renderer, rewards, self.max_new_tokens)
            if picture is None:
                live.serve(answerer, sample_of, self)
            else:
                self.answer(answerer, sample_of(picture, self.language, self.seed))

    def answer(self, answerer: Answerer, sample: Sample) -> None:
        """Write what is best of all that the model says, and say what it is worth."""
        every: list[Record] = []
        total, temperature = self.best_of * (1 + self.refine), 1.0 if self.best_of > 1 else 0.0
        asked = {"G": self.best_of, "refine": self.refine, "temperature": temperature, "seed": self.seed}
        with tqdm(total=total, desc="answer", unit="answer", disable=None) as bar:
            for k, records in enumerate(answerer.answer(sample, **asked, bar=bar)):
                every += records
                if total > 1:
                    drawn = sum(record.rendering.image is not None for record in records)
                    what = f"correction {k}:" if k else "answers:     "
                    best = best_of(records).score
                    tqdm.write(
                        f"{what} {drawn} of {len(records)} draw, the best has a visual score of {best.visual:.4f}"
                    )
        best = best_of(every)
        if best.code is None:
            raise ValueError(f"The model wrote no program in {sample.language} ({best.detail}).")
        out = self.out or self.picture.parent
        out.mkdir(parents=True, exist_ok=True)
        program = out / f"{self.picture.stem}.answer{LANGUAGES[sample.language].suffixes[0]}"
        program.write_text(best.code + "\n", encoding="utf-8")
        if best.rendering.image is None:
            raise ValueError(f"What the model wrote draws nothing ({best.detail}); it is in {program}")
        compared = program.with_suffix(".png")
        comparison.write(compared, Rendering(sample.image, None, 0.0), best.rendering, best.score)
        score = best.score
        print(f"visual  {score.visual:.4f}\ncoarse  {score.coarse:.4f}\nfine    {score.fine_mean():.4f}")
        print(f"total   {score.total:.4f}\nwrote {program} and {compared}")


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    try:
        config()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"answer.py: {error}")
    except KeyboardInterrupt:
        print("\nanswer.py: stopped by Ctrl-C.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
