"""Samples: a picture, the prompt about it, and the code that draws it. Load, check, mutate, shuffle, write.

    python data.py inspect PATH [--contact-sheet OUT.png]            # what is in it, and what is wrong with which row
    python data.py build PATH.. --out CORPUS                         # filter, draw, draft, balance: corpus/build.py
    python data.py choose FOLDER_OF_EVAL --out rl.parquet            # RL prompts by sampled reward: corpus/choose.py

PATH is one of
    a folder with MANIFEST.jsonl     rows {id, domain, language, path} and optionally {image, prompt, draft};
                                     path, image and draft are files relative to the folder
    FILE.jsonl                       ms-swift: {"messages": [{"role", "content"}, ..], "images": [path]}
    FILE.parquet, or a folder of it  SFT (user_content, assistant_content, image) or EasyR1 (problem, answer, images)
Rows are read when they are asked for, so a set of millions needs little memory.
"""

import glob
import json
import os
import re
import sys
import zlib
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from corpus.files import parquet_footers
from corpus.flaws import mutate as mutate  # part of this file's interface
from corpus.pictures import png_bytes, read_picture
from prompts import (
    ALIASES,
    FENCED,
    LANGUAGES,
    blocks,
    direct_prompt,
    domain_of,
    extract_code,
    fenced,
    language_of,
    mentions,
    refine_prompt,
)

if TYPE_CHECKING:
    from render import Renderer


@dataclass
class Sample:
    """One target picture. `prompt` is everything the model reads besides it; a refinement repeats its `draft` there."""

    id: str
    domain: str
    language: str
    image: Image.Image | None  # RGB; None where the target has still to be rendered from `code`
    prompt: str
    code: str | None = None
    draft: str | None = None


def answer_text(sample: Sample) -> str:
    """The answer the model should give: the code in one fenced block."""
    if not sample.code:
        raise ValueError(f"{sample.id}: has no code to answer with; SFT needs a data set with code")
    return fenced(sample.code, sample.language)


def as_refinement(sample: Sample, draft: str, rng: np.random.Generator | None = None) -> Sample:
    """The same target, now to be reached by correcting `draft`."""
    prompt = refine_prompt(sample.language, draft, rng)
    return replace(sample, id=f"{sample.id}+refine", prompt=prompt, draft=draft)


# -------------------------------------------------------------------------------------------------------- reading rows


def _only(values, what: str):
    values = values if isinstance(values, list) else [values]
    if len(values) != 1:
        raise ValueError(f"has {len(values)} {what} where one is needed; keep rows with one turn and one picture")
    return values[0]


def _text(row: dict, column: str) -> str:
    if not isinstance(row.get(column), str) or not row[column].strip():
        raise ValueError(f"column {column} is empty or no text; fill it or remove the row")
    return row[column].replace("\r\n", "\n")


def _sample(row: dict, id: str, user: str, answer: str | None, image: Image.Image, strict: bool) -> Sample:
    """A sample from a conversation; the code in `answer` may stand without a fence unless `strict`."""
    prompt, answer = user.replace("<image>", "").strip(), answer or ""
    mentioned = {language for _, language in mentions(FENCED.sub("", prompt).lower())}
    tags = [tag for tag, _ in blocks(answer) if tag in LANGUAGES and (tag in mentioned or not mentioned)]
    language = row.get("language") or (tags[-1] if tags else language_of(prompt))  # of several, the one that answers
    code = extract_code(answer, language)
    if code is None and answer and (strict or blocks(answer)):
        raise ValueError(f"the answer has no closed ```{language} block with code in it; put the code in one")
    code, draft = code or answer.strip() or None, extract_code(prompt, language)
    chemical = language == "python" and re.search(r"(?i)\bmolec|\bchemical", prompt)
    domain = row.get("domain") or ("molecule" if chemical else domain_of(language, code or draft))
    return Sample(row.get("id") or id, domain, language, image, prompt, code, draft)


def _from_manifest(row: dict, id: str, folder: Path) -> Sample:
    id, language = str(row.get("id") or id), ALIASES.get(row.get("language"), row.get("language"))
    if language not in LANGUAGES:
        raise ValueError(f"language is {language}; use one of {', '.join(LANGUAGES)}")
    code, draft = ((folder / row[key]).read_text("utf-8") if row.get(key) else "" for key in ("path", "draft"))
    if not code.strip() and not row.get("image"):
        raise ValueError("has neither a program nor a picture; set path or image to a file that is not empty")
    domain = str(row.get("domain") or domain_of(language, code)).removesuffix("_ref")
    rng = np.random.default_rng(zlib.crc32(id.encode()))  # the same prompt in every epoch and every run
    image = read_picture(row["image"], folder) if row.get("image") else None
    prompt = row.get("prompt") or (
        refine_prompt(language, draft, rng) if draft else direct_prompt(language, domain, rng)
    )
    return Sample(id, domain, language, image, prompt, code or None, draft or None)


def _from_swift(row: dict, id: str, folder: Path) -> Sample:
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError('has no "messages"; write ms-swift rows {"messages": [{"role", "content"}], "images": [path]}')
    said = {role: [m for m in messages if m.get("role") == role] for role in ("system", "user", "assistant")}
    asking = [*said["system"], _only(said["user"], "user messages")]
    answer = _text(_only(said["assistant"], "assistant messages"), "content") if said["assistant"] else None
    image = read_picture(_only(row.get("images"), "pictures"), folder)
    return _sample(row, id, "\n\n".join(_text(message, "content") for message in asking), answer, image, strict=True)


def _from_sft(row: dict, id: str, folder: Path) -> Sample:
    user, answer = _text(row, "user_content"), _text(row, "assistant_content")
    return _sample(row, id, user, answer, read_picture(row["image"], folder), strict=True)


def _from_easyr1(row: dict, id: str, folder: Path) -> Sample:
    image = read_picture(_only(row["images"], "pictures"), folder)
    return _sample(row, id, _text(row, "problem"), row.get("answer"), image, strict=False)


SCHEMAS = (({"user_content", "assistant_content", "image"}, _from_sft), ({"problem", "images"}, _from_easyr1))


class Lines(Sequence):
    """The objects of a jsonl file by position. Only offsets are held, and a broken line spoils no other."""

    def __init__(self, path: Path):
        self.path, self.offsets, self.numbers, offset = path, array("q"), array("q"), 0
        with open(path, "rb") as file:
            for number, line in enumerate(tqdm(file, f"reading {path.name}", unit=" lines", delay=2, leave=False), 1):
                if line.strip():
                    self.offsets.append(offset)
                    self.numbers.append(number)
                offset += len(line)
        if not self.offsets:
            raise ValueError(f"{path} is empty; write one JSON object a line")

    def __len__(self):
        return len(self.offsets)

    def place(self, index: int) -> tuple[str, str]:
        return f"{self.path.name} line {self.numbers[index]}", f"{self.path.stem}-{index}"

    def __getitem__(self, index):
        with open(self.path, "rb") as file:
            file.seek(self.offsets[index])
            row = json.loads(file.readline().decode("utf-8-sig"))
        if not isinstance(row, dict):
            raise ValueError("is no JSON object; write one {...} a line")
        return row


class Parquet(Sequence):
    """The rows of parquet files by position, from the memory-mapped Arrow copy that `datasets` makes under HF_HOME."""

    def __init__(self, paths: list[Path]):
        import datasets  # here, for it takes a second to import

        self.paths = paths
        self.columns, footers = parquet_footers(paths[0], paths)
        self.ends = list(accumulate((footer.num_rows for footer in footers), initial=0))
        if sum(path.stat().st_size for path in paths) < 1 << 30:  # a long conversion keeps its bar
            datasets.disable_progress_bars()
        files = [glob.escape(str(path)) for path in paths]
        self.table = datasets.Dataset.from_parquet(files).with_format("arrow")  # arrow: pictures stay bytes here

    def __len__(self):
        return len(self.table)

    def place(self, index: int) -> tuple[str, str]:
        file = bisect_right(self.ends, index) - 1
        row = index - self.ends[file]
        return f"{self.paths[file].name} row {row}", f"{self.paths[file].stem}-{row}"

    def __getitem__(self, index):
        return self.table[index].to_pylist()[0]


@dataclass(eq=False)
class Samples(Sequence):
    """samples[i] reads and decodes a row, or raises a ValueError that names it; samples[a:b] is a view."""

    rows: Lines | Parquet
    build: Callable[[dict, str, Path], Sample]
    folder: Path
    indices: Sequence[int]
    renderings: dict = field(default_factory=dict)  # row -> Rendering of a target that came without a picture

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return replace(self, indices=self.indices[index])
        row = self.indices[index]
        place, id = self.rows.place(row)
        try:
            sample = self.build(self.rows[row], id, self.folder)
        except (ValueError, OSError) as error:
            raise ValueError(f"{place}: {error}") from None
        rendering = self.renderings.get(row)
        return replace(sample, image=rendering.image) if rendering else sample

    def rendered(self, renderer: "Renderer") -> "Samples":
        """The same with the targets that have no picture rendered, and held in memory; None stays where one fails."""
        if self.build is not _from_manifest:  # the other formats have their pictures
            return self
        missing = [(index, sample) for index, sample, _ in check(self) if sample and sample.image is None]
        futures = {self.indices[index]: renderer.submit(sample.code, sample.language) for index, sample in missing}
        bar = tqdm(futures.items(), "rendering targets", delay=2, leave=False)
        return replace(self, renderings={row: future.result() for row, future in bar})


def load(path: str | Path, renderer: "Renderer | None" = None, limit: int | None = None) -> Samples:
    """The data set at `path`, one of the formats at the top of this file.

    With `renderer`, targets without a picture are rendered now and kept in memory; the image of one that fails stays
    None. Raises FileNotFoundError or ValueError where nothing can be read; a bad row raises when it is asked for.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a folder with MANIFEST.jsonl, a .jsonl or .parquet")
    parquets = sorted(path.rglob("*.parquet")) if path.is_dir() else [path] if path.suffix == ".parquet" else []
    lines = path / "MANIFEST.jsonl" if path.is_dir() else path
    if lines.suffix == ".jsonl" and lines.is_file():
        rows, build = Lines(lines), _from_manifest if lines.name == "MANIFEST.jsonl" else _from_swift
    elif parquets:
        rows = Parquet(parquets)
        build = next((build for needs, build in SCHEMAS if needs <= rows.columns), None)
        if build is None:
            wanted = " or ".join(", ".join(sorted(needs)) for needs, _ in SCHEMAS)
            raise ValueError(f"{path} has the columns {', '.join(sorted(rows.columns))}; rename them to {wanted}")
    else:
        raise ValueError(f"{path} holds no data set; give a folder with MANIFEST.jsonl, a .jsonl or .parquet")
    folder = (parquets[0] if parquets else lines).parent
    samples = Samples(rows, build, folder, range(len(rows))[:limit])
    return samples if renderer is None else samples.rendered(renderer)


def check(samples: Samples) -> Iterator[tuple[int, Sample | None, str]]:
    """(index, sample, "") of the rows that can be read, (index, None, what is wrong with which row) of the others."""
    for index in range(len(samples)):
        try:
            yield index, samples[index], ""
        except ValueError as error:
            yield index, None, str(error)


def usable(samples: Samples, need_code: bool = False) -> tuple[Samples, Counter]:
    """(a view of the rows with a picture, and code if `need_code`; reason -> how many were dropped). Decodes all."""
    good, dropped = [], Counter()
    for index, sample, problem in tqdm(check(samples), "checking", len(samples), delay=2, leave=False):
        rendering = samples.renderings.get(samples.indices[index])
        if sample is None:
            dropped[problem.partition(": ")[2]] += 1
        elif sample.image is None:
            dropped[f"its target does not render: {rendering.error}" if rendering else "no picture"] += 1
        elif need_code and not sample.code:
            dropped["no code"] += 1
        else:
            good.append(samples.indices[index])
    return replace(samples, indices=array("q", good)), dropped


def load_usable(
    path: str | Path, renderer: "Renderer | None", need_code: bool = False, limit: int | None = None
) -> tuple[Samples, Counter]:
    """`load` and `usable` in one: what was dropped, and why, is printed. Raises ValueError where nothing is left."""
    samples = load(path, renderer, limit)
    good, dropped = usable(samples, need_code)
    if dropped:
        reasons = "; ".join(f"{count} x {reason.strip().splitlines()[0]}" for reason, count in dropped.most_common(5))
        print(f"{path}: {len(samples)} rows, {len(good)} used, {dropped.total()} dropped: {reasons}", file=sys.stderr)
    if not len(good):
        raise ValueError(f"{path} holds no usable sample; `python data.py inspect {path}` says why.")
    return good, dropped


# ----------------------------------------------------------------------------------------------- shuffling and writing


@lru_cache(maxsize=4)
def _epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:  # (n,) int64
    return np.random.default_rng((seed, epoch)).permutation(n)


def batch_indices(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """The rows of batch `step` when n rows are shuffled anew each epoch: a pure function, so resume needs no state."""
    if n < 1 or batch_size < 1:
        raise ValueError(f"n={n} and batch_size={batch_size} must be at least 1; check the data path and the config")
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [int(_epoch_order(n, seed, position // n)[position % n]) for position in positions]


def _sft_row(sample: Sample) -> dict:
    if sample.image is None:
        raise ValueError(f"{sample.id}: has no picture; render its program first")
    user = "<image>\n" + sample.prompt
    return {"user_content": user, "assistant_content": answer_text(sample), "image": png_bytes(sample.image)}


def write_parquet(samples: Iterable[Sample], path: str | Path) -> int:
    """Stream samples to one file in the SFT schema, 256 rows a group; it appears when complete. Returns the count."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    path, count, samples = Path(path), 0, iter(samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    text, binary = pyarrow.string(), pyarrow.binary()
    schema = pyarrow.schema([("user_content", text), ("assistant_content", text), ("image", binary)])
    try:
        with ParquetWriter(partial, schema) as writer:
            while rows := [_sft_row(sample) for sample in islice(samples, 256)]:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                count += len(rows)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return count


# ------------------------------------------------------------------------------------------------------------- inspect


@dataclass
class Inspect:
    """Count, check and render a data set, and say what is wrong with which row."""

    path: tyro.conf.Positional[str]
    """Folder with MANIFEST.jsonl, ms-swift .jsonl, .parquet file or folder of parquet files."""
    contact_sheet: str | None = None
    """Write a PNG with up to ten pictures per domain here."""
    histograms: str | None = None
    """Write a PNG with the sizes of programs and pictures here."""
    limit: int | None = None
    """Look at the first so many rows only."""


def main():
    try:
        from corpus.build import Build  # here, for they import this module
        from corpus.choose import Choose

        config = tyro.extras.subcommand_cli_from_dict({"inspect": Inspect, "build": Build, "choose": Choose})
        if not isinstance(config, Inspect):
            return config()
        samples = load(config.path, limit=config.limit)
        from render import Renderer  # here, for not everyone who imports data renders
        from report.inspection import contact_sheet, inspect

        with Renderer() as renderer:
            samples = samples.rendered(renderer)
        report, shown = inspect(samples, config.histograms)
        print(report)
        if config.contact_sheet and shown:
            contact_sheet(shown, config.contact_sheet)
            print(f"wrote {config.contact_sheet}")
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"data.py: {error}")


if __name__ == "__main__":
    main()
