"""Answers made elsewhere: a folder of files, one per answer, or a jsonl file.

    FOLDER/NAME.EXT         NAME: the target's id, whole, or without leading folders, or without its suffix
    FOLDER/NAME.K.EXT       the K-th of several answers, from 0
    FOLDER/answers.jsonl    rows {"id", "text"} or {"id", "code"}, optionally "index"

EXT .txt and .md hold a whole answer with its fence; the suffix of a language (.py, .svg ..) is that of a program. An
answer to the target chartmimic/direct_600/bar_1 is bar_1.py, direct_600/bar_1.py or chartmimic_direct_600_bar_1.py: in
a name all characters but letters, digits, "-", "_" and "." may be "_". An answer to unisvg/icon_0.png is icon_0.svg.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from answers.server import Answer
from data import Sample, fenced
from languages import SUFFIXES, suffix_of

WHOLE = (".txt", ".md")  # hold an answer with its fence
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".pdf")  # which ids may end with
SUFFIX = re.compile(f"(?i)({'|'.join(map(re.escape, (*PICTURES, *WHOLE, *SUFFIXES)))})$")


def file_name(id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", id)


def names_of(id: str) -> list[str]:
    """What an answer to a target may be called: the whole id first, then with more and more of it left off."""
    parts = id.split("/")
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    return [file_name(name) for tail in tails for name in (tail, SUFFIX.sub("", tail))]


class Found(NamedTuple):
    """One answer as it was found. number: which of several to its target, None where only its name may say so."""

    label: str
    name: str
    number: int | None
    content: Path | tuple[str | None, str | None]
    """A file, or (the whole answer, the program) of which one is None."""


class Targets:
    """Which target a name means."""

    def __init__(self, ids: Iterable[str]):
        self.known = dict.fromkeys(ids)
        self.whole: dict[str, dict[str, None]] = {}  # file name of a whole id -> ids
        self.part: dict[str, dict[str, None]] = {}  # what may stand for an id -> ids
        for id in self.known:
            for name_of in {id, self._first(id)}:
                self.whole.setdefault(file_name(name_of), {})[id] = None
                for name in names_of(name_of):
                    self.part.setdefault(name, {})[id] = None

    def _first(self, id: str) -> str:
        """Of PICTURE#2, the second target about one picture, the first; of others themselves."""
        first = re.sub(r"#\d+$", "", id)
        return first if first in self.known else id

    def called_so(self, name: str) -> list[str]:
        """The targets that an answer of this name may be for; a whole id means its own alone."""
        return list(self.whole.get(name) or self.part.get(name, ()))

    def pictures(self, ids: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(map(self._first, ids)))

    def meant_by(self, answer: Found) -> tuple[list[str], int, int]:
        """(the target an answer is for, and others about the same picture; which of their answers it is; how many of
        its leading folders say nothing); no targets where none is called so. Raises ValueError where it may be for
        several."""
        parts = answer.name.split("/")
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            for name in dict.fromkeys((tail, SUFFIX.sub("", tail))):
                stem, _, number = name.rpartition(".")
                ids, index = self.called_so(file_name(name)), answer.number or 0
                if not ids and answer.number is None and number.isdigit():
                    ids, index = self.called_so(file_name(stem)), int(number)
                if len(pictures := self.pictures(ids)) > 1:
                    names = " or ".join(file_name(id) for id in pictures[:2])
                    raise ValueError(f"may be for {pictures[0]} or {pictures[1]}; call it {names}, before its suffix.")
                if ids:
                    return ids, index, start
        return [], 0, 0

    def shortest(self, id: str) -> str:
        """The shortest name that means this target alone."""
        alone = (name for name in names_of(id)[::-1] if self.pictures(self.called_so(name)) == [self._first(id)])
        return next(alone, file_name(id))


class Folder:
    """Raises FileNotFoundError or ValueError, in one sentence, for a folder that holds no answers, an answer that is
    for no target, or one that may be meant for several.

    ids: of the targets that are evaluated, G answers each. others: of targets that are there but not evaluated.
    skip_unmatched: answers that are for no target are left out, unless all are. notes: what is to be said of these, and
    of targets without an answer."""

    def __init__(
        self, path: str | Path, ids: Sequence[str], others: Iterable[str] = (), G: int = 1, skip_unmatched: bool = False
    ):
        self.path, self.notes = Path(path), []
        if not self.path.exists():
            raise FileNotFoundError(f"{path} does not exist; give the folder with the answers.")
        lines = self.path / "answers.jsonl" if self.path.is_dir() else self.path
        every = list(_rows(lines) if lines.is_file() else _files(self.path))
        if lines.is_file() and lines != self.path and (beside := [found.label for found in _files(self.path)]):
            self.notes.append(f"answers.jsonl is read, and not the {len(beside)} files beside it: {_some(beside)}")
        if not every:
            raise ValueError(f"{path} holds no answers; name the files as answers/folder.py says.")
        self.given: dict[tuple[str, int], Found] = {}
        targets = Targets([*ids, *others])
        self._match(every, targets)
        labels = {found.label for found in self.given.values()}
        unknown = [found for found in every if found.label not in labels]
        if unknown and not (self.given and skip_unmatched):
            raise ValueError(self._should_be_called(unknown, len(every), ids, targets))
        if unknown:
            some = _some([found.label for found in unknown])
            self.notes.append(f"{len(unknown)} of {len(every)} answers are for no target: {some}")
        self._note(ids, G)

    def _match(self, every: Sequence[Found], targets: Targets) -> None:
        """Of two answers to one target the one whose folders say so too."""
        useless: dict[tuple[str, int], int] = {}  # leading folders that say nothing
        for found in every:
            try:
                ids, number, start = targets.meant_by(found)
            except ValueError as error:
                raise ValueError(f"{self.path}: {found.label} {error}") from None
            for key in ((id, number) for id in ids):
                if key in self.given and useless[key] == start:
                    both = f"{self.given[key].label} and {found.label}"
                    raise ValueError(f"{self.path}: {both} are both answers to {key[0]}; keep one of them.")
                if key not in self.given or start < useless[key]:
                    self.given[key], useless[key] = found, start

    def _should_be_called(self, unknown: Sequence[Found], total: int, ids: Sequence[str], targets: Targets) -> str:
        ends = [Path(found.label).suffix if isinstance(found.content, Path) else "" for found in unknown]
        names = [found.name + end for found, end in zip(unknown, ends, strict=True)]
        free = [id for id in ids if (id, 0) not in self.given] or ids
        wanted = [targets.shortest(id) + end for id, end in zip(free, ends, strict=False)]
        says = f"{len(unknown)} of the {total} answers in {self.path} are for no target"
        if not self.given:
            says = f"None of the {total} answers in {self.path} is for a target"
        says += f": they are called {_some(names, 2)}, and should be called {_some(wanted, 2)} (answers/folder.py says "
        return says + "what else will do)." + " --skip-unmatched goes on without them." * bool(self.given)

    def _note(self, ids: Sequence[str], G: int) -> None:
        if beyond := [found.label for (_, number), found in self.given.items() if number >= G]:
            self.notes.append(f"{len(beyond)} answers are beyond --G {G} and not read: {_some(beyond)}")
        keys = [(id, number) for id in ids for number in range(G)]
        if missing := [f"{id}, answer {k}" if G > 1 else id for id, k in keys if (id, k) not in self.given]:
            says = f"{len(missing)} of {len(keys)} answers are missing and count as failures"
            self.notes.append(f"{says}: {_some(missing)}")

    def answer(self, samples: Sequence[Sample], G: int, **_) -> Iterator[Answer]:
        """An answer that is not there is an empty one: it fails and counts as 0."""
        for sample in samples:
            for index in range(G):
                found = self.given.get((sample.id, index))
                text, finish = (_text(found, sample.language), "eos") if found else ("", "missing")
                yield Answer(sample.id, index, text, finish, ())


def _files(folder: Path) -> Iterator[Found]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        suffix = suffix_of(path) or path.suffix.lower()
        hidden = any(part.startswith(".") for part in name.parts)
        if suffix in (*WHOLE, *SUFFIXES) and path.is_file() and not hidden:
            yield Found(str(name), name.as_posix()[: -len(suffix)], None, path)


def _rows(lines: Path) -> Iterator[Found]:
    for number, line in enumerate(lines.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            content = row.get("text", row.get("answer", row.get("response"))), row.get("code")
            if not any(isinstance(part, str) for part in content):
                raise ValueError
            yield Found(f"line {number} ({row['id']})", str(row["id"]), int(row.get("index", 0)), content)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ValueError(f'{lines}, line {number} is no row {{"id", "text"}}; correct it.') from None


def _text(found: Found, language: str) -> str:
    if isinstance(found.content, Path):
        text = found.content.read_text(encoding="utf-8", errors="replace")
        return text if found.content.suffix.lower() in WHOLE else fenced(text, language)
    text, code = found.content
    return fenced(code, language) if code is not None else text or ""


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" .." if len(names) > most else "")
