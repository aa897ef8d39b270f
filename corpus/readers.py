"""Rows of any source, one after the other, from any place in it: for building a corpus, where nothing is read twice.

A source is what data.load reads, a folder of eval.py (its answers become drafts), programs with their licence and
without pictures ({code, language, license} and optionally {id, domain, source}), or rows of the sets that VinciCoder
collected, in their own columns: .json, .jsonl or .parquet files, or a hub name, read through `datasets`, streaming.
Splits are those of data.load: train, or PATH:test.

A broken row comes as the ValueError that names what is wrong; only a source of which nothing can be read raises.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import data
from data import Sample
from files import Lines, Parquet, open_rows
from languages import LANGUAGES
from pictures import read_picture
from prompts import ALIASES, blocks, direct_prompt, domain_of, fenced, language_named, mentions, refine_prompt
from synth import in_one_turn

ANSWERS = "answers of eval.py"
LICENSED = "programs with their licence"
TOLD = ("license", "source")  # what such a row says of where it is from


def _direct(id: str, language: str, domain: str, code: str, image, folder: Path) -> Sample:
    """A direct task from a source that has no prompt of its own."""
    rng = np.random.default_rng(zlib.crc32(id.encode()))  # the same prompt whoever reads it
    picture = read_picture(image, folder) if image else None
    return Sample(id, domain, language, picture, direct_prompt(language, domain, rng), code)


def _text(row: dict, column: str) -> str:
    return data._text(row, column)


def _from_webcode2m(row: dict, id: str, folder: Path) -> Sample:
    return _direct(data._given(row, "hash") or id, "html", "html", _text(row, "text"), row["image"], folder)


def _from_unisvg(row: dict, id: str, folder: Path) -> Sample:
    """Its answers are bare svg, or svg in a fence; `image_path` is relative to the json file."""
    answer = _text(row, "a_text")
    codes = [code for tag, code in blocks(answer) if tag in ("svg", "xml", "")]
    bare = answer[answer.find("<svg") :] if "<svg" in answer else None
    if not (code := codes[-1] if codes else bare):
        raise ValueError("column a_text holds no svg")
    return _direct(data._given(row, "id") or id, "svg", "svg", code, row["image_path"], folder)


def _from_svg_stack(row: dict, id: str, folder: Path) -> Sample:
    return _direct(data._given(row, "Filename") or id, "svg", "svg", _text(row, "Svg"), None, folder)


def _from_datikz(row: dict, id: str, folder: Path) -> Sample:
    return _direct(data._given(row, "uri") or id, "latex", "latex", _text(row, "code"), row["image"], folder)


def _from_cosyn(row: dict, id: str, folder: Path) -> Sample:
    """Its code comes in many languages; what is none of ours (SMILES, LilyPond, VegaLite) is named and left out."""
    code = _text(row, "code")
    tagged = blocks(code)
    code = tagged[-1][1] if tagged else code
    start = code.lstrip()[:400].lower()
    language = ALIASES.get(tagged[-1][0], tagged[-1][0]) if tagged and tagged[-1][0] else None
    if language not in LANGUAGES:
        marks = (("<svg", "svg"), ("<!doctype html", "html"), ("<html", "html"), ("\\documentclass", "latex"))
        marks += (("\\begin{tikz", "latex"), ("import ", "python"), ("from ", "python"), ("flowchart ", "mermaid"))
        marks += (("graph ", "mermaid"), ("sequencediagram", "mermaid"), ("classdiagram", "mermaid"))
        language = next((name for mark, name in marks if start.startswith(mark)), None)
    if language is None:
        raise ValueError("column code is in no language of ours")
    return _direct(data._given(row, "id") or id, language, domain_of(language, code), code, row["image"], folder)


def _from_chat(row: dict, id: str, folder: Path) -> Sample:
    """ShareGPT conversations with one picture: Chart2Code-160k, VisCodex MCD."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("column conversations is no list of turns")
    said = {name: [t.get("value") for t in turns if t.get("from") == name] for name in ("human", "gpt")}
    if len(said["human"]) != 1 or len(said["gpt"]) != 1:
        raise ValueError("has not exactly one question and one answer; keep rows with one turn")
    user, answer = _text({"question": said["human"][0]}, "question"), _text({"answer": said["gpt"][0]}, "answer")
    image = read_picture(data._only(row.get("image"), "pictures"), folder)
    if not blocks(answer):  # Chart2Code's answers are bare python
        answer = fenced(answer.strip(), "python")
    if not mentions(user.lower()):
        user += f"\nAnswer with {blocks(answer)[-1][0] or 'python'} code."
    return data._sample(row, data._given(row, "id") or id, user, answer, image, strict=True)


def _from_program(row: dict, id: str, folder: Path) -> Sample:
    language, code = language_named(row["language"]), _text(row, "code")
    return _direct(
        data._given(row, "id") or id,
        language,
        data._given(row, "domain") or domain_of(language, code),
        code,
        None,
        folder,
    )


def _from_record(row: dict, id: str, folder: Path) -> Sample:
    """An answer of eval.py, as the draft of a refinement task."""
    sample = Sample(**row["sample"])
    if not row.get("code"):
        raise ValueError("the answer has no code to refine")
    if not sample.code:
        raise ValueError(f"{sample.id}: its target has no code; refinement rows need the right answer")
    rng = np.random.default_rng(zlib.crc32(f"{sample.id}#{row['index']}".encode()))
    sample.image, sample.id = read_picture(sample.image, folder), f"{sample.id}#{row['index']}"
    sample.prompt, sample.draft = refine_prompt(sample.language, row["code"], rng), row["code"]
    return sample


SCHEMAS = data.FORMATS | {  # name -> (columns that tell it, row -> sample)
    "WebCode2M": ({"image", "text", "bbox"}, _from_webcode2m),
    "UniSVG": ({"q_text", "a_text", "image_path"}, _from_unisvg),
    "svg-stack": ({"Filename", "Svg"}, _from_svg_stack),
    "DaTikZ": ({"code", "image", "caption"}, _from_datikz),
    "Chart2Code or MCD": ({"conversations", "image"}, _from_chat),
    "CoSyn": ({"code", "image"}, _from_cosyn),
    LICENSED: ({"code", "language", "license"}, _from_program),
}


OTHER_COLUMNS = {"hash", "uri", "source"}  # the first two stand for an id


def schema_of(columns: set[str], path) -> tuple[str, Callable]:
    for name, (needs, convert) in SCHEMAS.items():
        if needs <= columns:
            return name, convert
    known = "; ".join(f"{name}: {', '.join(sorted(needs))}" for name, (needs, _) in SCHEMAS.items())
    raise ValueError(f"{path} has the columns {', '.join(sorted(columns))}, which is no known schema ({known})")


@dataclass
class Row:
    """place: for people. id: for the corpus. folder: what its paths are relative to. raw: the row, or what is wrong
    with it."""

    place: str
    id: str
    folder: Path
    raw: dict | ValueError


@dataclass
class Source:
    """path: file, folder or hub name. schema: its name. total: rows, None if unknown. rows(start): from there on."""

    path: str
    schema: str
    convert: Callable[[dict, str, Path], Sample]
    total: int | None
    rows: Callable[[int], Iterator[Row]]

    def sample(self, row: Row) -> Sample:
        """Raises ValueError, with one sentence, for a row that cannot be used."""
        if isinstance(row.raw, ValueError):
            raise row.raw
        try:
            return in_one_turn(self.convert(row.raw, row.id, row.folder))
        except Exception as error:  # of many libraries: nothing that one row holds may end a build
            raise ValueError(data.problem_of(error)) from None


def open_source(path: str | Path) -> Source:
    """Raises FileNotFoundError or ValueError, in one sentence, where nothing can be read."""
    where = Path(path)
    if not where.exists() and not where.suffix and str(path).count("/") == 1 and not where.parent.exists():
        return _streamed(str(path))
    if where.is_dir() and (where / "records.jsonl").is_file():
        return _source(path, Lines([where / "records.jsonl"]), ANSWERS, _from_record)
    rows = open_rows(path, {*data.COLUMNS, *OTHER_COLUMNS, *(c for needs, _ in SCHEMAS.values() for c in needs)})
    if isinstance(rows, Parquet):
        return _source(path, rows, *rows.kind(schema_of))
    if rows.files[0].name == "MANIFEST.jsonl":
        return _source(path, rows, "manifest", data._from_manifest)
    first = [row for row in (_row(rows, i) for i in range(min(len(rows), 100))) if isinstance(row, dict)]
    known = [set(row) for row in first if any(needs <= set(row) for needs, _ in SCHEMAS.values())]
    return _source(path, rows, *schema_of((known or [set(row) for row in first] or [set()])[0], path))


def _row(reader: Lines | Parquet, index: int) -> dict | ValueError:
    try:
        return reader[index]
    except (ValueError, OSError) as error:
        return ValueError(str(error))


def _source(path, reader: Lines | Parquet, schema: str, convert: Callable) -> Source:
    def rows(start: int) -> Iterator[Row]:
        for index in range(start, len(reader)):
            yield Row(*reader.place(index), _row(reader, index))

    return Source(str(path), schema, convert, len(reader), rows)


def _streamed(path: str) -> Source:
    """A data set of the hub, which is downloaded as it is read: only the rows in hand are held."""
    import datasets
    from huggingface_hub import HfApi

    name, _, split = path.partition(":")
    try:
        HfApi().dataset_info(name, timeout=10)  # `datasets` tries for minutes
        stream = datasets.load_dataset(name, split=split or "train", streaming=True)
        stream = stream.decode(False) if stream.features else stream  # pictures stay bytes
        first = next(iter(stream))
    except StopIteration:
        raise ValueError(f"{path} has no rows") from None
    except Exception as error:  # of many libraries: network, formats, permissions
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} is no file or folder here, and cannot be read from the hub: {said[:200]}. Where there is a "
            f"network: hf download --repo-type dataset {name} --local-dir FOLDER"
        ) from None
    schema, convert = schema_of(set(first), path)

    def rows(start: int) -> Iterator[Row]:
        stem = Path(name).stem
        for number, raw in enumerate(stream.skip(start), start):
            yield Row(f"{stem} row {number}", f"{stem}-{number}", Path("."), raw)

    return Source(path, schema, convert, None, rows)
