"""What a program must be before it is run: normalised text that parses, of bounded size, that asks for nothing outside.

`normalise` repairs what collecting does to text, `problems` finds what is wrong with programs without running them.
"""

import ast
import json
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

RUFF_RULES = "E9,F63,F7,F82"  # syntax, comparisons and statements that cannot be meant, undefined names
MAX_CHARACTERS = 200_000
INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
CHAT = re.compile(r"(?:<\|(?:im_end|endoftext|eot_id|end)\|>|</s>|\[/INST\])[\s\S]*\Z")
ENDS = {"svg": "</svg>", "html": "</html>", "latex": "\\end{document}"}  # what follows is junk
PIECE = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]|\n")

# Constructs that reach outside: the network, files, other programs, pictures made elsewhere.
MODULES, CALLS, OPTIONAL_END, VOID = (
    set(words.split())
    for words in (
        """requests urllib urllib3 http httpx aiohttp socket ssl ftplib smtplib subprocess multiprocessing shutil ctypes
        webbrowser cv2 imageio torchvision sklearn.datasets yfinance""",
        """open imread imopen loadtxt genfromtxt fromfile memmap read_csv read_excel read_json read_html read_table
        read_parquet read_pickle get_sample_data urlopen urlretrieve system popen execv fork remove unlink rmtree rmdir
        listdir scandir read_text read_bytes write_text write_bytes input load_dataset fetch_openml
        loadMoleculeFromFile SDMolSupplier MolFromMolFile""",
        "p li dt dd tr td th thead tbody tfoot option optgroup colgroup rp rt html head body",
        "area base br col embed hr img input link meta param source track wbr",
    )
)
METHODS = {("np", "load"), ("numpy", "load"), ("sns", "load_dataset"), ("Image", "open"), ("pickle", "load")}
OUTSIDE = {
    "svg": r"(?i)<script\b|<!ENTITY|<(?:image|feImage|use)\b[^>]*?href\s*=\s*[\"'](?!data:|#)|@import"
    r"|url\(\s*[\"']?http",
    "html": r"(?i)<(?:script|img|iframe|source|video|audio|embed|input)\b[^>]*?\bsrc\s*=\s*[\"']?(?:https?:)?//"
    r"|<link\b[^>]*?href\s*=\s*[\"']?(?:https?:)?//|@import\s+(?:url\(\s*)?[\"']?(?:https?:)?//"
    r"|url\(\s*[\"']?(?:https?:)?//|\b(?:fetch|XMLHttpRequest|WebSocket|EventSource|importScripts)\s*\(",
    "latex": r"\\(?:includegraphics|includepdf|input|include|verbatiminput|lstinputlisting|openin|openout|write18"
    r"|bibliography|addbibresource|pgfimage)\b(?!\s*\{?\s*(?:example-image|glyphtounicode))"
    r"|\\addplot[^;]*?\btable\b[^;{]*\{[^}\\\n ]*\.\w+\}",
    "mermaid": r"(?i)<script\b|\bclick\s+\w+\s+(?:href|call)|https?://\S+\.(?:png|jpe?g|svg|gif)",
}


def normalise(code: str, language: str) -> str:
    """The program with LF line ends, without invisible characters, blanks at line ends, a fence around it, the tokens
    of a chat after it, or anything after the end of its document."""
    code = INVISIBLE.sub("", code.replace("\r\n", "\n").replace("\r", "\n"))
    code = CHAT.sub("", code).strip("\n")
    if fence := re.fullmatch(r"\s*(`{3,})[\w+-]*\n(.*?)(?:\n\1\s*)?", code, re.DOTALL):
        code = fence[2]
    end = ENDS.get(language)
    at = code.lower().rfind(end) if end else -1
    if at >= 0 and language != "latex" or at >= 0 and code[at:].startswith(end):
        code = code[: at + len(end)]
    return "\n".join(line.rstrip() for line in code.split("\n")).strip("\n")


def pieces(code: str) -> int:
    """Words, digits, signs and line breaks: an estimate of the tokens of a byte-level BPE vocabulary, from above."""
    return sum(1 for _ in PIECE.finditer(code))


def problems(programs: Sequence[tuple[str, str]], max_tokens: int = 16_384) -> list[str]:
    """What is wrong with each (code, language), "" for nothing. The python programs go to one run of ruff."""
    found = [_problem(code, language, max_tokens) for code, language in programs]
    python = [i for i, (_, language) in enumerate(programs) if language == "python" and not found[i]]
    for i, problem in ruff([programs[i][0] for i in python]).items():
        found[python[i]] = problem
    return found


def _problem(code: str, language: str, max_tokens: int) -> str:
    if not code.strip():
        return "the program is empty"
    if len(code) > MAX_CHARACTERS:
        return f"longer than {MAX_CHARACTERS} characters"
    if pieces(code) > max_tokens:
        return f"longer than {max_tokens} words and signs"
    if "\ufffd" in code or code.encode(errors="ignore").decode() != code:
        return "characters that could not be decoded"
    check = {"python": _python, "svg": _svg, "html": _html, "latex": _latex}.get(language)
    if check and (problem := check(code)):
        return problem
    if language in OUTSIDE and (hit := re.search(OUTSIDE[language], code)):
        return f"forbidden, reaches outside: {' '.join(hit[0].split())[:60]}"
    return ""


def _python(code: str) -> str:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"does not parse: {getattr(error, 'msg', None) or error}"
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name in MODULES or name.split(".")[0] in MODULES:
                return f"forbidden, reaches outside: import {name}"
        if isinstance(node, ast.Call):
            function, owner = node.func, None
            name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", None)
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                owner = function.value.id
            if name in CALLS and not (name == "remove" and owner != "os") or (owner, name) in METHODS:
                return f"forbidden, reaches outside: {name}()"
    return ""


def _svg(code: str) -> str:
    try:
        root = ElementTree.fromstring(code.encode())
    except (SyntaxError, ValueError, LookupError) as error:  # ParseError is a SyntaxError
        return f"is not well-formed: {re.sub(r': line.*', '', str(error))}"
    return "" if root.tag.rpartition("}")[2] == "svg" else "its root element is not svg"


class _Tags(HTMLParser):
    """Which elements are open, and whether one was closed that was not."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.seen, self.problem = 0, ""

    def handle_starttag(self, tag, attrs):
        self.seen += 1
        if tag not in VOID and tag not in OPTIONAL_END:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen += 1

    def handle_endtag(self, tag):
        if tag in VOID or tag in OPTIONAL_END:
            return
        if tag in self.open:
            while self.open.pop() != tag:
                pass
        elif not self.problem:
            self.problem = f"is not well-formed: </{tag}> closes nothing"


def _html(code: str) -> str:
    tags = _Tags()
    tags.feed(code)
    tags.close()
    if not tags.seen:
        return "has no element"
    return f"is not well-formed: it ends inside <{tags.open[-1]}>" if tags.open else tags.problem


def _latex(code: str) -> str:
    bare = re.sub(r"(?<!\\)%.*", "", re.sub(r"(?s)\\begin\{verbatim\}.*?\\end\{verbatim\}", "", code))
    stack = []
    for hit in re.finditer(r"\\(begin|end)\s*\{([^{}]+)\}", bare):
        if hit[1] == "begin":
            stack.append(hit[2])
        elif stack and stack[-1] == hit[2]:
            stack.pop()
        elif hit[2] == "document":
            return "is not well-formed: \\end{document} inside an environment"
    return f"is not well-formed: \\begin{{{stack[-1]}}} is never ended" if "document" in stack else ""


def ruff(codes: Sequence[str]) -> dict[int, str]:
    """number -> first error of RUFF_RULES, of those that have one. Raises RuntimeError where ruff does not run."""
    if not codes:
        return {}
    with tempfile.TemporaryDirectory(prefix="nanovinci-") as folder:
        for number, code in enumerate(codes):
            Path(folder, f"{number}.py").write_text(code, encoding="utf-8")
        options = ["--isolated", "--no-cache", "--quiet", "--ignore-noqa", "--exit-zero", "--output-format", "json"]
        command = [sys.executable, "-m", "ruff", "check", *options, "--select", RUFF_RULES, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ruff does not run ({done.stderr.strip()[:200]}): pip install ruff")
    found: dict[int, str] = {}
    for hit in json.loads(done.stdout or "[]"):
        number = int(Path(hit["filename"]).stem)
        found.setdefault(number, f"ruff {hit['code']}: {hit['message'].splitlines()[0][:100]}")
    return found
