"""The languages that programs are written in: a file each, which says all that is particular to one.

Each file of FILES ends with a LANGUAGE. The trainer's side reads these files as the workers do: what they import at
their beginning is small, and nothing is drawn. Nothing here knows of models.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

FILES = ("python", "svg", "html", "latex", "mermaid")
REQUIREMENTS = Path(__file__).parent.parent / "requirements-render.txt"  # the Python packages that programs run with
WORD = r"(?<![\\&%\w{])[A-Za-z]{3,}"  # of a label, which a flaw may change


class ProgramError(Exception):
    """The program is at fault; the text goes back to the caller."""


class ProgramTimeout(ProgramError):
    """It was killed, as it ran too long: there is no use in another way."""


class ToolMissing(Exception):
    """Something is not installed; the text says what."""


@dataclass(frozen=True)
class Kind:
    """A kind of worker (`worker.py`).

    make: protocol.Options -> a function from a program to an answer, called in the worker as it starts. The function
    may have `prepare`, for what all programs of a sort need, and `tidy`, for after an answer: no program's time counts.
    """

    make: Callable
    alone: bool = False  # each program in a process of its own, which alone is killed when it runs too long
    prepares: bool = False  # it has `prepare`
    browser: bool = False  # it holds the browser, which shows the pictures beside a page
    facts: bool = False  # it answers with what is in a picture, as JSON
    canvas: bool = False  # it draws in any size; others have a size of their own
    files: Callable[[], dict[str, str]] = dict  # environment variable -> the path that it tells, for the worker to read


@dataclass(frozen=True)
class Language:
    """One language. Regular expressions are texts; `kinds` has one of the language's own name."""

    name: str
    suffixes: tuple[str, ...]  # of files
    words: str  # regular expression of what names it in a prompt, or in a column
    code: str  # what prompts call its code
    domains: dict[str, str]  # domain -> what prompts call its picture
    sample: str  # the smallest program that shows it working
    kinds: dict[str, Kind]
    tags: tuple[str, ...] = ()  # of fences, besides its name
    codes: dict[str, str] = field(default_factory=dict)  # domain -> what prompts call its code, where not `code`
    domain_of: Callable[[str], str] | None = None  # program -> domain, where there are several
    kind_of: Callable[[str], str] | None = None  # program -> kind of worker, where there are several
    for_metrics: dict[str, Kind] = field(default_factory=dict)  # asked for by their own names
    tools: Callable[[str], Iterable[tuple[str, str]]] | None = None  # interpreter -> (tool, what --doctor says of it)
    # for flaws (`flaws.py`): where nobody sees one; kind of flaw -> (where to look: group of a match, or "" anywhere;
    # what to change); what raises ValueError or SyntaxError where a program does not parse, and runs nothing
    unseen: str = r"(?!)"
    flaws: dict[str, tuple[str, str]] = field(default_factory=dict)
    parse: Callable[[str], object] | None = None


LANGUAGES: dict[str, Language] = {}
for _file in FILES:
    _language = importlib.import_module(f"languages.{_file}").LANGUAGE
    LANGUAGES[_language.name] = _language
KINDS = {name: kind for one in LANGUAGES.values() for name, kind in (one.kinds | one.for_metrics).items()}
SUFFIXES = {suffix: one.name for one in LANGUAGES.values() for suffix in one.suffixes}
CAN_BE_ASKED = {*LANGUAGES, *(name for one in LANGUAGES.values() for name in one.for_metrics)}  # of a Renderer


def suffix_of(path: Path) -> str:
    """The end of a file's name, one of SUFFIXES, that says its language; "" where it says none."""
    name = path.name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def kind_of(code: str, language: str) -> str:
    """The kind of worker for a program, which may ask for a kind in place of a language."""
    one = LANGUAGES.get(language)
    return one.kind_of(code) if one and one.kind_of else language
