"""A watch on what programs say they wrote: some answers of a run's newest step, read off their pictures.

The reward `text` believes a program's own report of its words, as far as there is ink for them. A policy could learn to
report words that nobody sees. So tesseract reads a few pictures of answers and of their targets; both are read alike,
so that what it misreads stands on both sides, and a right answer is still right. Where `text` by the programs rises and
`text` as read does not, look at those answers.

RUN/words_read.jsonl has a line for each: {"step", "target", "answer", "text": by its program, "read": by tesseract,
"distance": between the two}. The training's process does nothing for it.
"""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from corpus.words import by_tesseract
from rewards.text import agreement, said

ANSWERS = 8  # of a step that are read
LONGEST = 20  # s for a picture: a run waits for its last page


def watch(run: Path) -> str:
    """Read some of the answers in RUN/samples and say how far the two are apart; "" where `text` is known of none.
    Which ones depends on the step. Raises OSError, ValueError, KeyError, RuntimeError where something is broken."""
    samples = run / "samples"
    if not (samples / "step").is_file():  # a run of before
        return ""
    step = int((samples / "step").read_text())
    rows = [json.loads(line) for line in (samples / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["rendering"]["image"] and row["score"]["parts"].get("text") is not None]
    if not rows:
        return ""
    if shutil.which("tesseract") is None:
        return "Words: no answer was read off its picture, as tesseract is not here (apt install tesseract-ocr)."
    chosen = random.Random(step).sample(rows, min(ANSWERS, len(rows)))
    found = [one for row in chosen if (one := distance(samples, row)) is not None]
    if not found:
        return f"Words: tesseract can read none of the targets of {len(chosen)} answers."
    with open(run / "words_read.jsonl", "a", encoding="utf-8") as file:
        file.writelines(json.dumps({"step": step} | one) + "\n" for one in found)
    return in_words(found)


def distance(samples: Path, row: dict) -> dict | None:
    """One line of words_read.jsonl, without its step; None where nothing can be read of the target."""
    picture = Image.open(samples / row["sample"]["image"]).convert("RGB")
    target = said(by_tesseract(picture, LONGEST), picture)
    if not target.words:
        return None
    drawn = Image.open(samples / row["rendering"]["image"]).convert("RGB")
    text = row["score"]["parts"]["text"]
    read = agreement(target, said(by_tesseract(drawn, LONGEST), drawn), picture, True)
    numbers = {"text": text, "read": read, "distance": abs(text - read)}
    return {"target": row["sample"]["id"], "answer": row["index"]} | {k: round(v, 4) for k, v in numbers.items()}


def in_words(found: Sequence[dict]) -> str:
    text, read, apart = (np.mean([one[name] for one in found]) for name in ("text", "read", "distance"))
    worst = max(found, key=lambda one: one["distance"])
    return (
        f"Words of {len(found)} answers: text {text:.3f} by their programs, {read:.3f} as tesseract reads them. "
        f"The distance is {apart:.3f} in the mean and {worst['distance']:.3f} at most, of answer {worst['answer']} to "
        f"{worst['target']}."
    )
