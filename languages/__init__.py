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


@dataclass(frozen=True)
class Language:
    """One language. Regular expressions are texts; `kinds` has one of the language's own name."""

    name: str
    suffixes: tuple[str, ...]  # of files
    words: str  # regular expression of what names it in a prompt, or in a column
    code: str  # what prompts call its code
    domains: dict[str, str]  # domain -> what prompts call its picture
    sample: str  # the smallest program that shows it working
    kinds: dict[str, object]  # kind of worker -> what it is, a protocol.Kind
    tags: tuple[str, ...] = ()  # of fences, besides its name
    codes: dict[str, str] = field(default_factory=dict)  # domain -> what prompts call its code, where not `code`
    domain_of: Callable[[str], str] | None = None  # program -> domain, where there are several
    kind_of: Callable[[str], str] | None = None  # program -> kind of worker, where there are several
    for_metrics: dict[str, object] = field(default_factory=dict)  # kinds that are asked for by their own names
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
