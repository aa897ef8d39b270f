"""What a policy answered to each target, written to a folder: records.jsonl, targets/, renders/ (answers/recorded.py
reads it)."""

import hashlib
import json
import re
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data import Sample, blocks
from pictures import is_blank
from render import Rendering
from reward import Score

NO_CODE = "no code block"
FAILURES = (NO_CODE, "wrong language", "syntax error", "runtime error", "time-out", "blank")
SYNTAX = re.compile(
    r"(?m)^(?:\w*SyntaxError|IndentationError|TabError)|^svg: |Parse error|Lexical error|^! (?:Missing|Extra|Undefined"
    r"|Runaway|Paragraph ended|File ended|Emergency|Misplaced|Too many|LaTeX Error: (?:Environment|Missing))"
)


@dataclass
class Record:
    """One answer of a policy to one target, with everything that was measured on it."""

    sample: Sample
    index: int  # which of the target's G answers
    text: str
    code: str | None
    rendering: Rendering
    score: Score
    ssim: float | None = None  # in [-1, 1], in the target's size; 0 where nothing was rendered; None: not asked
    attempts: list["Record"] = field(default_factory=list)  # earlier refinement rounds, oldest first; this is the last
    tokens: int = 0
    finish: str = "eos"
    decoding: str = "greedy"
    failure: str | None = "unknown"  # one of FAILURES, or None; found out if not given
    detail: str = ""
    # the benchmarks' metrics that apply (metrics/catalogue.py); None: not counted in the mean
    metrics: dict[str, float | None] = field(default_factory=dict)
    # why the target's program cannot be inspected: no metric that needs it has this target in its mean
    reference_problem: str = ""
    judgement: object | None = None  # what a judge said, where one was asked (metrics/judge.py adds it)

    def __post_init__(self):
        if self.failure == "unknown":
            self.failure, self.detail = find_failure(self)


def find_failure(record: Record) -> tuple[str | None, str]:
    """(category, detail) of what went wrong, the categories of `Record.failure`; (None, "") if nothing did."""
    if record.code is None:
        if tags := [tag for tag, _ in blocks(record.text) if tag != record.sample.language]:
            return "wrong language", f"a block of {tags[-1] or 'no language'}, not {record.sample.language}"
        return NO_CODE, "the answer was cut at the token limit" if record.finish == "length" else NO_CODE
    if record.rendering.image is None:
        line = ((record.rendering.error or "").strip() or "no picture").splitlines()[0][:300]
        if re.match("time-?out|timed out", line):
            return "time-out", line
        lines = record.rendering.error.strip().splitlines()
        line = next((text for text in reversed(lines) if re.match(r"\w*(?:Error|Exception)\b", text)), line)[:300]
        return "syntax error" if SYNTAX.search(record.rendering.error) else "runtime error", line
    if is_blank(record.rendering.image) and not is_blank(record.sample.image):
        return "blank", "the picture has a single colour"
    return None, ""


class RecordWriter(AbstractContextManager):
    """Appends records to a folder (records.jsonl, targets/, renders/) as they come: a broken run keeps what is done.
    Raises ValueError for a folder that has some, unless it `goes_on` (answers.recorded.resumed)."""

    def __init__(self, folder: str | Path, goes_on: bool = False):
        self.folder, path = Path(folder), Path(folder, "records.jsonl")
        if path.exists() and path.stat().st_size and not goes_on:
            raise ValueError(f"{folder} already holds records; choose another folder or remove it first.")
        for name in ("targets", "renders"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)

    def __exit__(self, *_):
        self.file.close()

    def append(self, record: Record) -> None:
        target = f"targets/{_file_name(record.sample.id)}.png"
        if not (self.folder / target).exists():
            record.sample.image.save(self.folder / target)
        rounds = [self._row(answer, k, record.sample.id) for k, answer in enumerate([*record.attempts, record])]
        row = rounds[-1] | {"sample": vars(record.sample) | {"image": target, "drawing": None}, "attempts": rounds[:-1]}
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()

    def _row(self, record: Record, attempt: int, id: str) -> dict:
        picture = record.rendering.image and f"renders/{_file_name(id)}-{record.index}-{attempt}.png"
        if picture:
            record.rendering.image.save(self.folder / picture)
        rendering = {"image": picture, "error": record.rendering.error, "seconds": record.rendering.seconds}
        row = vars(record) | {"rendering": rendering, "score": asdict(record.score)}
        return {key: value for key, value in row.items() if key not in ("sample", "attempts", "judgement")}


def _file_name(id: str) -> str:
    """Readable and unique for any id, whatever characters it holds."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", id)[:60] + "-" + hashlib.sha256(id.encode()).hexdigest()[:8]
