"""Answers that were recorded: the folders that records.RecordWriter wrote, read again and gone on with."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from data import Sample
from records import Record
from render import Rendering
from reward import Score


def named_folders(runs: Sequence[str]) -> dict[str, str]:
    """{name: folder} of "name=folder" .. Raises ValueError."""
    pairs = [run.split("=", 1) for run in runs]
    if not pairs or any(len(pair) != 2 for pair in pairs) or len(dict(pairs)) < len(pairs):
        raise ValueError("Give every run as name=folder, each name once: SFT=runs/a/eval ViRL=runs/b/eval")
    return dict(pairs)


def resumed(folder: str | Path, config: dict) -> set[tuple[str, int]]:
    """(target's id, index) of the answers in a folder, which is now ready for more; none in a new one.

    config: what records depend on; the folder keeps it. Raises ValueError where its records were made with another."""
    path, about = Path(folder, "records.jsonl"), Path(folder, "config.json")
    done = set()
    if path.exists() and path.stat().st_size:
        before = json.loads(about.read_text()) if about.exists() else None
        config = json.loads(json.dumps(config))  # tuples become lists, as in the file
        changed = [key for key in config if before is not None and before.get(key) != config[key]]
        if before is None or changed:
            why = f" made with another {', '.join(changed)}" if changed else ""
            raise ValueError(f"{folder} already holds records{why}; choose another folder or remove it first.")
        whole = path.read_bytes()
        path.write_bytes(whole[: whole.rfind(b"\n") + 1])  # without a last line cut short
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        done = {(row["sample"]["id"], row["index"]) for row in rows}
    about.parent.mkdir(parents=True, exist_ok=True)
    about.write_text(json.dumps(config, indent=1) + "\n")
    return done


def read_records(folder: str | Path) -> Iterator[Record]:
    """The records of a folder one by one, with their pictures; consecutive answers share their target's picture."""
    folder = Path(folder)
    if not (folder / "records.jsonl").is_file():
        raise FileNotFoundError(f"{folder} holds no records.jsonl; make it with: python eval.py run --out {folder}")
    target = image = None
    lines = (folder / "records.jsonl").read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(filter(None, lines), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(list(filter(None, lines))) and lines[-1]:  # the run was killed while it wrote this line
                print(f"eval.py: {folder}: left out the unfinished last record", file=sys.stderr)
                return
            raise ValueError(f"{folder}/records.jsonl, line {number} is not JSON; remove that line.") from error
        if row["sample"]["image"] != target:
            target = row["sample"]["image"]
            image = Image.open(folder / target).convert("RGB")
        sample = Sample(**row["sample"] | {"image": image})
        yield _record(row, sample, folder, [_record(r, sample, folder, []) for r in row["attempts"]])


def _record(row: dict, sample: Sample, folder: Path, attempts: list[Record]) -> Record:
    shown = dict(row["rendering"])
    if shown["image"]:
        shown["image"] = Image.open(folder / shown["image"]).convert("RGB")
    score = Score(**row["score"] | {"grid": tuple(row["score"]["grid"])})
    parts = {"sample": sample, "attempts": attempts, "rendering": Rendering(**shown), "score": score}
    return Record(**row | parts)
