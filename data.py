"""Samples: a picture, the prompt about it, and the code that draws it. Load, check, mutate, shuffle, write.

    data.load(PATH)          # `python -m corpus inspect PATH` says what is in it

PATH is one of
    a folder with MANIFEST.jsonl     rows {id, domain, language, path} and optionally {image, prompt, draft};
                                     path, image and draft are files relative to the folder
    .parquet, .jsonl(.gz), .json     files or folders of them, whose rows have one of these sets of columns:
                                     SFT (user_content, assistant_content, image), EasyR1 (problem, answer, images),
                                     ms-swift (messages, images) or (query, response, images); and optionally id,
                                     domain, language, system
Of a folder whose files or folders are named after splits, train is read; FOLDER:test gives another one. Rows are read
when they are asked for, so a set of millions needs little memory.
"""

import os
import re
import sys
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from tqdm import tqdm

from files import Lines, Parquet, open_rows
from flaws import mutate as mutate  # part of this file's interface
from pictures import png_bytes, read_picture
from prompts import (
    FENCED,
    LANGUAGES,
    blocks,
    direct_prompt,
    domain_of,
    extract_code,
    fenced,
    language_named,
    language_of,
    mentions,
    refine_prompt,
    without_placeholder,
)

if TYPE_CHECKING:
    from render import Renderer

AHEAD = 32  # targets that are drawn before it is their turn


@dataclass
class Sample:
    """One target picture. `prompt` is all that the user says besides it; a refinement repeats its `draft` there."""

    id: str  # for people: several samples may have the same
    domain: str
    language: str
    image: Image.Image | None  # RGB; None where the target has still to be rendered from `code`
    prompt: str
    code: str | None = None
    draft: str | None = None
    system: str = ""  # what the system says before the user does


def answer_text(sample: Sample) -> str:
    """The answer the model should give: the code in one fenced block."""
    if not sample.code:
        raise ValueError(f"{sample.id}: has no code to answer with; SFT needs a data set with code")
    return fenced(sample.code, sample.language)


def as_refinement(sample: Sample, draft: str, rng: np.random.Generator | None = None) -> Sample:
    """The same target, now to be reached by correcting `draft`."""
    prompt = refine_prompt(sample.language, draft, rng)
    return replace(sample, id=f"{sample.id}+refine", prompt=prompt, draft=draft)


def in_one_turn(sample: Sample) -> Sample:
    """What the system says in front of the prompt, for a corpus, which has no column for it."""
    return replace(sample, prompt=f"{sample.system}\n\n{sample.prompt}", system="") if sample.system else sample


# -------------------------------------------------------------------------------------------------------- reading rows
# What is wrong with a row is said as "what (details); remedy", so that rows can be counted by what is wrong with them.


def _only(values, what: str):
    values = values if isinstance(values, list) else [values]
    if len(values) != 1:
        raise ValueError(f"has {len(values)} {what} where one is needed; keep rows with one turn and one picture")
    return values[0]


def _text(row: dict, column: str) -> str:
    text = row.get(column)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"column {column} is empty or no text; fill it or remove the row")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):X}"
        raise ValueError(f"column {column} holds half a character ({half}); write it whole or remove it") from None
    return text.replace("\r\n", "\n")


def _printable(text: str) -> str:
    """On one line, with ? for what is no character or moves a terminal's cursor."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def _given(row: dict, column: str) -> str:
    """A column that a row need not have, as a name that can be printed; "" for what is none."""
    value = row.get(column)
    return _printable(str(value))[:200] if isinstance(value, str | int) else ""


def _answer(row: dict, column: str) -> str | None:
    """RL needs no answer: what is no text, a number or a list, is none."""
    answer = row.get(column)
    answer = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    return _text({column: answer}, column) if isinstance(answer, str) and answer.strip() else None


def _sample(row: dict, id: str, user: str, answer: str | None, image: Image.Image, strict: bool) -> Sample:
    """A sample from a conversation; the code in `answer` may stand without a fence unless `strict`."""
    prompt, answer = without_placeholder(user), answer or ""
    mentioned = {language for _, language in mentions(FENCED.sub("", prompt).lower())}
    tags = [tag for tag, _ in blocks(answer) if tag in LANGUAGES and (tag in mentioned or not mentioned)]
    if row.get("language") and str(row["language"]).strip():
        language = language_named(row["language"])
    else:
        language = tags[-1] if tags else language_of(prompt)  # of several, the one that answers
    code = extract_code(answer, language)
    if code is None and answer and (strict or blocks(answer)):
        raise ValueError(f"the answer has no closed ```{language} block with code in it; put the code in one")
    code, draft = code or answer.strip() or None, extract_code(prompt, language)
    chemical = language == "python" and re.search(r"(?i)\bmolec|\bchemical", prompt)
    domain = _given(row, "domain") or ("molecule" if chemical else domain_of(language, code or draft))
    system = _text(row, "system").strip() if row.get("system") else ""
    return Sample(_given(row, "id") or id, domain, language, image, prompt, code, draft, system)


def _from_manifest(row: dict, id: str, folder: Path) -> Sample:
    id, language = _given(row, "id") or id, language_named(row.get("language"))
    code, draft = (_program(folder / row[key]) if row.get(key) else "" for key in ("path", "draft"))
    if not code.strip() and not row.get("image"):
        raise ValueError("has neither a program nor a picture; set path or image to a file that is not empty")
    domain = (_given(row, "domain") or domain_of(language, code)).removesuffix("_ref")
    rng = np.random.default_rng(zlib.crc32(id.encode()))  # the same prompt in every epoch and every run
    image = read_picture(row["image"], folder) if row.get("image") else None
    prompt = refine_prompt(language, draft, rng) if draft else direct_prompt(language, domain, rng)
    prompt = _text(row, "prompt") if row.get("prompt") else prompt
    system = _text(row, "system") if row.get("system") else ""
    return Sample(id, domain, language, image, prompt, code or None, draft or None, system)


def _program(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"a program is not UTF-8 ({path}: {error}); convert it") from None
    except OSError as error:
        raise ValueError(f"a program cannot be read ({path}: {error.strerror}); mend the manifest") from None


def _parts(message: dict, kind: str) -> list[dict]:
    """The parts of a message of which one is a picture: {"type": "image" or "text", ..}."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, dict) and str(part.get("type")).startswith(kind)]


def _said(messages: list[dict], role: str) -> str | None:
    """What the one message of this role says; None where there is none."""
    said = [message for message in messages if message.get("role") == role]
    if not said:
        return None
    message = _only(said, f"{role} messages")
    parts = [str(part.get("text") or "") for part in _parts(message, "text")]
    return _text({"content": "\n".join(parts)} if parts else message, "content")


def _pictures(row: dict, messages: Sequence[dict] = ()):
    """The picture of a row, in whichever column it is, or among the parts of its messages."""
    given = [row[column] for column in ("images", "image") if row.get(column) is not None]
    parts = [part for message in messages for part in _parts(message, "image") if len(part) > 1]
    return parts if parts and not any(given) else given[0] if given else None


def _from_messages(row: dict, id: str, folder: Path) -> Sample:
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError('column messages is no list of {"role", "content"}; write it as ms-swift does')
    user, answer, system = (_said(messages, role) for role in ("user", "assistant", "system"))
    if user is None:
        raise ValueError("has 0 user messages where one is needed; keep rows with one turn and one picture")
    image = read_picture(_pictures(row, messages), folder)
    return _sample(row | {"system": system or row.get("system")}, id, user, answer, image, strict=True)


def _from_query(row: dict, id: str, folder: Path) -> Sample:
    if row.get("history"):
        raise ValueError("has a history of other turns; keep rows with one turn and one picture")
    query, answer = _text(row, "query"), _answer(row, "response")
    return _sample(row, id, query, answer, read_picture(_pictures(row), folder), strict=True)


def _from_sft(row: dict, id: str, folder: Path) -> Sample:
    user, answer = _text(row, "user_content"), _text(row, "assistant_content")
    return _sample(row, id, user, answer, read_picture(_pictures(row), folder), strict=True)


def _from_easyr1(row: dict, id: str, folder: Path) -> Sample:
    problem, answer = _text(row, "problem"), _answer(row, "answer")
    return _sample(row, id, problem, answer, read_picture(_pictures(row), folder), strict=False)


FORMATS = (  # columns that tell them, besides image or images
    ({"user_content", "assistant_content"}, _from_sft),
    ({"problem"}, _from_easyr1),
    ({"messages"}, _from_messages),
    ({"query"}, _from_query),
)
KNOWN = "user_content, assistant_content, image; or problem, answer, images; or messages, images"
COLUMNS = {"user_content", "assistant_content", "image", "images", "problem", "answer", "messages", "query", "response"}
COLUMNS |= {"history", "system", "id", "domain", "language"}
TEXTS = ("user_content", "assistant_content", "problem", "answer", "messages", "query", "response")  # how long it is


def format_of(columns: Iterable[str]) -> Callable | None:
    columns = set(columns)
    return next(
        (build for needs, build in FORMATS if needs <= columns and columns & {"image", "images", "messages"}), None
    )


def _format_of_file(columns: set[str], file: Path) -> Callable:
    if build := format_of(columns):
        return build
    raise ValueError(f"{file} has the columns {', '.join(sorted(columns))}; rename them to {KNOWN}")


def _from_row(row: dict, id: str, folder: Path) -> Sample:
    row = {column: value for column, value in row.items() if value == value}  # NaN: pandas' word for nothing
    build = format_of(row)
    if build is None:
        have = ", ".join(sorted(row))[:200]
        raise ValueError(
            f'has no "messages" and "images", nor other columns that are known (it has {have}); use {KNOWN}'
        )
    return build(row, id, folder)


@dataclass(eq=False)
class Samples(Sequence):
    """samples[i] reads and decodes a row, or raises a ValueError that names it; samples[a:b] is a view. With a renderer
    a target that came without a picture is drawn when it is read."""

    rows: Lines | Parquet
    build: Callable[[dict, str, Path], Sample]
    indices: Sequence[int]
    renderer: "Renderer | None" = None

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return replace(self, indices=self.indices[index])
        return self._with_picture(index, *self._begun(index))

    def __iter__(self):
        for _, sample, problem in check(self):
            if problem:
                raise ValueError(problem)
            yield sample

    def place(self, index: int) -> str:
        return self.rows.place(self.indices[index])[0]

    def _begun(self, index: int) -> tuple[Sample, Future | None]:
        """A sample, and the drawing of its picture where that has begun."""
        row = self.indices[index]
        place, id, folder = self.rows.place(row)
        try:
            sample = self.build(self.rows[row], id, folder)
        except Exception as error:  # of many libraries: nothing that one row holds may end a run
            raise ValueError(f"{place}: {problem_of(error)}") from None
        missing = sample.image is None and self.renderer is not None
        return sample, self.renderer.submit(sample.code, sample.language) if missing else None

    def _with_picture(self, index: int, sample: Sample, drawing: Future | None) -> Sample:
        if drawing is None:
            return sample
        rendering = drawing.result()
        if rendering.image is None:
            said = " ".join((rendering.error or "no picture").split())[:200]
            raise ValueError(f"{self.place(index)}: its target does not render ({said}); mend or remove the program")
        return replace(sample, image=rendering.image)


def problem_of(error: Exception) -> str:
    """What is wrong with a row, in one short sentence."""
    said = _printable(str(error))
    said = said if len(said) < 400 else f"{said[:300]} .. {said[-60:]}"
    if isinstance(error, KeyError):
        return f"column {said} is missing; add it"
    if isinstance(error, ValueError | OSError):
        return said
    return f"a column holds something of the wrong type ({type(error).__name__}: {said})"


def reason_of(problem: str) -> str:
    """Of "place: what (details); remedy" the part that rows are counted by."""
    return re.split(r" \(|;", problem.partition(": ")[2], maxsplit=1)[0][:120]


def load(path: str | Path, renderer: "Renderer | None" = None, limit: int | None = None) -> Samples:
    """The data set at `path`, one of the formats at the top of this file.

    With `renderer`, targets without a picture are drawn as they are read. Raises FileNotFoundError or ValueError where
    nothing can be read; a bad row raises when it is asked for.
    """
    rows = open_rows(path, COLUMNS)
    if isinstance(rows, Parquet):
        rows.kind(_format_of_file)
    build = _from_manifest if rows.files[0].name == "MANIFEST.jsonl" else _from_row
    return Samples(rows, build, range(len(rows))[:limit], renderer)


def check(samples: Samples, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Sample | None, str]]:
    """(index, sample, "") of the rows that can be used, (index, None, what is wrong with which row) of the others, in
    order; of all rows, or of those asked for."""
    begun = deque()
    for index in range(len(samples)) if indices is None else indices:
        try:
            begun.append((index, *samples._begun(index), ""))
        except ValueError as error:
            begun.append((index, None, None, str(error)))
        if samples.renderer is None or len(begun) > AHEAD:
            yield _finished(samples, *begun.popleft())
    while begun:
        yield _finished(samples, *begun.popleft())


def _finished(samples: Samples, index: int, sample: Sample | None, drawing, problem: str) -> tuple:
    try:
        return index, sample and samples._with_picture(index, sample, drawing), problem
    except ValueError as error:
        return index, None, str(error)


def usable(samples: Samples, need_code: bool = False) -> tuple[Samples, Counter]:
    """(a view of the rows with a picture, and code if `need_code`; reason -> how many were dropped). Decodes all."""
    good, dropped = [], Counter()
    for index, sample, problem in tqdm(check(samples), "checking", len(samples), delay=2, leave=False):
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
    path: str | Path, renderer: "Renderer | None", need_code: bool = False, limit: int | None = None
) -> tuple[Samples, Counter]:
    """`load` and `usable` in one: what was dropped, and why, is printed. Raises ValueError where nothing is left."""
    samples = load(path, renderer, limit)
    good, dropped = usable(samples, need_code)
    if dropped:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in dropped.most_common(5))
        print(f"{path}: {len(samples)} rows, {len(good)} used, {dropped.total()} dropped: {reasons}", file=sys.stderr)
    if not len(good):
        raise ValueError(f"{path} holds no usable sample; `python -m corpus inspect {path}` says why.")
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
    user = "<image>\n" + in_one_turn(sample).prompt
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


if __name__ == "__main__":
    print(f"data.py has no commands: python -m corpus {' '.join(sys.argv[1:])}", file=sys.stderr)
    sys.exit(2)
