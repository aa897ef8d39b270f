"""Rows of any source, one after the other, from any place in it: for building a corpus, where nothing is read twice.

A source is what data.load reads, a folder of eval.py (its answers become drafts), or rows of the sets that VinciCoder
collected, in their own columns: .json, .jsonl or .parquet files, or a hub name, read through `datasets`, streaming.

A broken row comes as the ValueError that names what is wrong; only a source of which nothing can be read raises.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import data
from corpus.files import parquet_footers
from corpus.pictures import read_picture
from data import Lines, Sample
from prompts import ALIASES, LANGUAGES, blocks, direct_prompt, domain_of, fenced

ANSWERS = "answers of eval.py"
BATCH = 64  # rows of a parquet file decoded at a time


def _direct(id: str, language: str, domain: str, code: str, image, folder: Path) -> Sample:
    """A direct task from a source that has no prompt of its own."""
    rng = np.random.default_rng(zlib.crc32(id.encode()))  # the same prompt whoever reads it
    picture = read_picture(image, folder) if image else None
    return Sample(id, domain, language, picture, direct_prompt(language, domain, rng), code)


def _text(row: dict, column: str) -> str:
    return data._text(row, column)


def _from_webcode2m(row: dict, id: str, folder: Path) -> Sample:
    return _direct(str(row.get("hash") or id), "html", "html", _text(row, "text"), row["image"], folder)


def _from_unisvg(row: dict, id: str, folder: Path) -> Sample:
    """Its answers are bare svg, or svg in a fence; `image_path` is relative to the json file."""
    answer = _text(row, "a_text")
    codes = [code for tag, code in blocks(answer) if tag in ("svg", "xml", "")]
    code = codes[-1] if codes else answer[answer.find("<svg") :] if "<svg" in answer else None
    if not code:
        raise ValueError("column a_text holds no svg")
    return _direct(str(row.get("id") or id), "svg", "svg", code, row["image_path"], folder)


def _from_svg_stack(row: dict, id: str, folder: Path) -> Sample:
    return _direct(str(row.get("Filename") or id), "svg", "svg", _text(row, "Svg"), None, folder)


def _from_datikz(row: dict, id: str, folder: Path) -> Sample:
    return _direct(str(row.get("uri") or id), "latex", "latex", _text(row, "code"), row["image"], folder)


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
    return _direct(str(row.get("id") or id), language, domain_of(language, code), code, row["image"], folder)


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
    if not data.mentions(user.lower()):
        user += f"\nAnswer with {blocks(answer)[-1][0] or 'python'} code."
    return data._sample(row, str(row.get("id") or id), user, answer, image, strict=True)


def _from_record(row: dict, id: str, folder: Path) -> Sample:
    """An answer of eval.py, as the draft of a refinement task."""
    sample = Sample(**row["sample"])
    if not row.get("code"):
        raise ValueError("the answer has no code to refine")
    if not sample.code:
        raise ValueError(f"{sample.id}: its target has no code; refinement rows need the right answer")
    rng = np.random.default_rng(zlib.crc32(f"{sample.id}#{row['index']}".encode()))
    sample.image, sample.id = read_picture(sample.image, folder), f"{sample.id}#{row['index']}"
    sample.prompt, sample.draft = data.refine_prompt(sample.language, row["code"], rng), row["code"]
    return sample


SCHEMAS = {  # name -> (columns that tell it, row -> sample)
    "SFT": ({"user_content", "assistant_content", "image"}, data._from_sft),
    "EasyR1": ({"problem", "images"}, data._from_easyr1),
    "ms-swift": ({"messages", "images"}, data._from_swift),
    "WebCode2M": ({"image", "text", "bbox"}, _from_webcode2m),
    "UniSVG": ({"q_text", "a_text", "image_path"}, _from_unisvg),
    "svg-stack": ({"Filename", "Svg"}, _from_svg_stack),
    "DaTikZ": ({"code", "image", "caption"}, _from_datikz),
    "Chart2Code or MCD": ({"conversations", "image"}, _from_chat),
    "CoSyn": ({"code", "image"}, _from_cosyn),
}


def schema_of(columns: set[str], path) -> tuple[str, Callable]:
    for name, (needs, convert) in SCHEMAS.items():
        if needs <= columns:
            return name, convert
    known = "; ".join(f"{name}: {', '.join(sorted(needs))}" for name, (needs, _) in SCHEMAS.items())
    raise ValueError(f"{path} has the columns {', '.join(sorted(columns))}, which is no known schema ({known})")


@dataclass
class Row:
    """place: for people. id: for the corpus. raw: the row, or what is wrong with it."""

    place: str
    id: str
    raw: dict | ValueError


@dataclass
class Source:
    """path: file, folder or hub name. schema: its name. total: rows, None if unknown. rows(start): from there on."""

    path: str
    schema: str
    convert: Callable[[dict, str, Path], Sample]
    folder: Path
    total: int | None
    rows: Callable[[int], Iterator[Row]]

    def sample(self, row: Row) -> Sample:
        """Raises ValueError, with one sentence, for a row that cannot be used."""
        if isinstance(row.raw, ValueError):
            raise row.raw
        try:
            return self.convert(row.raw, row.id, self.folder)
        except KeyError as missing:
            raise ValueError(f"column {missing} is missing") from None
        except (TypeError, AttributeError) as error:
            raise ValueError(f"a column holds something of the wrong type ({error})") from None


def open_source(path: str | Path) -> Source:
    """Raises FileNotFoundError or ValueError, in one sentence, where nothing can be read."""
    where = Path(path)
    if not where.exists():
        if where.suffix or str(path).count("/") != 1:
            raise FileNotFoundError(f"{path} does not exist; give a file, a folder, or a hub name such as owner/name")
        return _streamed(str(path), Path("."), {"path": str(path)})
    if where.is_dir() and (where / "records.jsonl").is_file():
        return _lines(path, where / "records.jsonl", ANSWERS, _from_record)
    if where.is_dir() and (where / "MANIFEST.jsonl").is_file():
        return _lines(path, where / "MANIFEST.jsonl", "manifest", data._from_manifest)
    if where.suffix == ".jsonl":
        lines = Lines(where)
        rows = [row for row in (_line(lines, i) for i in range(min(len(lines), 100))) if isinstance(row, dict)]
        known = [set(row) for row in rows if any(needs <= set(row) for needs, _ in SCHEMAS.values())]
        name, convert = schema_of((known or [set(row) for row in rows] or [set()])[0], path)
        return _lines(path, where, name, convert)
    parquets = sorted(where.rglob("*.parquet")) if where.is_dir() else [where] if where.suffix == ".parquet" else []
    if parquets:
        return _parquet(path, parquets)
    if where.suffix == ".json":
        return _streamed(str(path), where.parent, {"path": "json", "data_files": str(where)})
    raise ValueError(f"{path} holds no data set; give .parquet, .jsonl, .json, or a folder with MANIFEST.jsonl")


def _line(lines: Lines, index: int) -> dict | ValueError:
    try:
        return lines[index]
    except ValueError as error:  # also of JSON, and of UTF-8
        return ValueError(str(error))


def _lines(path, file: Path, schema: str, convert: Callable) -> Source:
    lines = Lines(file)

    def rows(start: int) -> Iterator[Row]:
        for index in range(start, len(lines)):
            place, id = lines.place(index)
            yield Row(place, id, _line(lines, index))

    return Source(str(path), schema, convert, file.parent, len(lines), rows)


def _parquet(path, files: list[Path]) -> Source:
    """Straight from the row groups, so that starting in the middle costs nothing and no copy is made on disk."""
    columns, footers = parquet_footers(path, files)
    counts = [footer.num_rows for footer in footers]
    schema, convert = schema_of(columns, path)
    needed = sorted(columns & {*SCHEMAS[schema][0], "answer", "id", "domain", "language", "hash", "uri"})

    def rows(start: int) -> Iterator[Row]:
        for file, count in zip(files, counts, strict=True):
            if start < count:
                for number, raw in _parquet_rows(file, needed, start):
                    yield Row(f"{file.name} row {number}", f"{file.stem}-{number}", raw)
            start = max(0, start - count)

    return Source(str(path), schema, convert, files[0].parent, sum(counts), rows)


def _parquet_rows(file: Path, columns: list[str], start: int) -> Iterator[tuple[int, dict | ValueError]]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as parquet:
        number = 0
        for group in range(parquet.num_row_groups):
            size = parquet.metadata.row_group(group).num_rows
            if number + size <= start:
                number += size
                continue
            for batch in parquet.iter_batches(BATCH, row_groups=[group], columns=columns):
                for index in range(batch.num_rows):
                    if number >= start:
                        yield number, _arrow_row(batch, index)
                    number += 1


def _arrow_row(batch, index: int) -> dict | ValueError:
    """One row alone, so that text that is no UTF-8 spoils no other."""
    try:
        return {name: batch.column(name)[index].as_py() for name in batch.schema.names}
    except (UnicodeDecodeError, ValueError) as error:
        return ValueError(f"holds text that is not UTF-8 ({error})")


def _streamed(path: str, folder: Path, arguments: dict) -> Source:
    """Anything that `datasets` streams: only the rows in hand are held. A hub name is downloaded as it is read."""
    import datasets

    try:
        stream = datasets.load_dataset(**arguments, split="train", streaming=True)
        stream = stream.decode(False) if stream.features else stream  # pictures stay bytes
        first = next(iter(stream))
    except StopIteration:
        raise ValueError(f"{path} has no rows") from None
    except Exception as error:  # of many libraries: network, formats, permissions
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} cannot be read through `datasets`: {said[:200]}") from None
    schema, convert = schema_of(set(first), path)

    def rows(start: int) -> Iterator[Row]:
        stem = Path(path).stem
        for number, raw in enumerate(stream.skip(start), start):
            yield Row(f"{stem} row {number}", f"{stem}-{number}", raw)

    return Source(path, schema, convert, folder, None, rows)
