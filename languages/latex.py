"""LaTeX documents, TikZ pictures and formulas: by pdflatex, or by the engine that a document asks for."""

from __future__ import annotations

import contextlib
import functools
import gzip
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

import sandbox
from languages import WORD, Language
from languages.answers import answer_of, confine_worker
from languages.fonts import family_for
from languages.pixels import crop_margins, rasterize_pdf
from languages.protocol import Kind, Options, ProgramError, ProgramTimeout, ToolMissing
from languages.tex_packages import (
    ABSENT,
    LETTERS,
    PSTRICKS,
    SUBSCRIPTS,
    SUPERSCRIPTS,
    WHERE,
    debian_package,
    snippet_needs,
    with_letters,
)

SNIPPET = r"""\documentclass[border=2pt,varwidth=WIDTH]{standalone}
\usepackage{amsmath,amssymb,graphicx,xcolor,tikz,pgfplots,booktabs,array,multirow}
\pgfplotsset{compat=1.17}
\usetikzlibrary{arrows.meta,calc,positioning,shapes,patterns,decorations.pathreplacing,decorations.markings}
"""
# No page number, unless the document itself asks for a header.
PLAIN_PAGE = r"\makeatletter\ifdefined\AddToHook\AddToHook{class/after}{\pagestyle{empty}\let\ps@plain\ps@empty}"
# A program reaches us as text, so its bytes are UTF-8 whatever encoding it declares, in whatever way.
for _package in ("inputenc", "inputenx"):
    PLAIN_PAGE += rf"\AddToHook{{package/{_package}/after}}{{\inputencoding{{utf8}}\let\inputencoding\@gobble}}"
PLAIN_PAGE += r"\fi\makeatother"


def is_document(code: str) -> bool:
    return "\\documentclass" in code or "\\documentstyle" in code


PROSE = r"\A[^\\%]*"  # neither a command nor a comment


def without_prose(code: str) -> str:
    """The program in a text: what a fence holds, and a document without words before its class."""
    if fence := re.match(rf"(?ms){PROSE}?^[ \t]*(```+|~~~+)[ \t]*\w*[ \t]*\n(.*?)(?:^[ \t]*\1|\Z)", code):
        code = fence[2]
    return re.sub(rf"{PROSE}(?=\\document(?:class|style)\b)", "", code)


def latex_document(code: str, needs: str = "") -> str:
    """A document stays as it is; a snippet (a picture, a formula, some text) gets a preamble, `needs` included."""
    if is_document(code):
        return code
    preamble = SNIPPET.replace("WIDTH", r"\maxdimen" if "tikzpicture" in code else "14cm") + needs
    if "\\begin{algorithm" in code:  # floats, for which a box has no place
        preamble = "\\documentclass{article}\n" + preamble.partition("\n")[2]
    if "\\begin{document}" in code:
        return preamble + code
    usepackage = r"\\usepackage\s*(?:\[[^\]]*\])?\s*\{[^}]*\}"
    packages, body = "\n".join(re.findall(usepackage, code)), re.sub(usepackage, "", code)
    return f"{preamble}{packages}\n\\begin{{document}}\n{body.strip()}\n\\end{{document}}\n"


FORMULA = (
    r"(?<!\\)(?:\$|\\[(\[])|\\begin\{(?:equation|align|alignat|flalign|gather|multline|eqnarray|displaymath|math)\b"
)


def in_its_surroundings(code: str, error: str) -> str:
    """A snippet that is part of a formula or of a picture, as `error` tells, within one.

    Any text may be a formula without its signs, as in Image2Struct (HELM, `handle_latex_error`), which asks for the
    code alone: letters then stand as in a formula. Where some of it is marked as one, that is what was meant."""
    begin, document, body = code.rpartition("\\begin{document}")
    body, end, rest = body.partition("\\end{document}")
    if "\\begin{tikzpicture}" in code:
        return code
    parts = r"(?:draw|node|path|fill|filldraw|coordinate|foreach|wheelchart)\b"
    parts += r"|begin\{(?:\w*axis|groupplot|smithchart|scope)\}"
    if re.match(rf"\s*\\(?:{parts})", body):
        return f"{begin}{document}\\begin{{tikzpicture}}\n{body}\n\\end{{tikzpicture}}{end}{rest}"
    if not re.search(r"Missing \$|allowed only in math mode|Misplaced alignment", error) or re.search(FORMULA, body):
        return code
    formula = body.strip()
    if "\\\\" in formula and "\\begin" not in formula:
        formula = f"\\begin{{aligned}}\n{formula}\n\\end{{aligned}}"
    return f"{begin}{document}\\[\n{formula}\n\\]{end}{rest}"


def in_unicode(code: str) -> str:
    """The CJK packages are told the encoding per environment: ours is UTF-8, for which one font family is there."""
    if "{CJK" not in code:
        return code
    code = re.sub(r"(\\begin\{CJK\*?\})(?:\[[^\]]*\])?\{(?!UTF8)\w*\}\{\w*\}", r"\1{UTF8}{gbsn}", code)
    return re.sub(r"(\\usepackage(?:\[[^\]]*\])?)\{CJK\}", r"\1{CJKutf8}", code)


# ---- engines ---------------------------------------------------------------------------------------------------------

# What a document says that only one engine understands. It may ask itself (iftex): then pdflatex does. What pdflatex
# draws with a warning (tikz-feynman) stays with it, as in DaTikZ, which tries it first.
FOR_LUALATEX = re.compile(
    r"\\directlua\b|\\latelua\b|\\luaexec\b|\\luadirect\b|\\use(?:tikz|gd)?library\s*\{[^}]*graphdrawing|\\usegdlibrary"
    r"|\\(?:usepackage|RequirePackage)\s*(?:\[[^\]]*\])?\s*\{[^}]*"
    r"\b(?:luacode|luamplib|luatextra|luacolor|luatexja|lua-visual-debug|emoji|pstricks(?:-add)?|pst-\w+)\b"
)
FOR_XELATEX = re.compile(
    r"\\XeTeX\w+|\\documentclass[^{}]*\{ctex\w+\}|\\(?:usepackage|RequirePackage)\s*(?:\[[^\]]*\])?\s*\{[^}]*"
    r"\b(?:fontspec|unicode-math|polyglossia|mathspec|xltxtra|xunicode|xeCJK|ctex)\b"
)
ENGINE_LINE = re.compile(
    r"^\s*%\s*(?:!\s*TE?X\s+(?:TS-)?program\s*=|arara:)\s*(xe|lua)(?:la)?tex", re.MULTILINE | re.IGNORECASE
)
NAMED_FONT = re.compile(
    r"(\\(?:set\w*font|fontspec|newfont(?:family|face)\s*(?:\\\w+|\{\\\w+\}))\s*(?:\[[^\]]*\])?\s*)\{([^{}]+)\}"
)
PACKAGE_OF = {"lualatex": "texlive-luatex", "xelatex": "texlive-xetex"}


def engine_for(code: str) -> str:
    """The engine that a document asks for: pdflatex unless it says otherwise."""
    if (asked := ENGINE_LINE.search(code)) and shutil.which(engine := f"{asked[1].lower()}latex"):
        return engine
    code = re.sub(r"(?<!\\)%.*", "", code)
    if re.search(r"\\if(?:pdf|xe|lua|PDF|XeT|LuaT|tutex)\w*", code):
        return "pdflatex"
    if FOR_LUALATEX.search(code) or not is_document(code) and re.search(PSTRICKS, code):
        return "lualatex"
    if FOR_XELATEX.search(code):  # most of these lualatex could do as well; xelatex is faster
        return "xelatex" if shutil.which("xelatex") else "lualatex"
    return "pdflatex"


# Packages loaded into a TeX format once instead of once per document: those that the document loads anyway, as amsmath,
# for one, changes how formulas look.
PACKAGES = {"snippet": SNIPPET.partition("\n")[2], "pgfplots": r"\usepackage{pgfplots}", "tikz": r"\usepackage{tikz}"}
ABOUT_COLOURS = r"\\documentclass\s*\[[^\]]*(?:names|table|cmyk|gray|monochrome|draft|final)|\\PassOptionsToPackage"


def preloaded_packages(code: str) -> str:
    """Which of PACKAGES suits a document, or "" if none does."""
    if "\\documentclass" not in code:
        return "" if "\\documentstyle" in code else "snippet"
    if re.search(ABOUT_COLOURS, code):  # options that xcolor and graphicx would have to see when they are loaded
        return ""
    preamble = code.partition("\\begin{document}")[0]
    return next((name for name in ("pgfplots", "tikz") if name in preamble), "")


@functools.cache
def tex_format(name: str, folder: str) -> str:
    """A TeX format in `folder` with one of PACKAGES preloaded (0.5 s, once), or for "" LaTeX as it is. Stored
    uncompressed: unpacking the stock format takes longer than all else in pdflatex's start."""
    if name:
        packages = PACKAGES[name].replace("\\usepackage", "\\RequirePackage") + "\\dump\n"
        Path(folder, f"{name}.tex").write_text(packages)
        command = ["pdflatex", "-ini", "-interaction=batchmode", f"&{tex_format('', folder)}", f"{name}.tex"]
        subprocess.run(command, cwd=folder, check=True)
        packed = Path(folder, f"{name}.fmt")
    else:
        find = ["kpsewhich", "-engine=pdftex", "pdflatex.fmt"]
        packed = Path(subprocess.run(find, capture_output=True, text=True).stdout.strip() or "missing")
    if not packed.is_file():
        return "pdflatex"
    content = packed.read_bytes()
    unpacked = Path(folder, f"{name or 'stock'}.fmt")
    unpacked.write_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    return str(unpacked.with_suffix(""))


def font_makers() -> str:
    """A folder of the programs by which TeX makes missing fonts, once per worker. Without the setting they would make
    them from files that a document wrote beside itself, for all documents that follow."""
    folder, nothing = tempfile.mkdtemp(), tempfile.mkdtemp()
    for name in ("mktexpk", "mktextfm", "mktexmf"):
        if program := shutil.which(name):
            Path(folder, name).write_text(f'#!/bin/sh\nKPSE_DOT={nothing} exec {program} "$@"\n')
            Path(folder, name).chmod(0o755)
    return folder


@dataclass(frozen=True)
class Way:
    """One way to typeset a program: what, by which engine, with which of PACKAGES preloaded."""

    code: str
    needs: str = ""
    engine: str = "pdflatex"
    packages: str = ""
    letters: bool = False  # those that pdflatex does not know are declared

    def document(self) -> str:
        document = latex_document(self.code, self.needs)
        if self.engine != "pdflatex":
            document = NAMED_FONT.sub(lambda font: f"{font[1]}{{{family_for(font[2].strip())}}}", document)
        return with_letters(document, self.engine == "xelatex") if self.letters else document


def next_way(way: Way, error: str) -> Way | None:
    """What to try after `error`, if anything: each mend at most once, so that there are few ways."""
    if way.engine != "pdflatex":
        return None
    if "Unicode character" in error or "Invalid UTF-8" in error:
        strange = {c for c in way.code if ord(c) >= 0x370} - {*LETTERS, *SUBSCRIPTS, *SUPERSCRIPTS, *"€™℃№Ω℧℮"}
        strange = any(not 0x2000 <= ord(c) < 0x2070 for c in strange) or re.search("[\u0370-\u03ff]{3}", way.code)
        return replace(way, engine="xelatex" if strange or way.letters else "pdflatex", letters=True)
    snippet = not is_document(way.code)
    if way.packages and (not snippet or "Option clash" in error):  # it may want one of them with options
        return replace(way, packages="")
    if snippet:
        code = in_its_surroundings(way.code, error)
        mended = replace(way, code=code, needs=snippet_needs(code, error, way.needs))
        return mended if mended != way else None
    return None


# ---- runs ------------------------------------------------------------------------------------------------------------

MOST_RUNS = 4
LISTS = ("toc", "lof", "lot", "loa", "lol")
# Lines of an .aux file that change nothing unless the log or one of LISTS says so; any other, such as where a
# remembered picture lies, is there to be read by a second run.
CHANGES_NOTHING = re.compile(
    r"\\relax|\\fi|\\gdef ?\\(?:@abspage@last|newlabel|HyperFirst)|\\providecommand|\\HyPL@|\\HyperFirst|\\global\\let"
    r"|\\AtEndDocument|\\let\\newlabel|\\babel@aux|\\newlabel|\\@writefile|\\bib|\\citation|\\select@language|\\@input|$"
)
ASKS_AGAIN = re.compile(
    r"undefined (?:references|citations)|Rerun (?!to get (?:cross-references|outlines|bookmarks|/PageLabels))"
    r"|[Cc]ompile (?:again|twice)"
)
BEAMER_READS = re.compile(r"\\use\w*theme|\\insert\w+|\\tableofcontents|\\setbeamertemplate")


def wants_another_run(code: str, log: str, files: dict[str, str]) -> bool:
    """After the first run of a document, which had nothing to read: whether another would look different."""
    if ASKS_AGAIN.search(log) or any(files[name] for name in LISTS):
        return True
    if files["nav"] and BEAMER_READS.search(code):
        return True
    return not all(map(CHANGES_NOTHING.match, files["aux"].split("\n")))


def read_file(path: Path) -> bytes:
    """What a program's run left at `path`, b"" if nothing: no link that it made, nor a pipe that would keep us."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as content:
            if stat.S_ISREG(os.fstat(file).st_mode):
                return content.read()
    return b""


def latex_renderer(options: Options) -> Callable[[str], bytes]:
    """pdflatex, lualatex or xelatex in a fresh folder per document, its last page through pdfium."""
    if shutil.which("pdflatex") is None:
        raise ToolMissing("latex needs pdflatex: apt install texlive-latex-extra texlive-pictures texlive-science")
    formats, font_caches = tempfile.mkdtemp(), tempfile.mkdtemp()
    confine_worker(options, children=True)
    tex_format("tikz", formats)
    import pypdfium2  # noqa: F401  (warm)

    # An error ends the run, as in the paper's release: a program that TeX draws only by leaving out what it does not
    # understand has not run. (DeTikZify goes on, and calls such a picture "compiled with errors".)
    arguments = ["-no-shell-escape", "-halt-on-error", "-interaction=batchmode", "-jobname=program"]
    same_numbers = r"\ifdefined\pdfsetrandomseed\pdfsetrandomseed 0 \else\setrandomseed 0 \fi"
    arguments.append(PLAIN_PAGE + same_numbers + r"\input{program.tex}")
    environment = os.environ | {"openin_any": "p", "openout_any": "p", "max_print_line": "1000"}
    environment |= {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
    environment["PATH"] = f"{font_makers()}:{environment['PATH']}"
    readable = sandbox.system_paths()

    def start(command: list[str], folder: str, confined: bool) -> int:
        """Run a program of TeX's in `folder` and return its status. Raises ProgramTimeout.

        confined: documents for lualatex are programs in Lua, and xdvipdfmx reads what it is told to: they have their
        folder and the system to read, nothing else to write, and no children that could outlive them."""

        def confine() -> None:
            sandbox.die_with_parent()
            if confined and options.layers.landlock:
                sandbox.restrict_files(readable, [folder, os.devnull])
            if confined and options.layers.seccomp:
                sandbox.filter_system_calls(children=True, forks=False)

        own = {"HOME": folder, "TMPDIR": folder, "TEXMFCACHE": folder, "TEXMFVAR": folder} if confined else {}
        process = subprocess.Popen(  # its standard streams are null
            command, cwd=folder, env=environment | own, start_new_session=True, preexec_fn=confine
        )
        status = process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if status == -signal.SIGKILL:  # it had its time, or the machine ran out of memory
            raise ProgramTimeout(f"{command[0]} was killed")
        return status

    def typeset(way: Way) -> bytes:
        """The PDF file. Raises ProgramError."""
        folder = tempfile.mkdtemp()
        try:
            return typeset_in(folder, way)
        finally:
            sandbox.remove_folder(folder)

    def typeset_in(folder: str, way: Way) -> bytes:
        def read(suffix: str) -> str:
            return read_file(Path(folder, f"program.{suffix}")).decode(errors="replace")

        code = way.document()
        Path(folder, "program.tex").write_text(code)
        command = [way.engine, *arguments]
        if way.engine == "pdflatex":
            command.insert(1, f"-fmt={tex_format(way.packages, formats)}")
        if way.engine == "xelatex":
            command.insert(1, "-no-pdf")
        if way.engine == "lualatex":
            command.insert(1, "--nosocket")
            shutil.copytree(luatex_cache(), Path(folder, "luatex-cache"))
        before = None
        for run in range(MOST_RUNS):
            status, log = start(command, folder, way.engine != "pdflatex"), read("log")
            if status != 0:
                raise ProgramError(latex_errors(log, status, way.engine))
            after = {suffix: read(suffix) for suffix in ("aux", "nav", *LISTS)}
            if after == before or not run and not wants_another_run(code, log, after):
                break
            before = after
        if way.engine == "xelatex":
            start(["xdvipdfmx", "-q", "-o", "program.pdf", "program.xdv"], folder, True)
        if way.letters and (missing := re.findall(r"^Missing character: There is no (\S+)", log, re.MULTILINE)):
            raise ProgramError(
                f"no font here has the letters {' '.join(dict.fromkeys(missing))}: apt install fonts-wqy-microhei "
                "fonts-dejavu-core has those of most languages"
            )
        if not (pdf := read_file(Path(folder, "program.pdf"))):
            raise ProgramError(latex_errors(log, status, way.engine))
        return pdf

    @functools.cache
    def luatex_cache() -> Path:
        """luaotfload's index of fonts and tables of Latin Modern, made once: seconds that no document has to spend.
        Each gets a copy, for what one writes into it another would run."""
        Path(font_caches, "program.tex").write_text(
            r"\documentclass{article}\usepackage{fontspec}\begin{document}x\textbf{x}\textit{x}\end{document}"
        )
        start(["lualatex", *arguments], font_caches, True)
        cache = Path(font_caches, "luatex-cache")
        cache.mkdir(exist_ok=True)
        for table in cache.rglob("*.luc"):  # compiled; the same as a text is not read
            table.with_suffix(".lua").unlink(missing_ok=True)
        return cache

    def check(engine: str) -> None:
        """Raises ProgramError where an engine is not here, or would not be confined."""
        if shutil.which(engine) is None:
            raise ProgramError(f"the document wants {engine}, which is not here: apt install {PACKAGE_OF[engine]}")
        if options.layers.safe and not options.layers.landlock:
            raise ProgramError(f"the document wants {engine}, which needs a kernel with Landlock to be confined")
        if engine == "lualatex":
            luatex_cache()

    def first_way(code: str) -> Way:
        """How a document is tried at first; what it needs besides is made on the way, once for all that follow."""
        code = in_unicode(code)
        engine = engine_for(code)
        if engine == "pdflatex":
            way = Way(code, packages=preloaded_packages(code))
            tex_format(way.packages, formats)
        else:  # which is tried once, so that a snippet gets at once what it needs
            check(engine)
            way = Way(code, "" if is_document(code) else snippet_needs(code, ""), engine)
        return way

    def draw(code: str) -> Image.Image:
        way = first_way(code := without_prose(code))
        while True:
            try:
                pdf = typeset(way)
                break
            except ProgramTimeout:
                raise
            except ProgramError as error:
                if (way := next_way(way, str(error))) is None:
                    raise
                if way.engine != "pdflatex":
                    check(way.engine)
        image = rasterize_pdf(pdf, options.max_pixels)
        return image if sets_its_page(code) else crop_margins(image)

    def render(code: str) -> bytes:
        return answer_of(lambda: draw(code), options)

    def prepare(code: str) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError, ProgramError):  # `draw` says what is wrong
            first_way(without_prose(code))

    render.prepare = prepare
    return render


def sets_its_page(code: str) -> bool:
    """Whether a program's page is as large as its picture; of others the margins are cut."""
    if not is_document(code):
        return "tikzpicture" in code
    standalone = re.search(r"\\documentclass\s*(\[[^\]]*\])?\s*\{standalone\}", code)
    if standalone:
        return not re.search(r"crop\s*=\s*false", standalone[1] or "")
    return "tightpage" in code


OF_TEX = (".sty", ".cls", ".clo", ".def", ".ldf", ".fd", ".cfg", ".lua", ".enc", ".tfm", ".code.tex")  # its own files
MISSING_FILE = (  # what TeX and packages say of a file that is not there
    r".*?(?:[Ff]ile|image file) [`']([^']+)'[^\n]* not found",
    r"I can't find file `([^']+)'",
    r".*Unable to load picture or PDF file '([^']+)'",
    r".*Could not read table file '([^']+)'",
    r".*plot file\{([^}]+)\} could not be opened",
    r"Package svg Error: File `([^']+)' is missing",
    r"Package csvsimple Error: File '([^']+)' not existent",
    r"Package datatool Error: .*file `([^']+)' doesn't exist",
)


def latex_errors(log: str, status: int, engine: str = "pdflatex") -> str:
    """What is missing, as a sentence; else the "! ..." lines of a TeX log with the source lines they point at."""
    said = (re.search(rf"^! {pattern}", log, re.M) for pattern in MISSING_FILE)
    if missing := next(filter(None, said), None):
        name = re.sub(r"\((\.\w+)\)$", r"\1", missing[1].strip())  # listings writes code(.py)
        if library := re.fullmatch(r"pgflibrarypgfplots\.(.+)\.code\.tex", name):
            return f"pgfplots' library {library[1]} is not here: {debian_package(name)}"
        known = name.lower().endswith(OF_TEX) or name.removesuffix(".tex") in WHERE
        if not known or "using draft setting" in log or re.search(r"[/|]", name):
            return f"the file {name} is not here: a program has only its own text, no files beside it"
        return f"TeX's {name} is not here: {debian_package(name)}"
    if part := re.search(r"^! I can't write on file `([^']+)\.aux'", log, re.M):  # in a folder, by \include
        return f"the file {part[1]}.tex is not here: a program has only its own text, no files beside it"
    if library := re.search(r"^! .*did not find the tikz library '([^']+)'", log, re.M):
        return f"TikZ's library {library[1]} is not here: {debian_package(f'tikzlibrary{library[1]}.code.tex')}"
    if re.search(r"^! .*(?:shell.escape|enabled? system calls|write ?18)", log, re.M):
        return "the document wants to start another program, and programs start none here"
    if re.search(r"^! Emergency stop\.\n<\*>", log, re.M):  # TeX asks for more, where nobody answers
        return r"the document ends before \end{document}"
    if language := re.search(r"^! Package babel Error: Unknown option '([^']+)'", log, re.M):
        return f"babel's language {language[1]} is not here: {debian_package(f'{language[1]}.ldf')}"
    if family := re.search(r"^LaTeX Font Warning: Font shape `C\d\d/([^/]+)/m/n' undefined", log, re.M):
        return f"the font {family[1]} of the package CJK is not here: {debian_package(family[1])}"
    if "module 'luaotfload" in log:
        return f"lualatex has no fonts here: apt install {PACKAGE_OF['lualatex']}"
    undefined = re.search(r"^! (?:Undefined control sequence|LaTeX Error: Environment .* undefined)", log, re.M)
    if undefined and (absent := re.search(rf"^{ABSENT} (\S+)", log, re.M)):
        return f"TeX's {absent[1]} is not here: {debian_package(absent[1])}"
    lines = re.findall(r"^(?:! .*|l\.\d+ .*)$", log, re.MULTILINE)
    return "\n".join(lines[:8]) or f"{engine} made no page (status {status}); the document is empty or too large"


BODY = r"(?s)\\begin\{document\}(.*)|(\A(?!.*\\begin\{document\}).*)"
LABEL = r"(?:node\s*(?:\[[^\]]*\]\s*)?(?:\([^)]*\)\s*)?(?:at\s*\([^)]*\)\s*)?|label\s*=\s*|title\s*=\s*)\{([^{}]+)\}"

LANGUAGE = Language(
    name="latex",
    suffixes=(".tex",),
    words=r"latex|tex|tikz|tikzpicture|pgfplots",
    tags=("tikz", "tex"),
    code="LaTeX TikZ code",
    domains={"latex": "figure"},
    sample="\\begin{tikzpicture}\\draw[fill=red] (0,0) circle (1);\\node at (3,0) {$e^{i\\pi}$};\\end{tikzpicture}\n",
    kinds={"latex": Kind(latex_renderer, alone=True, prepares=True)},
    unseen=r"(?m)(?<!\\)%.*$",
    flaws={
        "number": (BODY, r"(?<=[(,=\s{-])\d+(?:\.\d+)?(?=[),;\spcme\]}])"),
        "drop": (BODY, r"(?m)^[ \t]*\\(?:draw|node|fill|filldraw|addplot|path|shade)\b.*;[ \t]*\n"),
        "label": (LABEL, WORD),
    },
)
