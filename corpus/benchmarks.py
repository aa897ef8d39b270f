"""The benchmarks as samples: readers of the layouts they are published in, and `synthetic-5`, which is made here.

Nothing is downloaded: give the folder or the files that you fetched. A benchmark's samples have its name for domain, so
that tables show one row for each; synthetic-5 has the five domains themselves.

Rows are read when they are asked for; pictures are decoded one at a time.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import synth
from corpus.files import Parquet, files_of_split, split_of
from corpus.pictures import read_picture
from data import Sample, extract_code, fenced

FENCE = "Answer with one fenced block: ```{language}."
PROMPTS = {  # what the benchmarks ask; the fence is asked for where they do not
    "chart": "You are an expert Python developer who specializes in writing matplotlib code based on a given picture. "
    "Now, please give me the matplotlib code that reproduces the picture. ",
    "html": "You are an expert web developer. Write a single HTML file with CSS that reproduces this screenshot; use "
    '"rick.jpg" in place of every image, and no external files. ',
    "svg": "Generate the SVG code for the icon in this image. ",
    "latex": "Please provide the LaTeX code used to generate this image. Only generate the code relevant to what you "
    "see. ",
    "molecule": "Please generate the Python code (rdkit) to draw the chemical molecules in the picture. ",
}


@dataclass(frozen=True)
class Benchmark:
    """language: of the answers. columns: of a table, where the picture, the program and the id may stand."""

    family: str
    language: str
    suffix: str
    images: tuple[str, ...] = ("image", "images", "image_path", "file_name")
    codes: tuple[str, ...] = ("code", "text", "answer")
    layout: str = ""
    pictures: tuple[str, ...] = ()
    """Files of its folder that its pages show."""


BENCHMARKS = {
    "chartmimic": Benchmark("chart", "python", ".py", layout="direct_600/NAME.py with NAME.png or NAME.pdf"),
    "plot2code": Benchmark("chart", "python", ".py", layout="metadata.jsonl {file_name, code} or parquet"),
    "unisvg": Benchmark(
        "svg", "svg", ".svg", ("image_path", "image", "images"), ("a_text", "Svg", "svg"), "json {a_text, image_path}"
    ),
    "svg-bench": Benchmark("svg", "svg", ".svg", ("image", "images"), ("Svg", "svg"), "parquet {Filename, Svg}"),
    "design2code": Benchmark("html", "html", ".html", layout="N.html with N.png", pictures=("rick.jpg",)),
    "webcode2m": Benchmark("html", "html", ".html", ("image",), ("text", "html"), "parquet {image, text}"),
    "image2latex": Benchmark("latex", "latex", ".tex", ("image",), ("text", "code"), "parquet {image, text}"),
    "chemdraw": Benchmark("molecule", "python", ".py", codes=("code", "answer", "smiles", "SMILES"), layout="a table"),
}
IDS = ("id", "Filename", "uuid", "instance_name", "image_path", "file_name")
SYNTHETIC, SYNTHETIC_SEED, SYNTHETIC_COUNT, DIFFICULTY = "synthetic-5", 5_000_005, 500, 0.3
DRAWN = """from rdkit import Chem
from rdkit.Chem import Draw
Draw.MolToFile(Chem.MolFromSmiles({smiles!r}), "molecule.png")
"""


@dataclass(eq=False)
class Targets(Sequence):
    """samples[i] is built when it is asked for. Raises ValueError, with the row's place, if it is broken."""

    size: int
    build: Callable[[int], Sample]

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self.build(index)


def load(names: Sequence[str], root: str | Path, limit: int | None = None) -> tuple[Iterator[Sample], int]:
    """(the samples of benchmarks, one benchmark after the other, `limit` of each; their number). Raises ValueError or
    FileNotFoundError, in one sentence, for a name or a place that holds nothing.

    A name stands alone (the files are in ROOT/NAME), or is NAME=PATH; names may be joined by commas."""
    parts = [part for name in names for part in name.split(",") if part]
    targets = [one(*part.partition("=")[::2], root) for part in parts]
    sizes = [min(len(every), limit or len(every)) for every in targets]
    return (every[i] for every, size in zip(targets, sizes, strict=True) for i in range(size)), sum(sizes)


def pictures(names: Sequence[str], root: str | Path) -> list[Path]:
    """The files that pages of these benchmarks show (names as in `load`), for the renderer; one that is not there is
    named."""
    found = []
    for name, _, path in (part.partition("=") for names_ in names for part in names_.split(",") if part):
        benchmark, place = BENCHMARKS.get(name.partition("/")[0]), Path(path or Path(root) / name)
        for wanted in benchmark.pictures if benchmark and place.is_dir() else ():
            here = sorted(place.rglob(wanted))[:1]
            found += here
            if not here:
                print(f"{place} lacks {wanted}, which its pages show for every picture: put it there.", file=sys.stderr)
    return found


def one(name: str, path: str, root: str | Path) -> Targets:
    if name == SYNTHETIC:
        return synthetic()
    if name not in BENCHMARKS:
        known = ", ".join([*BENCHMARKS, SYNTHETIC])
        raise ValueError(f"There is no benchmark {name!r}: choose among {known}.")
    place = Path(path or Path(root) / name)
    if not place.exists():
        raise FileNotFoundError(
            f"{place} does not exist; put {name} there ({BENCHMARKS[name].layout}) or give {name}=PATH."
        )
    return read(name, place)


def synthetic(total: int = SYNTHETIC_COUNT, difficulty: float = DIFFICULTY) -> Targets:
    """The five domains in turn, from a seed that is kept for this; pictures are drawn when they are evaluated."""
    domains = synth.DOMAINS
    return Targets(total, lambda i: synth.make(domains[i % 5], i // 5, SYNTHETIC_SEED, difficulty))


def read(name: str, place: Path) -> Targets:
    """A published folder or table of a benchmark."""
    benchmark = BENCHMARKS[name]
    tables = [place] if place.is_file() else sorted(place.rglob("*.parquet"))
    if not tables and place.is_dir():
        tables = [p for p in sorted(place.rglob("*.json*")) if p.suffix in (".json", ".jsonl")][:1]
    pairs = [] if place.is_file() else sorted(place.rglob(f"*{benchmark.suffix}"), key=natural)
    if pairs:
        return Targets(len(pairs), lambda i: from_pair(name, benchmark, pairs[i], place))
    if not tables:
        raise ValueError(f"{place} holds neither *{benchmark.suffix} nor a table; {name} comes as {benchmark.layout}.")
    if "test" in {split_of(table.relative_to(place)) for table in tables if table != place}:
        tables = files_of_split(tables, place, "test")
    rows = Parquet(tables) if tables[0].suffix == ".parquet" else json_rows(tables[0])
    if not len(rows):
        raise ValueError(f"{tables[0]} has no rows; download it again.")
    return Targets(len(rows), lambda i: from_row(name, benchmark, rows[i], i, tables[0].parent))


def natural(path: Path) -> list:
    """2.html before 10.html."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def json_rows(path: Path) -> list[dict]:
    content = path.read_text(encoding="utf-8")
    try:
        rows = [json.loads(line) for line in content.splitlines() if line.strip()] if path.suffix == ".jsonl" else None
        rows = json.loads(content) if rows is None else rows
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); download it again.") from None
    rows = list(rows.values()) if isinstance(rows, dict) else rows
    return [row for row in rows if isinstance(row, dict)]


def from_pair(name: str, benchmark: Benchmark, path: Path, place: Path) -> Sample:
    """A program with its picture beside it; without one the picture is drawn from the program."""
    picture = next((p for s in (".png", ".jpg", ".jpeg", ".webp") if (p := path.with_suffix(s)).is_file()), None)
    image = read_picture(str(picture.resolve()), Path("/")) if picture else None
    id = f"{name}/{path.relative_to(place).with_suffix('').as_posix()}"
    code = path.read_text(encoding="utf-8", errors="replace")
    return Sample(id, name, benchmark.language, image, prompt_of(benchmark), code)


def from_row(name: str, benchmark: Benchmark, row: dict, index: int, folder: Path) -> Sample:
    def first(columns):
        return next((row[c] for c in columns if row.get(c) not in (None, "", [])), None)

    code, picture = first(benchmark.codes), first(benchmark.images)
    picture = picture[0] if isinstance(picture, list) else picture
    if code is None and picture is None:
        wanted = f"{' or '.join(benchmark.images)}, and {' or '.join(benchmark.codes)}"
        raise ValueError(f"Row {index} of {name} has the columns {', '.join(row)}, but none of {wanted}.")
    if isinstance(code, str):
        code = extract_code(code, benchmark.language) or code
        if benchmark.family == "svg" and (found := re.search(r"(?s)<svg.*</svg>", code)):
            code = found[0]
        if benchmark.family == "molecule" and not row.get("code") and not re.search(r"\bimport\b", code):
            code = DRAWN.format(smiles=code)
    image = read_picture(picture, folder) if picture is not None else None
    id = str(first(IDS) if isinstance(first(IDS), str | int) else index)
    return Sample(f"{name}/{id}", name, benchmark.language, image, prompt_of(benchmark), code)


def prompt_of(benchmark: Benchmark) -> str:
    return PROMPTS[benchmark.family] + FENCE.format(language=benchmark.language)


def perfect_answer(sample: Sample) -> str:
    """The reference as an answer: what a model without a flaw would say."""
    return fenced(sample.code, sample.language)
