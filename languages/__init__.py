"""What runs on the other side of the sandbox: a language a file, the browser, the worker's protocol.

`render.py` starts and commands workers (`worker.py`); nothing here knows of models.
"""

from __future__ import annotations

import re
import sys

LANGUAGES = ("python", "svg", "html", "latex", "mermaid")
SUFFIXES = {".py": "python", ".svg": "svg", ".html": "html", ".htm": "html", ".tex": "latex", ".mmd": "mermaid"}
# not a picture of a program, but what it draws, as JSON; the last as Design2Code's own code finds it
INSPECTIONS = ("figure facts", "page facts", "published page facts")
CAIROSVG = "cairosvg"  # svg once more, by the library that UniSVG, SVG-Bench and the paper's release draw it with
ON_A_CANVAS = ("svg", CAIROSVG)  # what is drawn in any size; other languages have a size of their own

SAMPLES = {  # the smallest programs that show a language working
    "python": "import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 1.5))\nplt.bar([1, 2], [2, 3])\nplt.show()\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 6"><circle cx="4" cy="3" r="2" fill="red"/></svg>\n',
    "html": "<!DOCTYPE html><body style='margin:40px'><h1 style='color:teal'>A heading</h1><p>Some text.</p></body>\n",
    "latex": "\\begin{tikzpicture}\\draw[fill=red] (0,0) circle (1);\\node at (3,0) {$e^{i\\pi}$};\\end{tikzpicture}\n",
    "mermaid": "flowchart LR\n    A[Code] --> B{Right?}\n    B -->|yes| C[Picture]\n",
}


TABLES = {"pandas", "seaborn", "scipy", "statsmodels", "sklearn", "networkx", "mplfinance"}
MOLECULES = {"rdkit", "indigo"}
SMALL = MOLECULES | {"numpy", "PIL"} | sys.stdlib_module_names  # what a drawing of a molecule may need besides


def kind_of(code: str, language: str) -> str:
    """The kind of worker for a program: its language, or for python what it imports: "molecule" or "tables"."""
    if language != "python":
        return language
    found = re.findall(r"(?:^|;)[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import|import[ \t]+([\w., \t]+))", code, re.MULTILINE)
    names = [name.split() for one, several in found for name in (one or several).split(",")]  # `a.b as c`: a.b, as, c
    imported = {words[0].split(".")[0] for words in names if words}
    if imported & MOLECULES and imported <= SMALL:
        return "molecule"
    return "tables" if imported & (TABLES | MOLECULES) else "python"


class ProgramError(Exception):
    """The program is at fault; the text goes back to the caller."""


class ProgramTimeout(ProgramError):
    """It was killed, as it ran too long: there is no use in another way."""


class ToolMissing(Exception):
    """Something is not installed; the text says what."""
