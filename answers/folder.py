"""Answers made elsewhere: a folder of files, one per answer, or a jsonl file.

    FOLDER/ID.EXT           ID: the sample's id with every character but letters, digits, "-", "_" and "." as "_"
    FOLDER/ID.K.EXT         the K-th of several answers, from 0
    FOLDER/answers.jsonl    rows {"id", "text"} or {"id", "code"}, optionally "index"

EXT .txt and .md hold a whole answer with its fence; .py .svg .html .tex .mmd hold a program.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from answers.server import Answer
from data import Sample, fenced
from languages import SUFFIXES


def file_name(id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", id)


class Folder:
    """Raises FileNotFoundError or ValueError, in one sentence, for a folder that holds no answers."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"{path} does not exist; give the folder with the answers.")
        self.rows: dict[tuple[str, int], str] = {}
        self.found = 0
        lines = self.path / "answers.jsonl" if self.path.is_dir() else self.path
        if lines.is_file():
            for number, line in enumerate(lines.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    row = json.loads(line)
                    answer = row.get("text", row.get("answer", row.get("response")))
                    code = row.get("code")
                    self.rows[str(row["id"]), int(row.get("index", 0))] = answer if code is None else ("", code)
                except (ValueError, KeyError, AttributeError):
                    raise ValueError(f'{lines}, line {number} is no row {{"id", "text"}}; correct it.') from None
        elif self.path.is_dir():
            self.files = {path.name: path for path in sorted(self.path.iterdir()) if path.is_file()}
        if not self.rows and not getattr(self, "files", None):
            raise ValueError(f"{path} holds no answers; name the files as answers/folder.py says.")

    def answer(self, samples: Sequence[Sample], G: int, **_) -> Iterator[Answer]:
        """An answer that is not there is an empty one: it fails and counts as 0."""
        for sample in samples:
            for index in range(G):
                text = self._text(sample, index)
                self.found += text is not None
                yield Answer(sample.id, index, text or "", "eos", ())

    def _text(self, sample: Sample, index: int) -> str | None:
        if self.rows:
            row = self.rows.get((sample.id, index))
            return fenced(row[1], sample.language) if isinstance(row, tuple) else row
        names = [file_name(sample.id), file_name(sample.id.rsplit("/", 1)[-1])]
        stems = [stem for name in names for stem in ([f"{name}.{index}"] + ([name] if index == 0 else []))]
        for stem in stems:
            for suffix in (".txt", ".md", *SUFFIXES):
                if path := self.files.get(stem + suffix):
                    text = path.read_text(encoding="utf-8", errors="replace")
                    return text if suffix in (".txt", ".md") else fenced(text, sample.language)
        return None
