"""The benchmarks as samples: readers of the layouts they are published in, and `synthetic-5`, which is made here.

Nothing is downloaded: give the folder or the files that you fetched. A benchmark's samples have its name for domain, so
that tables show one row for each; synthetic-5 has the five domains themselves.

Rows are read when they are asked for; pictures are decoded one at a time.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import synth
from data import Sample, extract_code, fenced
from files import Parquet, split_of
from languages.protocol import PICTURES
from pictures import read_picture

MAX_FILES, MAX_FILE = 64, 8 << 20  # pictures that pages are given, and bytes of each
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
    """What one is published as. columns: of a table, where the picture, the program and the id may stand."""

    family: str
    language: str
    """Of the answers."""
    suffix: str
    layout: str
    images: tuple[str, ...] = ("image", "images", "image_path", "file_name")
    codes: tuple[str, ...] = ("code", "text", "answer")
    pairs: bool = False
    """Programs with their pictures beside them, rather than tables."""
    subsets: dict[str, str] = field(default_factory=dict)
    """Name of a subset -> the folders or tables that belong to it, as a regular expression; the first one that is
    there is read where none is asked for."""
    split: str = "test"
    """Of a table's, read where its files name several."""
    task: str = ""
    """The type of rows that are pictures to be drawn, where rows say theirs."""
    pictures: tuple[str, ...] = ()
    """Files of its folder that its pages show."""


def each(*names: str) -> dict[str, str]:
    return {name: name for name in names}


SVG_SETS = [f"svg-{kind}{simple}" for simple in ("", "-simple") for kind in ("stack", "fonts", "icons", "emoji")]
BENCHMARKS = {
    "chartmimic": Benchmark(
        "chart",
        "python",
        ".py",
        "direct_600/NAME.py and NAME.png, also direct_1800, customized_600, customized_1800",
        pairs=True,
        subsets={"direct": r"direct(_\d+)?|ori_\d+", "customized": r"customized(_\d+)?"},  # ori_500: of 2024
    ),
    "plot2code": Benchmark(
        "chart",
        "python",
        ".py",
        "data/python_matplotlib/test/metadata.jsonl {file_name, code} with its pictures, also data/python_plotly",
        subsets={"python": r"python_\w+"},  # r_plotly is left out: nothing here draws R
    ),
    "unisvg": Benchmark(
        "svg",
        "svg",
        ".svg",
        "test.json {image_path, a_text, type} with the folder png",
        ("image_path", "image", "images"),
        ("a_text", "Svg", "svg"),
        task="ISVGEN",
    ),
    "svg-bench": Benchmark(
        "svg",
        "svg",
        ".svg",
        "svg-stack/data/test-*.parquet {Filename, Svg}, also svg-fonts, svg-icons, svg-emoji, svg-diagrams",
        ("image", "images"),
        ("Svg", "svg"),
        subsets=each(*SVG_SETS, "svg-diagrams", "FIGR-SVG"),
    ),
    "design2code": Benchmark(
        "html", "html", ".html", "N.html and N.png with rick.jpg", pairs=True, pictures=("rick.jpg",)
    ),
    "webcode2m": Benchmark(
        "html",
        "html",
        ".html",
        "short.parquet, mid.parquet, long.parquet {image, text}",
        ("image",),
        ("text", "html"),
        subsets={"all": "short|mid|long"},
    ),
    "image2latex": Benchmark(
        "latex",
        "latex",
        ".tex",
        "plot/validation-*.parquet {image, text, uuid}, also equation, table, algorithm, wild",
        ("image",),
        ("text", "structure", "code"),
        subsets=each("plot", "equation", "table", "algorithm", "wild", "wild_legacy"),  # VinciCoder reports plot
        split="validation",
    ),
    "chemdraw": Benchmark(
        "molecule",
        "python",
        ".py",
        "a table {image, code} or {image, smiles}",
        codes=("code", "answer", "smiles", "SMILES"),
    ),
}
IDS = ("id", "Filename", "uuid", "instance_name", "image_path", "file_name")
SYNTHETIC, SYNTHETIC_SEED, SYNTHETIC_COUNT, DIFFICULTY = "synthetic-5", 5_000_005, 500, 0.3
DRAWN = """from rdkit import Chem
from rdkit.Chem import Draw
Draw.MolToFile(Chem.MolFromSmiles({smiles!r}), "molecule.png")
"""


@dataclass(eq=False)
class Targets(Sequence):
    """samples[i] is built when it is asked for. Raises ValueError, with the row's place, if it is broken.

    ids: of all. about: which part of a benchmark this is, and what else is there, in one line."""

    ids: Sequence[str]
    build: Callable[[int], Sample]
    about: str

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.build(index)


def load(names: Sequence[str], root: str | Path, limit: int | None = None) -> tuple[Iterator[Sample], list[Targets]]:
    """(the samples of benchmarks, one benchmark after the other, `limit` of each; all targets of each; names as in
    `named`). Raises ValueError or FileNotFoundError, in one sentence, for a name or a place that holds nothing."""
    targets = [one(*part) for part in named(names, root)]
    return (every[i] for every in targets for i in range(len(every))[: limit or None]), targets


def pictures(names: Sequence[str], root: str | Path) -> list[Path]:
    """The files that pages of these benchmarks show (names as in `named`), for the renderer; one that is not there is
    named."""
    found = []
    for name, _, place in named(names, root):
        for wanted in BENCHMARKS[name].pictures if name in BENCHMARKS and place.is_dir() else ():
            here = sorted(place.rglob(wanted))[:1]
            found += here
            if not here:
                print(f"{place} lacks {wanted}, which its pages show for every picture: put it there.", file=sys.stderr)
    return found


def pictures_beside(files: Sequence[Path]) -> dict[str, str]:
    """{name: where it is} of pictures for web pages, as a Renderer takes them. Raises ValueError for what cannot be
    served."""
    found: dict[str, str] = {}
    for path in map(Path, files):
        kind, place = path.suffix.lower(), path.resolve()
        if kind not in PICTURES or not re.fullmatch(r"[\w.-]+", path.name, re.ASCII) or not place.is_file():
            kinds = " ".join(PICTURES)
            raise ValueError(f"{path} is no picture that pages could show; plain names that end in {kinds} are.")
        if place.stat().st_size > MAX_FILE:
            raise ValueError(f"{path} has more than {MAX_FILE >> 20} MiB; give pages a smaller picture.")
        other = found.setdefault(path.name, str(place))
        if Path(other).read_bytes() != place.read_bytes():
            raise ValueError(f"{path} and {other} are different pictures of one name; evaluate them in two runs.")
    if len(found) > MAX_FILES:
        raise ValueError(f"Pages may be given {MAX_FILES} pictures at most, not {len(found)}.")
    return found


def named(names: Sequence[str], root: str | Path) -> Iterator[tuple[str, str, Path]]:
    """(benchmark, subset or "", where it is) of each name. A name stands alone (the files are in ROOT/NAME), or is
    NAME=PATH; NAME/SUBSET is one of its subsets. Names may be joined by commas."""
    for part in (part for name in names for part in name.split(",") if part):
        name, _, path = part.partition("=")
        name, _, subset = name.partition("/")
        yield name, subset, Path(path or Path(root) / name)


def one(name: str, subset: str, place: Path) -> Targets:
    if name == SYNTHETIC and not subset:
        return synthetic()
    if name not in BENCHMARKS:
        known = ", ".join([*BENCHMARKS, SYNTHETIC])
        raise ValueError(f"There is no benchmark {name!r}: choose among {known}.")
    if not place.exists():
        raise FileNotFoundError(
            f"{place} does not exist; put {name} there ({BENCHMARKS[name].layout}) or give {name}=PATH."
        )
    return read(name, place, subset)


def synthetic(total: int = SYNTHETIC_COUNT, difficulty: float = DIFFICULTY) -> Targets:
    """The five domains in turn, from a seed that is kept for this; pictures are drawn when they are evaluated."""
    make = lambda i: synth.make(synth.DOMAINS[i % 5], i // 5, SYNTHETIC_SEED, difficulty)  # noqa: E731
    ids = [synth.name_of(synth.DOMAINS[i % 5], i // 5, SYNTHETIC_SEED, difficulty) for i in range(total)]
    return Targets(ids, make, f"{SYNTHETIC}: {total} targets, made here")


# --------------------------------------------------------------------------------------------------- published layouts
def read(name: str, place: Path, asked: str = "") -> Targets:
    """The subset `asked` of a published folder, or the first that is there; or one table."""
    benchmark = BENCHMARKS[name]
    files = published_files(name, benchmark, place)
    chosen, says, left_out = choose(name, benchmark, place, files, asked)
    domain = f"{name}/{asked}" if asked else name
    if files[0].suffix == benchmark.suffix:
        ids = [f"{name}/{path.relative_to(place).with_suffix('').as_posix()}" for path in chosen]
        build = lambda i: from_pair(ids[i], domain, benchmark, chosen[i])  # noqa: E731
    else:
        rows, others = table_rows(benchmark, place, chosen)
        if not rows:
            raise ValueError(f"{chosen[0]} has no rows{f' of type {benchmark.task}' if others else ''}; get it again.")
        left_out += [f"{n} rows of type {kind}" for kind, n in others.items()]
        ids = distinct(f"{name}/{'/'.join(filter(None, (row.subset, row.id)))}" for row in rows)
        build = lambda i: from_row(ids[i], domain, benchmark, rows[i])  # noqa: E731
    about = f"{domain}: {', '.join([*says, f'{len(ids)} targets'])}"
    return Targets(ids, build, about + (f"; not read: {', '.join(left_out)}" if left_out else ""))


def published_files(name: str, benchmark: Benchmark, place: Path) -> list[Path]:
    """`place` itself, or its files of the kind that the benchmark comes as, or else of another that can be read."""
    if place.is_file():
        return [place]
    there = [file for file in place.rglob("*") if not any(p.startswith(".") for p in file.relative_to(place).parts)]
    tables = [(".parquet",), (".json", ".jsonl")]
    for suffixes in [(benchmark.suffix,), *tables] if benchmark.pairs else [*tables, (benchmark.suffix,)]:
        if files := sorted((file for file in there if file.suffix in suffixes and file.is_file()), key=natural):
            return files
    raise ValueError(f"{place} holds neither *{benchmark.suffix} nor a table; {name} comes as {benchmark.layout}.")


def natural(path: Path) -> list:
    """2.html before 10.html."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def subset_of(benchmark: Benchmark, file: Path, place: Path) -> tuple[str, str]:
    """(a subset of the benchmark, the folder or table whose name says so), nothing where none does."""
    inside = file.relative_to(place.parent)
    stem = () if file.suffix == benchmark.suffix else (file.stem,)
    for part in (*stem, *reversed(inside.parent.parts)):
        for subset, pattern in benchmark.subsets.items():
            if re.fullmatch(pattern, part):
                return subset, part
    return "", ""


def choose(
    name: str, benchmark: Benchmark, place: Path, files: Sequence[Path], asked: str
) -> tuple[list[Path], list[str], list[str]]:
    """(the files of the subset `asked`, or of the first in the benchmark's order, and of one split; what they are
    called; what the others are called). Raises ValueError for a subset that is not there, and says what is."""
    of = {file: subset_of(benchmark, file, place) for file in files}
    parts = dict.fromkeys(part for _, part in of.values() if part)
    there = {subset for subset, _ in of.values()}
    subset = asked or next((subset for subset in benchmark.subsets if subset in there), "")
    chosen = [file for file in files if asked in of[file]] if asked else [f for f in files if of[f][0] == subset]
    if not chosen:
        says = f"it holds {', '.join(parts)}" if parts else "it holds no subsets"
        raise ValueError(f"{place} holds no {name}/{asked}; {says}; {name} comes as {benchmark.layout}.")
    read = dict.fromkeys(of[file][1] for file in chosen if of[file][1])
    says = [f"{subset} ({', '.join(read)})" if [*read] != [subset] else subset] if read else []
    left_out = [f"{part} ({name}/{part}=FOLDER)" for part in parts if part not in read]
    left_out += [str(file.relative_to(place)) for file in files if parts and not of[file][1]][:3]
    if files[0].suffix == benchmark.suffix:
        return chosen, says, left_out
    splits: dict[str | None, list[Path]] = {}
    for file in chosen:
        splits.setdefault(split_of(file.relative_to(place)) if file != place else None, []).append(file)
    split = next(split for split in (benchmark.split, "test", "validation", None, "train") if split in splits)
    left_out += [f"the split {other}" if other else "what has no split" for other in splits if other != split]
    return splits[split], says + ([f"split {split}"] if split else []), left_out


# ---------------------------------------------------------------------------------------------------------------- rows
@dataclass
class Row:
    """One of a table's, read when its `content` is asked for."""

    table: Sequence[dict]
    index: int
    folder: Path
    """What paths of pictures are relative to."""
    subset: str
    id: str

    @property
    def content(self) -> dict:
        return self.table[self.index]


def table_rows(benchmark: Benchmark, place: Path, files: Sequence[Path]) -> tuple[list[Row], Counter]:
    """(the rows of these files, how many were left out by type: a benchmark's other tasks)."""
    rows, others, numbers = [], Counter(), Counter()
    tables = [(file, *open_table(file)) for file in files]
    wanted = {*benchmark.images, *benchmark.codes}
    foreign = [wanted.isdisjoint(columns) for *_, columns in tables]  # settings, or a description of the data
    for (file, table, heads, _), is_foreign in zip(tables, foreign, strict=True):
        if is_foreign and not all(foreign):
            continue
        subset = subset_of(benchmark, file, place)[1]
        for index, head in enumerate(heads):
            if benchmark.task and head.get("type", benchmark.task) != benchmark.task:
                others[head["type"]] += 1
                continue
            id = next((str(head[c]) for c in IDS if isinstance(head.get(c), str | int) and head[c] != ""), None)
            id = str(numbers[subset]) if id is None else id.strip("\"' ")  # i2s-latex has quotes in its text
            rows.append(Row(table, index, file.parent, subset, id))
            numbers[subset] += 1
    return rows, others


def open_table(file: Path) -> tuple[Sequence[dict], Sequence[dict], set[str]]:
    """(its rows, of each row what says who it is, the columns); no picture is decoded."""
    if file.suffix != ".parquet":
        rows = json_rows(file)
        return rows, rows, set().union(*rows)
    rows, names = Parquet([file]), {*IDS, "type"}
    (columns,) = rows.columns
    heads = list(Parquet([file], columns=names)) if names & columns else [{}] * len(rows)
    return rows, heads, columns


def json_rows(path: Path) -> list[dict]:
    content = path.read_text(encoding="utf-8")
    try:
        rows = [json.loads(line) for line in content.splitlines() if line.strip()] if path.suffix == ".jsonl" else None
        rows = json.loads(content) if rows is None else rows
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); download it again.") from None
    rows = list(rows.values()) if isinstance(rows, dict) else rows
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def distinct(ids: Iterable[str]) -> list[str]:
    """The second row about one picture is PICTURE#2."""
    seen, different = Counter(), []
    for id in ids:
        seen[id] += 1
        different.append(f"{id}#{seen[id]}" if seen[id] > 1 else id)
    return different


def from_pair(id: str, domain: str, benchmark: Benchmark, path: Path) -> Sample:
    """A program with its picture beside it; without one the picture is drawn from the program."""
    picture = next((p for s in (".png", ".jpg", ".jpeg", ".webp") if (p := path.with_suffix(s)).is_file()), None)
    image = read_picture(str(picture.resolve()), Path("/")) if picture else None
    code = path.read_text(encoding="utf-8", errors="replace")
    return Sample(id, domain, benchmark.language, image, prompt_of(benchmark), code)


def from_row(id: str, domain: str, benchmark: Benchmark, row: Row) -> Sample:
    content = row.content

    def first(columns):
        return next((content[c] for c in columns if content.get(c) not in (None, "", [])), None)

    code, picture = first(benchmark.codes), first(benchmark.images)
    if code is None and picture is None:
        wanted = f"{' or '.join(benchmark.images)}, and {' or '.join(benchmark.codes)}"
        raise ValueError(f"Row {row.index} of {domain} has the columns {', '.join(content)}, but none of {wanted}.")
    if isinstance(code, str):
        code = extract_code(code, benchmark.language) or code
        if benchmark.family == "svg" and (found := re.search(r"(?s)<svg.*</svg>", code)):
            code = found[0]
        if benchmark.family == "molecule" and not content.get("code") and not re.search(r"\bimport\b", code):
            code = DRAWN.format(smiles=code)
    try:
        image = read_picture(picture, folder_of(picture, row.folder)) if picture is not None else None
    except ValueError as error:
        raise ValueError(f"{id}: {error}") from None
    return Sample(id, domain, benchmark.language, image, prompt_of(benchmark), code)


def folder_of(picture, folder: Path) -> Path:
    """What the path of a picture is relative to: its table's folder, or one in there (UniSVG's png)."""
    if isinstance(picture, str) and len(picture) < 256 and not (folder / picture).is_file():
        return next((f for f in sorted(folder.glob("*/")) if (f / picture).is_file()), folder)
    return folder


def prompt_of(benchmark: Benchmark) -> str:
    return PROMPTS[benchmark.family] + FENCE.format(language=benchmark.language)


def perfect_answer(sample: Sample) -> str:
    """The reference as an answer: what a model without a flaw would say."""
    return fenced(sample.code, sample.language)
