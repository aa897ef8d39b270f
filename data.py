"""Samples: a picture, the prompt about it, and the code that draws it; from whatever a data set is written in.

`data.load(PATH)` reads one, `python -m corpus inspect PATH` says what is in it and what is wrong with which row.

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

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

import prompts
from files import Lines, Parquet, open_rows
from languages import LANGUAGES
from pictures import read_picture
from prompts import blocks, direct_prompt, domain_of, extract_code, fenced, refine_prompt


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
    drawing: Future | None = None  # the Rendering of `code`, or what stands for it, where a reward wants to read it


def answer_text(sample: Sample) -> str:
    """The answer the model should give: the code in one fenced block."""
    if not sample.code:
        raise ValueError(f"{sample.id}: has no code to answer with; SFT needs a data set with code")
    return fenced(sample.code, sample.language)


def as_refinement(sample: Sample, draft: str, rng: np.random.Generator | None = None) -> Sample:
    """The same target, now to be reached by correcting `draft`."""
    return replace(sample, id=f"{sample.id}+refine", prompt=refine_prompt(sample.language, draft, rng), draft=draft)


# -------------------------------------------------------------------------------------------------------- reading rows
# What is wrong with a row is said as "what (details); remedy", so that rows can be counted by what is wrong with them.


def _only(values, what: str):
    values = values if isinstance(values, list) else [values]
    if len(values) == 1:
        return values[0]
    raise ValueError(f"has {len(values)} {what} where one is needed; keep rows with one turn and one picture")


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
    """A column that a row need not have, as a name that can be printed; "" where it is missing or invalid."""
    value = row.get(column)
    return _printable(str(value))[:200] if isinstance(value, str | int) else ""


def _answer(row: dict, column: str) -> str | None:
    """The answer, which RL does not need: None where it is missing or not text."""
    answer = row.get(column)
    answer = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    return _text({column: answer}, column) if isinstance(answer, str) and answer.strip() else None


def _sample(row: dict, id: str, user: str, answer: str | None, image: Image.Image, strict: bool = True) -> Sample:
    """A sample from a conversation; the code in `answer` may stand without a fence unless `strict`."""
    prompt, answer = prompts.without_placeholder(user), answer or ""
    mentioned = {language for _, language in prompts.mentions(prompts.FENCED.sub("", prompt).lower())}
    tags = [tag for tag, _ in blocks(answer) if tag in LANGUAGES and (tag in mentioned or not mentioned)]
    named = str(row.get("language") or "").strip()
    said = [prompts.language_named(row["language"])] if named else tags  # of several tags the one that answers
    language = said[-1] if said else prompts.language_of(prompt)
    code = extract_code(answer, language)
    if code is None and answer and (strict or blocks(answer)):
        raise ValueError(f"the answer has no closed ```{language} block with code in it; put the code in one")
    code, draft = code or answer.strip() or None, extract_code(prompt, language)
    chemical = language == "python" and re.search(r"(?i)\bmolec|\bchemical", prompt)
    domain = _given(row, "domain") or ("molecule" if chemical else domain_of(language, code or draft))
    system = _text(row, "system").strip() if row.get("system") else ""
    return Sample(_given(row, "id") or id, domain, language, image, prompt, code, draft, system)


def _from_manifest(row: dict, id: str, folder: Path) -> Sample:
    if row.get("problem"):  # what `python -m corpus draw` says of a row that it could not draw
        raise ValueError(str(row["problem"]))
    id, language = _given(row, "id") or id, prompts.language_named(row.get("language"))
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
    parts = message.get("content")
    parts = parts if isinstance(parts, list) else []
    return [part for part in parts if isinstance(part, dict) and str(part.get("type")).startswith(kind)]


def _said(messages: list[dict], role: str) -> str | None:
    """What the one message of this role says; None where there is none."""
    said = [message for message in messages if message.get("role") == role]
    if not said:
        return None
    message = _only(said, f"{role} messages")
    parts = [str(part.get("text") or "") for part in _parts(message, "text")]
    return _text({"content": "\n".join(parts)} if parts else message, "content")


def _picture(row: dict, folder: Path, messages: Sequence[dict] = ()) -> Image.Image:
    """The picture of a row, in whichever column it is, or among the parts of its messages."""
    given = [row[column] for column in ("images", "image") if row.get(column) is not None]
    parts = [part for message in messages for part in _parts(message, "image") if len(part) > 1]
    given = [parts] if parts and not any(given) else given
    return read_picture(given[0] if given else None, folder)


def _from_messages(row: dict, id: str, folder: Path) -> Sample:
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError('column messages is no list of {"role", "content"}; write it as ms-swift does')
    user, answer, system = (_said(messages, role) for role in ("user", "assistant", "system"))
    if user is None:
        raise ValueError("has 0 user messages where one is needed; keep rows with one turn and one picture")
    about = row | {"system": system or row.get("system")}
    return _sample(about, id, user, answer, _picture(row, folder, messages))


def _pair(user: str, answer: str, needed: bool = False, strict: bool = True) -> Callable[[dict, str, Path], Sample]:
    """What makes a sample of a row that has its prompt and its answer, which may have to be there, in these columns."""

    def build(row: dict, id: str, folder: Path) -> Sample:
        if row.get("history"):
            raise ValueError("has a history of other turns; keep rows with one turn and one picture")
        said = (_text if needed else _answer)(row, answer)
        return _sample(row, id, _text(row, user), said, _picture(row, folder), strict)

    return build


FORMATS = {  # name -> (columns that tell it, besides image or images; row -> sample)
    "SFT": ({"user_content", "assistant_content"}, _pair("user_content", "assistant_content", needed=True)),
    "EasyR1": ({"problem"}, _pair("problem", "answer", strict=False)),
    "ms-swift": ({"messages"}, _from_messages),
    "ms-swift, older": ({"query"}, _pair("query", "response")),
}
KNOWN = "user_content, assistant_content, image; or problem, answer, images; or messages, images"
TEXTS = ("user_content", "assistant_content", "problem", "answer", "messages", "query", "response")  # how long it is
COLUMNS = {*TEXTS, "image", "images", "history", "system", "id", "domain", "language"}


def format_of(columns: set[str], path: str | Path = "") -> Callable:
    """What makes samples of rows with these columns. Raises ValueError, of a row or of the file `path`."""
    for needs, build in FORMATS.values():
        if needs <= columns and columns & {"image", "images", "messages"}:
            return build
    have = ", ".join(sorted(columns))
    if path:
        raise ValueError(f"{path} has the columns {have}; rename them to {KNOWN}")
    have = f'no "messages" and "images", nor other columns that are known (it has {have[:200]})'
    raise ValueError(f"has {have}; use {KNOWN}")


def _from_row(row: dict, id: str, folder: Path) -> Sample:
    row = {column: value for column, value in row.items() if value == value}  # NaN: pandas' word for nothing
    return format_of(set(row))(row, id, folder)


@dataclass(eq=False)
class Samples(Sequence):
    """samples[i] reads and decodes a row, or raises a ValueError that names it; samples[a:b] is a view."""

    rows: Lines | Parquet
    build: Callable[[dict, str, Path], Sample]
    indices: Sequence[int]

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return replace(self, indices=self.indices[index])
        _, sample, problem = next(check(self, [index]))
        if sample is None:
            raise ValueError(problem)
        return sample

    def place(self, index: int) -> str:
        return self.rows.place(self.indices[index])[0]


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


def load(path: str | Path, limit: int | None = None) -> Samples:
    """The data set at `path`, one of the formats at the top of this file. Raises FileNotFoundError or ValueError where
    nothing can be read; a bad row raises when it is asked for."""
    rows = open_rows(path, COLUMNS)
    if isinstance(rows, Parquet):
        rows.kind(format_of)
    build = _from_manifest if rows.files[0].name == "MANIFEST.jsonl" else _from_row
    return Samples(rows, build, range(len(rows))[:limit])


def check(samples: Samples, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Sample | None, str]]:
    """(index, sample, "") of the rows that can be used, (index, None, what is wrong with which row) of the others, in
    order; of all rows, or of those asked for."""
    for index in range(len(samples)) if indices is None else indices:
        row = samples.indices[index]
        place, id, folder = samples.rows.place(row)
        try:
            yield index, samples.build(samples.rows[row], id, folder), ""
        except Exception as error:  # of many libraries: nothing that one row holds may end a run
            yield index, None, f"{place}: {problem_of(error)}"


def needs_drawing(samples: Samples) -> bool:
    """Whether there are rows whose picture has still to be drawn: `python -m corpus draw` makes a set of all."""
    for index in samples.indices if samples.build is _from_manifest else ():
        with suppress(ValueError):  # a broken line, which is named when it is its turn
            row = samples.rows[index]
            if not row.get("image") and not row.get("problem"):
                return True
    return False
