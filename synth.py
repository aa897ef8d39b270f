"""Procedural image-code pairs for five domains: any number, seeded, with a difficulty dial.

    python synth.py --show 25                                     # contact sheet: runs/synth.png
    python synth.py --out train.parquet --count 20000 --domains svg chart --difficulty 0.2 --svg-side 64

At difficulty 0 a program is a few lines on a coarse grid that a tiny model can read off a 64-pixel picture: all it says
is visible, and is said in one way only (elements from left to right, fixed axes, canonical SMILES). At 1 it is a
landscape, a figure with subplots, a web page, a pgfplots diagram, a drug-like molecule. Between them the number of
elements, the palette, the precision of numbers and the odds of each feature grow.

A sample is a pure function of (domain, index, seed, difficulty): for held-out sets use another seed, or a `--start`
past the training indices. Programs that fail or draw nothing are dropped and counted.
"""

import io
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import tyro
from PIL import Image, ImageDraw
from tqdm import tqdm

import data
from pictures import is_blank
from programs import DOMAINS, LANGUAGE_OF, MAKERS, Dice
from render import Renderer


def make(domain: str, index: int, seed: int = 0, difficulty: float = 0.3) -> data.Sample:
    """Sample number `index` of a domain, without its picture. ValueError for an argument out of range."""
    if domain not in DOMAINS:
        raise ValueError(f"Domain {domain!r} is unknown: choose one of {', '.join(DOMAINS)}.")
    if not 0 <= difficulty <= 1 or min(index, seed) < 0:
        raise ValueError("The difficulty must lie in [0, 1], and index and seed must not be negative.")
    rng = np.random.default_rng((seed, DOMAINS.index(domain), index))
    code, language = MAKERS[domain](Dice(rng, difficulty)), LANGUAGE_OF[domain]
    prompt = data.direct_prompt(language, domain, rng)
    return data.Sample(name_of(domain, index, seed, difficulty), domain, language, None, prompt, code)


def name_of(domain: str, index: int, seed: int, difficulty: float) -> str:
    return f"{domain}-d{difficulty:g}-s{seed}-{index}"


def png_bytes(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def draw(samples: Iterable[data.Sample], renderer: Renderer, kept: Counter, lost: Counter) -> Iterator[data.Sample]:
    """Samples with their pictures, in order, counted in `kept` by domain; failed or blank ones in `lost` by reason."""
    samples = iter(samples)
    while chunk := list(islice(samples, 128)):  # so many pictures at most wait in memory
        futures = [renderer.submit(sample.code, sample.language) for sample in chunk]
        for sample, future in zip(chunk, futures, strict=True):
            rendering = future.result()
            image = rendering.image
            if image is None:
                lost[f"{sample.domain}: {rendering.error.strip()}"] += 1
            elif is_blank(image):
                lost[f"{sample.domain}: the picture is blank"] += 1
            else:
                kept[sample.domain] += 1
                yield replace(sample, image=image)


def unknown(samples: Iterable[data.Sample], known: set[str], lost: Counter) -> Iterator[data.Sample]:
    for sample in samples:
        if sample.code in known:
            lost["program of an excluded file"] += 1
        else:
            yield sample


# ------------------------------------------------------------------------------------------------------------- writing


def in_one_turn(sample: data.Sample) -> data.Sample:
    """What the system says in front of the prompt, for a corpus, which has no column for it."""
    return replace(sample, prompt=f"{sample.system}\n\n{sample.prompt}", system="") if sample.system else sample


def _sft_row(sample: data.Sample) -> dict:
    if sample.image is None:
        raise ValueError(f"{sample.id}: has no picture; render its program first")
    user, answer = "<image>\n" + in_one_turn(sample).prompt, data.answer_text(sample)
    return {"user_content": user, "assistant_content": answer, "image": png_bytes(sample.image)}


def write_parquet(samples: Iterable[data.Sample], path: str | Path) -> int:
    """Stream samples to one file in the SFT schema, 256 rows a group; it appears when complete. Returns the count."""
    path, count, samples = Path(path), 0, iter(samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    text, binary = pyarrow.string(), pyarrow.binary()
    schema = pyarrow.schema([("user_content", text), ("assistant_content", text), ("image", binary)])
    try:
        with pyarrow.parquet.ParquetWriter(partial, schema) as writer:
            while rows := [_sft_row(sample) for sample in islice(samples, 256)]:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                count += len(rows)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def contact_sheet(rows: Collection[Sequence[tuple[str, Image.Image]]], path: str | Path, side: int = 176) -> None:
    """A PNG of rows of pictures, `side` px each, with their names below them."""
    sheet = Image.new("RGB", (side * max(map(len, rows)), (side + 16) * len(rows)), "lightgray")
    for row, pictures in enumerate(rows):
        for column, (name, image) in enumerate(pictures):
            x, y, picture = column * side, row * (side + 16), image.copy()
            picture.thumbnail((side - 8, side - 8))
            sheet.paste(picture, (x + (side - picture.width) // 2, y + (side - picture.height) // 2))
            ImageDraw.Draw(sheet).text((x + 4, y + side), name[:28], fill="black")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


@dataclass
class Config:
    """Write image-code pairs to a parquet file, or draw a contact sheet."""

    out: Path | None = None
    """Where the pairs (.parquet) or the contact sheet (.png, by default runs/synth.png) go."""
    count: int = 1000
    """Number of programs, taken from the domains in turn."""
    domains: tuple[str, ...] = DOMAINS
    """Any of svg, chart, html, latex, molecule."""
    difficulty: float = 0.3
    """0: a few lines on a coarse grid; 1: rich programs."""
    seed: int = 0
    """Another seed, other programs."""
    start: int = 0
    """First index in each domain."""
    exclude: tuple[Path, ...] = ()
    """Parquet files whose programs are left out: the training sets, for a held-out one."""
    show: int = 0
    """Draw a contact sheet of this many pictures, from difficulty 0 to 1, and write no pairs."""
    svg_side: int = 448
    """Pixels of the longer side of an svg picture."""
    allow_unsafe_rendering: bool = False
    """Render without a sandbox where the machine offers none."""


def main(config: Config) -> None:
    if not (config.show or config.out) or min(config.count, len(config.domains)) < 1 or config.show < 0:
        raise ValueError("Give --out PATH.parquet with a --count of 1 or more, or --show 20; and at least one domain.")
    total, width, kept, lost = config.show or config.count, len(config.domains), Counter(), Counter()
    path, rows = config.out or Path("runs/synth.png"), max(1, (total - 1) // width)
    dial = [round(k // width / rows, 2) if config.show else config.difficulty for k in range(total)]
    jobs = ((config.domains[k % width], config.start + k // width) for k in tqdm(range(total), "drawing", unit="pair"))
    samples = (make(domain, index, config.seed, dial[k]) for k, (domain, index) in enumerate(jobs))
    known = {sample.code for known_path in config.exclude for sample in data.load(known_path)}
    samples = unknown(samples, known, lost)
    with Renderer(svg_side=config.svg_side, allow_unsafe=config.allow_unsafe_rendering) as renderer:
        drawn = draw(samples, renderer, kept, lost)
        if not config.show:
            write_parquet(drawn, path)
        elif drawn := list(drawn):
            rows = [[(s.id, s.image) for s in drawn if s.domain == domain] for domain in config.domains]
            contact_sheet(rows, path, side=220)
    for reason, times in lost.items():
        print(f"dropped {times} {reason}", file=sys.stderr)
    if not kept:
        raise RuntimeError("No program gave a picture: `python render.py --doctor` says what is missing.")
    print(f"{path}: {kept.total()} of {total} pairs ({', '.join(f'{n} {domain}' for domain, n in kept.items())})")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"synth.py: {error}")
