"""From finished chunks to the corpus: leave out duplicates, balance, write shards, the card and the contact sheet.

Reads the small columns of all chunks once, in order, and decides row by row; then each shard is written from its list
of rows. Memory: some 500 bytes a row. Everything is a pure function of the chunks and the options.
"""

import hashlib
import io
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pyarrow
import pyarrow.parquet
from PIL import Image
from tqdm import tqdm

from corpus.card import write_card
from corpus.checks import pieces
from corpus.drawn import check
from corpus.duplicates import Fingerprint, Index, fingerprint
from corpus.options import Options
from corpus.readers import LICENSED, TOLD, Source
from data import Sample, load
from prompts import fenced
from render import Renderer
from synth import contact_sheet

SMALL = ["id", "place", "domain", "language", "code", "key", "hash", "aspect", "small"]
SMALL += ["came_with_draft", "draft_key", "draft_kinds", "license"]
LENGTHS = {"short": 300, "middle": 1200}  # words and signs, less than; the rest is long
GROUP = 256  # rows of a row group
TEXT, BYTES = pyarrow.string(), pyarrow.binary()
SFT = pyarrow.schema([("user_content", TEXT), ("assistant_content", TEXT), ("image", BYTES)])
SFT_TWO = SFT.append(pyarrow.field("draft_image", BYTES))
FROM = [pyarrow.field("id", TEXT), pyarrow.field("license", TEXT), pyarrow.field("source", TEXT)]  # where rows say it
PICTURE = pyarrow.struct([("bytes", BYTES), ("path", TEXT)])
RL = pyarrow.schema([("problem", TEXT), ("answer", TEXT), ("images", pyarrow.list_(PICTURE))])


@dataclass
class Chosen:
    """Rows as numbers into `chunks`: row r of chunk c is c << 32 | r."""

    chunks: list[Path]
    direct: list[int] = field(default_factory=list)
    refine: list[int] = field(default_factory=list)
    rl: list[int] = field(default_factory=list)
    groups: dict[int, tuple[str, str]] = field(default_factory=dict)  # direct row -> domain, short | middle | long
    order: dict[int, int] = field(default_factory=dict)  # direct row -> seeded number, which decides what is chosen
    counts: Counter = field(default_factory=Counter)  # of every stage, for the card
    kinds: Counter = field(default_factory=Counter)  # (language, kind of flaw)
    licenses: dict[int, str] = field(default_factory=dict)  # direct row -> its licence, of those that say it


def publish(config: Options, sources: list[Source]) -> None:
    out = Path(config.out)
    chunks = sorted((out / "work").glob("*.parquet"))
    chosen, left_out = _without_duplicates(config, chunks)
    _balance(config, chosen)
    write_rejects(out, left_out)
    more = FROM if any(source.schema == LICENSED for source in sources) else []
    sft, rl = (pyarrow.schema([*schema, *more]) for schema in (SFT_TWO if config.draft_pictures else SFT, RL))
    _write_shards(config, chosen, "sft/direct", chosen.direct, _direct_row, sft)
    _write_shards(config, chosen, "sft/refine", chosen.refine, _refine_row, sft)
    _write_shards(config, chosen, "rl/rl", chosen.rl, _rl_row, rl)
    if chosen.direct:
        _contact_sheet(out, chosen)
    write_card(config, sources, chosen, chunks)


# ---------------------------------------------------------------------------------------------------------- duplicates


def _evaluation(config: Options, file: io.BytesIO) -> Index:
    """The pictures and programs of the evaluation sets. Raises ValueError for a set of which no row can be read."""
    index = Index(file)
    if config.against:
        options = {"timeout": config.timeout, "svg_side": config.svg_side}
        with Renderer(allow_unsafe=config.allow_unsafe_rendering, **options) as renderer:
            for path in config.against:
                known = len(index)
                every_split = f"{path}:all" if Path(path).is_dir() else path
                for sample in _readable(load(every_split), renderer):
                    index.add(fingerprint(sample.image, sample.code, sample.language))
                if known == len(index):
                    raise ValueError(f"--against {path}: no row has a picture, nor a program that draws one")
    return index


def _readable(samples, renderer=None) -> Iterator[Sample]:
    return (sample for _, sample, _ in check(samples, renderer) if sample is not None and sample.image is not None)


def _without_duplicates(config: Options, chunks: list[Path]) -> tuple[Chosen, list[dict]]:
    """(what is left, a reject for each duplicate). The first of equal rows stays."""
    chosen, left_out, drafts, names = Chosen(chunks), [], set(), []
    evaluation = _evaluation(config, io.BytesIO())
    with open(Path(config.out) / "work" / ".small.partial", "w+b") as file:
        index = Index(file)
        for chunk, path in enumerate(tqdm(chunks, "duplicates", unit=" chunks", delay=2)):
            for row, entry in enumerate(pyarrow.parquet.read_table(path, columns=SMALL).to_pylist()):
                print = Fingerprint(entry["key"], entry["hash"], entry["aspect"], entry["small"])
                number, reason = chunk << 32 | row, ""
                if found := evaluation.find(print):
                    reason = f"{found[1]} as in an evaluation set"
                elif entry["came_with_draft"]:
                    pair = (entry["key"], entry["draft_key"])
                    reason = "same draft and program as another row" if pair in drafts else ""
                    drafts.add(pair)
                elif found := index.find(print):
                    reason = f"{found[1]} as {names[found[0]]}"
                else:
                    index.add(print)
                    names.append(entry["id"])
                if reason:
                    stage = "evaluation" if "evaluation" in reason else "duplicate"
                    left_out.append({"row": entry["place"], "id": entry["id"], "stage": stage, "reason": reason})
                    chosen.counts[stage] += 1
                else:
                    _keep(config, chosen, number, entry)
    return chosen, left_out


@lru_cache
def _shared(*names: str) -> tuple[str, ...]:
    """One tuple for all rows of a group, not one each."""
    return names


def _keep(config: Options, chosen: Chosen, number: int, entry: dict) -> None:
    if not entry["came_with_draft"]:
        size = pieces(entry["code"])
        length = next((name for name, most in LENGTHS.items() if size < most), "long")
        chosen.groups[number] = _shared(entry["domain"], length)
        name = f"{config.seed} {entry['id']} {number}".encode()
        chosen.order[number] = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())
        chosen.direct.append(number)
        if entry["license"]:
            chosen.licenses[number] = sys.intern(entry["license"])
    if entry["draft_kinds"]:
        chosen.refine.append(number)
        for kind in entry["draft_kinds"].split():
            chosen.kinds[entry["language"], kind] += 1


# ------------------------------------------------------------------------------------------------------------- balance


def quotas(sizes: dict, total: int) -> dict:
    """What each group gives so that all give the same as far as they can, `total` in sum (or all there is)."""
    given, left, groups = dict.fromkeys(sizes, 0), min(total, sum(sizes.values())), sorted(sizes)
    while left:
        open_groups = [group for group in groups if given[group] < sizes[group]]
        share = max(1, left // len(open_groups))
        for group in open_groups:
            more = min(share, sizes[group] - given[group], left)
            given[group] += more
            left -= more
    return given


def _choose(chosen: Chosen, numbers: list[int], total: int, key: Callable[[int], int]) -> list[int]:
    """`total` of the rows: domains in equal shares, and within each short, middle and long programs, as far as there
    are enough; within a group those of the least `key`. In their order."""
    domains: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number in numbers:
        domain, length = chosen.groups[number]
        domains[domain][length].append(number)
    taken = []
    sizes = {domain: sum(map(len, lengths.values())) for domain, lengths in domains.items()}
    for domain, share in quotas(sizes, total).items():
        lengths = domains[domain]
        for length, count in quotas({name: len(rows) for name, rows in lengths.items()}, share).items():
            taken += sorted(lengths[length], key=key)[:count]
    return sorted(taken)


def _balance(config: Options, chosen: Chosen) -> None:
    if config.rows is not None and config.rows < len(chosen.direct):
        before = len(chosen.direct)
        chosen.direct = _choose(chosen, chosen.direct, config.rows, chosen.order.get)
        chosen.counts["balance"] = before - len(chosen.direct)
        gone = set(chosen.groups) - set(chosen.direct)
        chosen.refine = [number for number in chosen.refine if number not in gone]
    if config.rl:
        mask = 0x5A5A5A5A5A5A5A5A  # another order than that of the direct rows
        chosen.rl = _choose(chosen, chosen.direct, config.rl, lambda number: chosen.order[number] ^ mask)


# ------------------------------------------------------------------------------------------------------------- writing


def write_rejects(out: Path, left_out: Iterable[dict]) -> None:
    """rejects.jsonl: the rows left out by every chunk, in order, then duplicates."""
    partial = out / ".rejects.partial"
    with open(partial, "w", encoding="utf-8") as file:
        for path in sorted((out / "work").glob("*.json")):
            for reject in json.loads(path.read_text())["rejects"]:
                file.write(json.dumps(reject, ensure_ascii=False) + "\n")
        for reject in left_out:
            file.write(json.dumps(reject, ensure_ascii=False) + "\n")
    os.replace(partial, out / "rejects.jsonl")


def _direct_row(entry: dict) -> dict:
    user, answer = "<image>\n" + entry["prompt"], fenced(entry["code"], entry["language"])
    return {"user_content": user, "assistant_content": answer, "image": entry["image"], "draft_image": None}


def _refine_row(entry: dict) -> dict:
    pictures = "<image>\n" * (1 + (entry["draft_image"] is not None))
    answer = fenced(entry["code"], entry["language"])
    row = {"user_content": pictures + entry["draft_prompt"], "assistant_content": answer, "image": entry["image"]}
    return row | {"draft_image": entry["draft_image"]}


def _rl_row(entry: dict) -> dict:
    images = [{"bytes": entry["image"], "path": None}]
    return {"problem": "<image>\n" + entry["prompt"], "answer": entry["code"], "images": images}


@lru_cache(maxsize=2)
def _chunk(path: Path) -> pyarrow.Table:
    return pyarrow.parquet.read_table(path)


def _entries(chosen: Chosen, numbers: Iterable[int]) -> Iterator[dict]:
    for number in numbers:
        yield _chunk(chosen.chunks[number >> 32]).slice(number & 0xFFFFFFFF, 1).to_pylist()[0]


def _write_shards(config: Options, chosen: Chosen, name: str, numbers: list[int], make, schema) -> None:
    """OUT/name-00000-of-00003.parquet and so on; what is there already is left as it is."""
    count = -(-len(numbers) // config.shard_rows)
    for shard in tqdm(range(count), f"writing {name}", unit=" shards", delay=2):
        path = Path(config.out) / f"{name}-{shard:05}-of-{count:05}.parquet"
        path.parent.mkdir(exist_ok=True)
        for old in path.parent.glob(".*.partial"):
            old.unlink()
        if path.exists():
            continue
        part = numbers[shard * config.shard_rows : (shard + 1) * config.shard_rows]
        partial = path.with_name(f".{path.name}.partial")
        with pyarrow.parquet.ParquetWriter(partial, schema) as writer:
            for start in range(0, len(part), GROUP):
                entries = _entries(chosen, part[start : start + GROUP])
                rows = [make(entry) | {column: entry[column] for column in ("id", *TOLD)} for entry in entries]
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
        os.replace(partial, path)


def _contact_sheet(out: Path, chosen: Chosen) -> None:
    groups: dict[str, list[int]] = defaultdict(list)
    for number in sorted(chosen.direct, key=chosen.order.get):
        if len(group := groups[chosen.groups[number][0]]) < 10:
            group.append(number)
    shown = {}
    for domain in sorted(groups):
        entries = _entries(chosen, groups[domain])
        shown[domain] = [(entry["id"], Image.open(io.BytesIO(entry["image"])).convert("RGB")) for entry in entries]
    contact_sheet(shown.values(), out / ".contact_sheet.partial.png")
    os.replace(out / ".contact_sheet.partial.png", out / "contact_sheet.png")
